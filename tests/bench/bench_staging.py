"""Staging: how fast a backlog that is due becomes available, and what other queues feel of it."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg

from oban_actors import IsLeader, Job, Oban, Stage, telemetry, worker
from tests.bench.backlog import Store, new_file, new_store
from tests.bench.report import Report
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

DEFAULT = 5_000
PAUSE = 0.04
"""Seconds between two fresh jobs."""

SECONDS = 600.0
"""That a backlog may take."""

BARE = """
UPDATE oban_jobs SET state = 'available' WHERE id = ANY (ARRAY(
  SELECT id FROM oban_jobs WHERE state IN ('scheduled', 'retryable')
  AND scheduled_at <= clock_timestamp() AT TIME ZONE 'UTC'
  ORDER BY scheduled_at, id LIMIT %s FOR UPDATE SKIP LOCKED))
"""

_fresh: list[float] = []


@worker(name="bench.fresh", queue="fresh")
def fresh(job: Job) -> None:
    """Note how many ms after its insert it began."""
    _fresh.append((time.time() - job.args["at"]) * 1e3)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        jobs: that are due at once; every limit with the fewest, the default one with all.
        limits: jobs that one pass makes available at most.
        rounds: of each with the fewest jobs, in turns.

    """

    jobs: tuple[int, ...] = (100_000, 1_000_000)
    limits: tuple[int, ...] = (1_000, 5_000, 10_000, 20_000)
    rounds: int = 3


def run(report: Report, size: Size = Size()) -> None:
    """Measure on a durable server, and on a file."""
    few, *many = size.jobs
    with PostgresServer(durable=True) as server:
        for limit in size.limits:
            rounds = [_both(server, few, limit) for _ in range(size.rounds)]
            _add(report, f"{few:,} due, limit {limit:,}", rounds)
        for jobs in many:
            _add(report, f"{jobs:,} due, limit {DEFAULT:,}", [_both(server, jobs, DEFAULT)])
        for limit in size.limits:
            with new_store(server) as store:
                _staged(store, few, limit, beside=True)
            samples, _fresh[:] = list(_fresh), []
            name = f"a fresh job beside {few:,} due, limit {limit:,}"
            report.add_samples(f"PostgreSQL, {name}", samples, "ms", goal="< 50")
    with new_file() as store:
        report.add(f"SQLite, {few:,} due", few / _staged(store, few, DEFAULT), "jobs/s")


def _add(report: Report, what: str, rounds: list[tuple[float, float]]) -> None:
    ratios = [ours / bare for bare, ours in rounds]
    report.add(f"PostgreSQL, {what}, bare UPDATE", median(bare for bare, _ in rounds), "jobs/s")
    report.add(f"PostgreSQL, {what}", median(ours for _, ours in rounds), "jobs/s")
    report.add(f"PostgreSQL, {what}, ratio", median(ratios), "ours / bare", goal="> 0.9")


def _both(server: PostgresServer, jobs: int, limit: int) -> tuple[float, float]:
    with new_store(server) as store:
        bare = _bare(store, jobs, limit)
    with new_store(server) as store:
        return jobs / bare, jobs / _staged(store, jobs, limit)


def _bare(store: Store, jobs: int, limit: int) -> float:
    """The UPDATE by psycopg alone, committed after each batch."""
    _fill(store, jobs)
    with psycopg.connect(store.conninfo, prepare_threshold=0) as connection:
        # As our own transactions do: a table without statistics would be read from end to end.
        for name in ("seqscan", "bitmapscan", "sort"):
            connection.execute(f"SET enable_{name} = off")
        connection.commit()
        left = jobs
        began = time.perf_counter()
        while left > 0:
            left -= connection.execute(BARE, (limit,)).rowcount
            connection.commit()
        return time.perf_counter() - began


def _staged(store: Store, jobs: int, limit: int, *, beside: bool = False) -> float:
    """An instance, from the first pass until the last one is committed."""
    options: dict[str, Any] = {"queues": {"fresh": 10}} if beside else {}
    oban = Oban(store.url, stager={"interval": 3600.0, "limit": limit}, **options)
    with oban, ExitStack() as stack:
        wait_until(lambda: oban.ask("peer", IsLeader()))
        oban.ask("stager", Stage(), timeout=30)
        _fill(store, jobs)
        finished = stack.enter_context(_passes(jobs))
        began = time.perf_counter()
        oban.tell("stager", Stage())
        told = _insert_fresh(oban, finished) if beside else 0
        if not finished(SECONDS):
            raise RuntimeError(f"not all of {jobs} jobs became available")
        wait_until(lambda: len(_fresh) >= told)
        return _ended[-1] - began


def _insert_fresh(oban: Oban, finished: Callable[[float], bool]) -> int:
    """Insert jobs that can run at once, one at least, until the backlog is staged."""
    told = 0
    while not told or not finished(PAUSE):
        oban.insert(Job.new({"at": time.time()}, worker="bench.fresh", queue="fresh"))
        told += 1
    return told


_ended: list[float] = []


@contextmanager
def _passes(jobs: int) -> Iterator[Callable[[float], bool]]:
    """Note when passes have ended that staged so many jobs in all, and give what waits for it."""
    staged = [0]
    done = threading.Event()

    def on_pass(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        staged[0] += metadata.get("staged_count", 0)
        if staged[0] >= jobs and not done.is_set():
            _ended.append(time.perf_counter())
            done.set()

    telemetry.attach("bench", "oban.plugin.stop", on_pass)
    try:
        yield done.wait
    finally:
        telemetry.detach("bench")


def _fill(store: Store, jobs: int) -> None:
    """Put in jobs that are due."""
    if store.conninfo:
        with psycopg.connect(store.conninfo, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO oban_jobs (state, queue, worker, args, scheduled_at) "
                "SELECT 'scheduled', 'due', 'w', '{}', now() AT TIME ZONE 'UTC' "
                "- n * interval '1 ms' FROM generate_series(1, %s) AS n",
                (jobs,),
            )
            connection.execute("CHECKPOINT")
        return
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute(
            "INSERT INTO oban_jobs (state, queue, worker, args, scheduled_at) "
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "SELECT 'scheduled', 'due', 'w', '{}', "
            "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', -i || ' seconds') FROM n",
            (jobs,),
        )
