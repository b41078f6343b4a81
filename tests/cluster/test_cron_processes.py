"""Cron in real time on processes of their own: each minute once, whatever becomes of them.

The database's clock decides, so to have minutes due at once a test sets the mark back and tells
nodes to look.
"""

import json
import signal
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from oban_actors.repo.times import to_moment
from tests.plugins.crontabs import crons, runs
from tests.support.instances import Starter, Tables
from tests.support.nodes import Node, cluster, freeze
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

WORKER = "tests.cron.minutely"
OPTIONS: dict[str, Any] = {"module": "tests.cluster.cron_node"}
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def mark(tables: Tables) -> datetime | None:
    """Read up to when the entry was evaluated."""
    found = tables.execute(f"SELECT evaluated_at FROM {crons(tables)}")
    return to_moment(found[0][0]) if found else None


def set_back(tables: Tables, minutes: int) -> datetime:
    """Let the entry have been evaluated so long ago, with no job, and give that moment."""
    with tables.engine.begin() as connection:
        # From here on no node gets at the mark: a minute that comes now is among those to come.
        tables.on(connection, f"UPDATE {crons(tables)} SET evaluated_at = evaluated_at")
        ((now,),) = tables.on(connection, f"SELECT evaluated_at FROM {crons(tables)}")
        moment = to_moment(now) - minutes * MINUTE
        value: Any = moment.replace(tzinfo=None)
        if tables.schema is None:
            value = value.isoformat(timespec="microseconds") + "Z"
        tables.on(connection, f"UPDATE {crons(tables)} SET evaluated_at = :at", at=value)
        tables.on(connection, "DELETE FROM {jobs}")
    return moment


