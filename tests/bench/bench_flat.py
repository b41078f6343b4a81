"""Flat: what each hot statement costs beside ten thousand rows, a million, and ten million."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC
from statistics import median
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import sqlalchemy as sa

from oban_actors import IsLeader, Job, JobState, Oban, Stage
from oban_actors.claim import Ack, Claimant
from oban_actors.engines import make_engine
from tests.bench.backlog import Store, new_store
from tests.bench.report import Report
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

T = TypeVar("T")


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rows: in the table, the fewest first.
        rounds: of each statement, in each condition.
        jobs: that each statement is about.

    """

    rows: tuple[int, ...] = (10_000, 1_000_000)
    rounds: int = 101
    jobs: int = 20


@dataclass(frozen=True)
class Filling:
    """What the table is full of.

    Attributes:
        name: of its figures.
        columns: that are set, beside the queue and the worker.
        values: what they are set to.
        then: what is done to all rows, so that each leaves a dead one; nothing by default.
        goal: for the ratio to the fewest rows.

    """

    name: str
    columns: str
    values: str
    then: str = ""
    goal: str = "< 1.5"


FINISHED = Filling(
    "finished",
    "state, attempt, scheduled_at, attempted_at, completed_at, attempted_by",
    "'completed', 1, {ago}, {ago}, {ago}, ARRAY['node', 'uuid']",
)
AHEAD = Filling(
    "scheduled",
    "state, scheduled_at",
    "'scheduled', now() + interval '1 day' + n * interval '1 second'",
)
BACKLOG = Filling("in backlog", "state", "'available'")
DRAINED = Filling(
    "just drained",
    "state, scheduled_at",
    "'available', {ago}",
    then="UPDATE oban_jobs SET state = 'completed', completed_at = now()",
    goal="",
)
FILLINGS = (FINISHED, AHEAD, BACKLOG, DRAINED)

AGO = "now() - interval '1 day' - n * interval '1 millisecond'"
FILL = """
INSERT INTO oban_jobs (queue, worker, args, {columns})
SELECT CASE n % 2 WHEN 0 THEN 'bench' ELSE 'queue_' || n % 10 END, 'bench.Worker',
  jsonb_build_object('account', n), {values}
FROM generate_series({first}, {last}) AS n
"""
CHUNK = 1_000_000

CLAIMED = sa.text("SELECT id, attempted_at FROM public.oban_jobs WHERE state = 'executing'")


def run(report: Report, size: Size = Size()) -> None:
    """Measure on a durable server: whole passes, and the engine's own statements."""
    with PostgresServer(durable=True) as server:
        for filling in FILLINGS:
            _measure(report, server, filling, size)


def _measure(report: Report, server: PostgresServer, filling: Filling, size: Size) -> None:
    with ExitStack() as stack:
        stores = [stack.enter_context(new_store(server)) for _ in size.rows]
        for store, rows in zip(stores, size.rows, strict=True):
            _sql(store, "ALTER TABLE oban_jobs SET (autovacuum_enabled = off)")
            fill(store, filling, rows)
        lives = [stack.enter_context(_life(store, size)) for store in stores]
        _report(report, f"{filling.name}, before autovacuum", filling, size, _rounds(lives, size))
        for store in stores:
            _sql(store, "VACUUM (ANALYZE) oban_jobs")
        # What was written must not be written out meanwhile.
        _sql(stores[0], "CHECKPOINT")
        _report(report, f"{filling.name}, after", filling, size, _rounds(lives, size))


Costs = dict[str, list[float]]


def _rounds(lives: list["Life"], size: Size) -> list[Costs]:
    for life in lives:
        life.round()
        life.costs = {}
    # In turns, so that whatever else the machine does meets all of them.
    for _ in range(size.rounds):
        for life in lives:
            life.round()
    return [life.costs for life in lives]


