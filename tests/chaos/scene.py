"""A scene: a database, nodes, a steady load on them, and the account of what became of each job."""

import re
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from oban_actors import Oban
from oban_actors.actors.clock import real_monotonic
from oban_actors.queues.roster import LEAST_BACKLOG
from tests.chaos.load import Load
from tests.chaos.nodes import Node, Run, pass_time
from tests.support.databases import Database
from tests.support.instances import Tables
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

LIMIT = 10
SECONDS = {True: 0.05, False: 0.2}
"""What a job takes, by whether the form is long: then strikes meet many that begin or end."""

MEASURED = 0.5
"""Seconds of a job while throughput is measured. A slot is filled again by a transaction of 3 to 20
milliseconds, as the machine has it: beside that a job has to be long, for the slots to decide.
"""

BACKLOG = {True: 100 * LIMIT, False: 10 * LIMIT}
"""Jobs that wait, so that they outlast an inserter that comes back later than the nodes."""

BOUND = LIMIT + max(LIMIT, LEAST_BACKLOG)
"""Jobs that the death of a node can make run again, as docs/queues.md says."""

OPTIONS: dict[str, Any] = {
    "queues": {"alpha": LIMIT},
    "peer": {"lease": 3.0, "renew": 1.0},
    "pulse": {"interval": 1.0},
    "lifeline": {"watch": 8.0, "interval": 1.0},
    "shutdown_grace_period": 5.0,
}
UNENDED = """
SELECT count(*) FROM {jobs} WHERE worker = 'chaos.work'
AND state IN ('available', 'scheduled', 'executing', 'retryable')
"""
# As the tree says it: what it quotes may have such words too, as a pooler's "server conn crashed?".
CRASHED = re.compile(
    r" crashed (over|in) |^child \S+ ended: | ended by a fault | gives up: | is abandoned;"
)
ENOUGH = 0.98
WINDOWS = (5, 3.0)
"""How many windows of so many seconds throughput is the median of."""

TRIES = 4
"""How often that is measured afterwards, as other programs may disturb it."""