def due_since(tables: Tables, moment: datetime) -> list[str]:
    """List the minutes that are due after a moment and up to the present mark."""
    until = mark(tables)
    assert until is not None
    first = moment.replace(second=0, microsecond=0) + MINUTE
    count = int((until - first) // MINUTE) + 1
    return [(first + n * MINUTE).strftime("%d %H:%M") for n in range(count)]


def ran(nodes: list[Node]) -> Counter[str]:
    """For which minutes jobs ran, on all nodes together."""
    return Counter(line["ran"] for node in nodes for line in list(node.said) if "ran" in line)


def wait_for_runs(tables: Tables, expected: list[str], timeout: float = 90.0) -> None:
    """Wait until just these runs are in the table; another minute may have come meanwhile."""
    wait_until(lambda: len(runs(tables, WORKER)) >= len(expected), timeout)
    found = runs(tables, WORKER)
    assert found[: len(expected)] == expected
    assert in_a_row(found)


def wait_until_each_ran_once(nodes: list[Node], tables: Tables) -> None:
    """Wait until all jobs that are there ran, and see that none ran twice."""
    count = len(runs(tables, WORKER))
    wait_until(lambda: sum(ran(nodes).values()) >= count, timeout=60)
    assert set(ran(nodes).values()) == {1}


def in_a_row(found: list[str]) -> bool:
    """Whether they are minutes that follow each other, each once."""
    # Of some month that is long enough: the first minute of the next one has to follow too.
    moments = [datetime.strptime(f"2000-01-{each} +0000", "%Y-%m-%d %H:%M %z") for each in found]
    return all((b - a) % DAY == MINUTE for a, b in pairwise(moments))


def look(*nodes: Node) -> None:
    """Let nodes look for what is due, all at the same time."""
    for node in nodes:
        node.signal(signal.SIGUSR1)


def looks(node: Node) -> int:
    """How often a node has looked."""
    return sum("looked" in line for line in list(node.said))


@pytest.fixture
def tables(start_oban: Starter) -> Tables:
    """The tables, with a mark of the entry."""
    start_oban.make()
    found = start_oban.tables
    with cluster(start_oban.database, 1, **OPTIONS):
        wait_until(lambda: mark(found) is not None)
    # A minute may have come meanwhile.
    found.execute("DELETE FROM {jobs}")
    return found


@pytest.mark.timeout(300)
def test_three_nodes_with_clocks_ten_minutes_apart(start_oban: Starter, tables: Tables) -> None:
    """Each minute has one run, on time by the database's clock, and each run one job that ran."""
    before = mark(tables)
    assert before is not None
    nodes = [
        Node(start_oban.database, {"minutes_wrong": wrong, **OPTIONS}) for wrong in (0, 10, -10)
    ]
    try:
        wait_until(lambda: all(node.began() for node in nodes))
        # In real time: a minute comes, and the nodes' timers.
        wait_until(lambda: runs(tables, WORKER), timeout=110)
        look(*nodes)
        assert runs(tables, WORKER) == due_since(tables, before)
        wait_until_each_ran_once(nodes, tables)
        assert max(_lateness(tables)) < 20
    finally:
        for node in nodes:
            node.end()


def _lateness(tables: Tables) -> list[float]:
    found = []
    for meta, inserted in tables.execute("SELECT meta, inserted_at FROM {jobs}"):
        told = json.loads(meta) if isinstance(meta, str) else meta
        due = datetime.fromisoformat(told["cron_at"])
        found.append((to_moment(inserted) - due).total_seconds())
    return found


def test_three_nodes_look_at_the_same_time(start_oban: Starter, tables: Tables) -> None:
    """Again and again, for the same minutes; a mark that was set back makes them due again."""
    with cluster(start_oban.database, 3, **OPTIONS) as nodes:
        for _ in range(5):
            before = set_back(tables, 3)
            look(*nodes, *nodes)
            wait_until(lambda before=before: mark(tables) != before)  # type: ignore[misc]  # bound now
            wait_for_runs(tables, due_since(tables, before))


def test_a_node_is_killed_between_claim_and_commit(
    start_oban: Starter, tables: Tables, tmp_path: Path
) -> None:
    """`kill -9` there leaves neither mark nor job; other nodes claim the same minutes."""
    before = set_back(tables, 3)
    token = tmp_path / "token"
    token.touch()
    options = {"token": str(token), "signum": int(signal.SIGKILL), **OPTIONS}
    doomed = Node(start_oban.database, options)
    try:
        assert doomed.process.wait(60) == -signal.SIGKILL
    finally:
        doomed.end()
    assert not token.exists()
    assert runs(tables, WORKER) == []
    assert mark(tables) == before

    with cluster(start_oban.database, 2, **OPTIONS) as nodes:
        wait_until(lambda: mark(tables) != before)
        wait_for_runs(tables, due_since(tables, before))
        wait_until_each_ran_once(nodes, tables)


def test_nodes_are_killed_and_started_again_and_again(start_oban: Starter, tables: Tables) -> None:
    """Whatever moment each is killed at, the minutes follow each other without gap or double."""
    before = set_back(tables, 3)
    with cluster(start_oban.database, 2, **OPTIONS) as nodes:
        for victim in range(4):
            look(*nodes[victim:])
            nodes[victim].signal(signal.SIGKILL)
            nodes[victim].process.wait(30)
            nodes.append(Node(start_oban.database, dict(OPTIONS)))
            wait_until(nodes[-1].began)
        wait_until(lambda: mark(tables) != before)

        wait_for_runs(tables, due_since(tables, before))


def test_a_node_that_was_stopped_runs_nothing_again(start_oban: Starter, tables: Tables) -> None:
    """SIGSTOP while others do its work, then SIGCONT: it finds their marks."""
    before = set_back(tables, 3)
    with cluster(start_oban.database, 3, **OPTIONS) as nodes:
        wait_until(lambda: sum(node.leads for node in nodes) == 1, 60)
        leader = next(node for node in nodes if node.leads)
        wait_for_runs(tables, due_since(tables, before))
        wait_until_each_ran_once(nodes, tables)
        freeze(leader, start_oban)
        before = set_back(tables, 3)
        look(*(node for node in nodes if node is not leader))
        wait_until(lambda: runs(tables, WORKER))
        expected = due_since(tables, before)
        seen = looks(leader)
        leader.signal(signal.SIGCONT)
        # The first one may have been on its way when it was stopped.
        for more in (1, 2):
            look(leader)
            wait_until(lambda more=more: looks(leader) >= seen + more)  # type: ignore[misc]  # bound now

        wait_for_runs(tables, expected)


@pytest.mark.db
def test_a_node_that_was_stopped_in_its_claim_holds_nobody_up(
    start_oban: Starter, tables: Tables, tmp_path: Path
) -> None:
    """PostgreSQL ends its transaction, another node claims; when it thaws it has nothing to add.

    On SQLite nobody can take a stopped writer's lock from it.
    """
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite can't end another process's transaction")
    before = set_back(tables, 3)
    token = tmp_path / "token"
    token.touch()
    options = {"token": str(token), "signum": int(signal.SIGSTOP), **OPTIONS}
    frozen = Node(start_oban.database, options)
    try:
        wait_until(lambda: not token.exists(), 60)
        with cluster(start_oban.database, 1, **OPTIONS) as (other,):
            wait_until(lambda: mark(tables) != before, 60)
            expected = due_since(tables, before)
            wait_for_runs(tables, expected)
            frozen.signal(signal.SIGCONT)
            for more in (1, 2):
                look(frozen)
                wait_until(lambda more=more: looks(frozen) >= more)  # type: ignore[misc]  # bound now
            wait_for_runs(tables, expected)
            wait_until_each_ran_once([frozen, other], tables)
    finally:
        frozen.end()