def _report(
    report: Report, condition: str, filling: Filling, size: Size, costs: list[Costs]
) -> None:
    for what, fewest in costs[0].items():
        points = []
        for rows, each in zip(size.rows, costs, strict=True):
            found = median(each[what])
            points.append((rows, found))
            name = f"{what}, {rows:,} {condition}"
            report.add(name, found, "ms")
            if rows != size.rows[0]:
                ratio = found / median(fewest)
                report.add(f"{name}, ratio", ratio, f"of {size.rows[0]:,}", filling.goal)
        report.add_series(f"{what}, {condition}", points, "ms by rows")


def fill(store: Store, filling: Filling, rows: int) -> None:
    """Put so many rows into the table."""
    for first in range(1, rows + 1, CHUNK):
        last = min(first + CHUNK - 1, rows)
        values = filling.values.format(ago=AGO)
        statement = FILL.format(columns=filling.columns, values=values, first=first, last=last)
        _sql(store, statement)
    if filling.then:
        _sql(store, filling.then)
    _sql(store, "CHECKPOINT")


def _sql(store: Store, statement: str) -> None:
    with psycopg.connect(store.conninfo, autocommit=True) as connection:
        connection.execute(statement.encode())


@contextmanager
def _life(store: Store, size: Size) -> Iterator["Life"]:
    # It makes a pass when it is asked to, and no other.
    with Oban(store.url, stager={"interval": 3_600.0}) as oban:
        wait_until(lambda: oban.ask("peer", IsLeader()))
        # The pass that comes with leadership is over then.
        oban.ask("stager", Stage(), timeout=60)
        yield Life(oban, size)


class Life:
    """Lives of a few jobs, again and again, each of whose steps is timed.

    Args:
        oban: the instance, which leads.
        size: how many lives of how many jobs.

    """

    def __init__(self, oban: Oban, size: Size) -> None:
        self.oban = oban
        self.repo = oban.repo
        self.engine: Any = make_engine(self.repo.dialect, oban.config.prefix)
        self.size = size
        self.claimant = Claimant("bench", str(uuid4()))
        self.costs: Costs = {}

    def round(self) -> None:
        """Insert, stage, look, fetch and acknowledge."""
        engine, count = self.engine, self.size.jobs
        plain = [self._job() for _ in range(count)]
        self._timed("an insert", lambda c: engine.insert_jobs(c, plain, None))
        due = [self._job(schedule_in=-3600.0) for _ in range(count)]
        self.repo.transaction(lambda c: engine.insert_jobs(c, due, None))
        staged = self._clocked("a staging pass", self._pass)
        if staged.staged_count != count:
            raise RuntimeError(f"{staged.staged_count} of {count} jobs were staged: {staged}")
        self._clocked("an idle pass", self._pass)
        self._timed("the queues with work", engine.check_available)
        self._timed("a fetch", lambda c: self._turn(c, [], 2 * count))
        acks = [
            Ack(job_id=job_id, attempted_at=fence.replace(tzinfo=UTC), state=JobState.COMPLETED)
            for job_id, fence in self.repo.transaction(lambda c: c.execute(CLAIMED).all())
        ]
        self._timed("an acknowledgement", lambda c: self._turn(c, acks, 0))

    def _pass(self) -> Any:
        return self.oban.ask("stager", Stage(), timeout=60)

    def _turn(self, connection: sa.Connection, acks: list[Ack], limit: int) -> Any:
        return self.engine.take_turn(connection, self.claimant, "bench", acks, limit, None)

    def _timed(self, what: str, work: Callable[[sa.Connection], T]) -> T:
        # Without the commit, whose time is the disk's.
        return self.repo.transaction(lambda c: self._clocked(what, lambda: work(c)), durable=False)

    def _clocked(self, what: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        done = work()
        self.costs.setdefault(what, []).append((time.perf_counter() - began) * 1e3)
        return done

    def _job(self, **options: Any) -> Job:
        return Job.new({"account": 1}, worker="bench.Worker", queue="bench", **options)