@dataclass
class Scene:
    """What a fault strikes.

    Attributes:
        database: what the load inserts into, and by default the nodes use.
        directory: for files.
        server: the PostgreSQL server, if it is one.
        long: whether it is the long form: with more strikes, and throughput measured.
        options: of all nodes.
        random: decides when what is struck.
        nodes: all that were ever started.
        proxy: the network that it has in between, if the fault is one of networks.
        standstill: the longest time after a fault until jobs ran again as before.
        strikes: how often it struck.
        quotes: what the user was told otherwise than by the nodes' logs.

    """

    database: Database
    directory: Path
    server: PostgresServer | None = None
    long: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    random: Random = field(default_factory=Random)
    nodes: list[Node] = field(default_factory=list)
    proxy: TcpProxy | None = None
    standstill: float = 0.0
    strikes: int = 0
    quotes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables = Tables(self.database)
        self.begun: Counter[int] = Counter()
        self._runs: list[Run] = []
        self._lock = threading.Lock()
        self.oban = Oban(self.database.url, prefix=self.database.prefix)
        self.oban.migrate()
        self.load = Load(self.database, self.count, BACKLOG[self.long], SECONDS[self.long])

    def close(self) -> None:
        """End everything."""
        try:
            self.load.stop()
        finally:
            for node in self.nodes:
                node.end()
            self.oban.repo.close()
            self.tables.engine.dispose()

    # Nodes

    def start(self, count: int = 1, *, url: str | None = None, **options: Any) -> list[Node]:
        """Start nodes, and wait until their jobs run."""
        made = []
        for _ in range(count):
            given = OPTIONS | self.options | options
            where = url or self.database.url
            node = Node(where, self.database.prefix, given, self.directory, len(self.nodes))
            self.nodes.append(node)
            made.append(node)
        wait_until(lambda: all(self._has_started(node) for node in made), 60, "nodes have started")
        return made

    def _has_started(self, node: Node) -> bool:
        self.hear()
        assert node.lives, node.stderr.read_text()
        return node.started

    @property
    def living(self) -> list[Node]:
        """The nodes whose process is there."""
        return [node for node in self.nodes if node.lives]

    def leader(self) -> Node:
        """Wait until one of the nodes leads, and give it."""

        def leaders() -> list[Node]:
            self.hear()
            return [node for node in self.living if node.leads]

        wait_until(lambda: len(leaders()) == 1, 60, "one leader")
        return leaders()[0]

    # What happens

    def hear(self) -> None:
        """Take in what all nodes said since the last time."""
        with self._lock:
            for node in self.nodes:
                for run in node.hear():
                    self.begun[run.job_id] += 1
                    self._runs.append(run)

    def count(self) -> int:
        """How many jobs have begun at least once."""
        self.hear()
        return len(self.begun)

    def times(self) -> list[float]:
        """When all runs began, in order."""
        self.hear()
        with self._lock:
            return sorted(run.at for run in self._runs)

    def runs_of(self, seconds: float) -> list[Run]:
        """Give the runs of jobs that take so long."""
        self.hear()
        with self._lock:
            return [run for run in self._runs if run.seconds == seconds]

    def times_over(self, at: float) -> list[float]:
        """When the runs after that moment began."""
        return [each for each in self.times() if each > at]

    def wait_for_runs(self, count: int, after: float | None = None) -> float:
        """Wait until so many runs have begun after a moment, by default now; returns when."""
        since = real_monotonic() if after is None else after
        # A server that comes back may find nodes in the midst of their longest back-off.
        wait_until(lambda: len(self.times_over(since)) >= count, 90, f"{count} more runs")
        return self.times_over(since)[count - 1]

    def rounds(self, long: int, short: int = 1) -> range:
        """As many strikes as the form has."""
        return range(long if self.long else short)

    @contextmanager
    def strike(self) -> Iterator[None]:
        """Strike at a moment of chance; the fault is over with the block.

        Jobs are then to run again as before: as many as run at once have to begin.
        """
        self.wait_for_runs(self.random.randint(5, 300 if self.long else 30))
        self.strikes += 1
        yield
        over = real_monotonic()
        flowing = self.wait_for_runs(LIMIT * max(1, len(self.living)), after=over)
        self.standstill = max(self.standstill, flowing - over)

    def told(self, pattern: str, *, anew: bool = False, timeout: float = 60.0) -> str:
        """Wait until a node has logged what matches, by default ever, and give what did."""
        since = real_monotonic() if anew else 0.0

        def find() -> list[str]:
            self.hear()
            logs = [log for node in self.nodes for log in list(node.logs) if log.at > since]
            return [match.group() for log in logs if (match := re.search(pattern, log.text))]

        return wait_until(find, timeout, f"a node says {pattern!r}")[0]

    def quote(self, pattern: str, text: str) -> None:
        """Keep what the user was told, which has to match."""
        found = re.search(pattern, text)
        assert found, f"expected {pattern!r} in: {text}"
        self.quotes.append(found.group())

    def rate(self) -> float:
        """Measure how many jobs are done in a second, with such as fill their slots.

        What lies in a window of a job that begins before it, or ends after it, counts as a part of
        one, so that slots in step with each other don't count by turns.
        """
        count, seconds = WINDOWS
        rates = []
        with self.load.other(BACKLOG[False], MEASURED):
            self._flows(MEASURED)
            for _ in range(count):
                begin = real_monotonic()
                pass_time(seconds)
                end = real_monotonic()
                shares = (run.share(begin, end) for run in self.runs_of(MEASURED))
                rates.append(sum(shares) / (end - begin))
        self._flows(SECONDS[self.long])
        return statistics.median(rates)

    def _flows(self, seconds: float) -> None:
        """Wait until every slot has had a job of that length, for which others have to be done."""
        count = len(self.runs_of(seconds)) + 2 * LIMIT * len(self.living)
        wait_until(lambda: len(self.runs_of(seconds)) >= count, 90, f"jobs of {seconds} s")

    def rate_again(self, before: float) -> float:
        """Measure that again after the fault, until it is enough or was tried often."""
        after = 0.0
        for _ in range(TRIES):
            after = max(after, self.rate())
            if after >= ENOUGH * before:
                break
        return after

    # The account

    def settle(self, timeout: float = 90.0) -> None:
        """Insert no more, and wait until every job has ended."""
        self.load.stop()
        wait_until(lambda: self.tables.execute(UNENDED)[0][0] == 0, timeout, "every job has ended")
        self.hear()

    def lost(self) -> set[int]:
        """Jobs whose insertion was confirmed, and that did not end well."""
        rows = self.tables.execute("SELECT id FROM {jobs} WHERE state = 'completed'")
        return self.load.confirmed - {row[0] for row in rows}

    def again(self) -> int:
        """How many runs there were beyond the first of each job."""
        return sum(self.begun.values()) - len(self.begun)

    def unseen(self) -> set[int]:
        """Jobs that ended without ever having begun."""
        rows = self.tables.execute(
            "SELECT id FROM {jobs} WHERE state = 'completed' AND worker = 'chaos.work'"
        )
        return {row[0] for row in rows} - set(self.begun)

    def crashes(self) -> list[str]:
        """What was logged of actors that crashed, and printed by whatever else did."""
        self.hear()
        logged = [log.text for node in self.nodes for log in node.logs if CRASHED.search(log.text)]
        printed = [node.stderr.read_text(errors="replace") for node in self.nodes]
        return logged + [text for text in printed if text]

    def complaints(self) -> int:
        """How many warnings and errors there were."""
        self.hear()
        return sum(log.level in ("WARNING", "ERROR") for node in self.nodes for log in node.logs)
