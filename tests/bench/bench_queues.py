"""Queues: how fast jobs are done, how soon they begin, and what a backlog weighs."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg

from oban_actors import Job, Oban
from tests.bench import bare
from tests.bench.backlog import Store, fill, new_file, new_store, unfinished
from tests.bench.program import Program
from tests.bench.programs.pacing import pauses
from tests.bench.report import Report
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        jobs: in a drain.
        slow_jobs: in a drain at a limit of 10, which takes several times as long.
        limits: of the queue.
        rounds: of each drain; the median is reported.
        inserts: for the time from insert to start.
        backlogs: numbers of queued jobs beside which memory is looked at.
        seconds: that a node drains such a backlog.

    """

    jobs: int = 20_000
    slow_jobs: int = 10_000
    limits: tuple[int, ...] = (10, 50, 200, 1_000)
    rounds: int = 3
    inserts: int = 200
    backlogs: tuple[int, ...] = (10_000, 1_000_000)
    seconds: float = 4.0


KINDS = ("threads", "async")


def run(report: Report, size: Size = Size()) -> None:
    """Measure on durable databases; each node is a process of its own."""
    with PostgresServer(durable=True) as server:
        _drains(report, size, server)
        _latency(report, size, server)
        _memory(report, size, server)
    for limit in size.limits:
        for kind in KINDS:
            rates = [_drain_sqlite(size, limit, kind) for _ in range(size.rounds)]
            report.add(f"SQLite, {kind}, limit {limit}", median(rates), "jobs/s", _goal(limit))


def drain(store: Store, count: int, limit: int, kind: str) -> dict[str, Any]:
    """Let one node do so many jobs, and give what it said and the `seconds` it took.

    They run from the start of the first job until the table shows none that is not finished.
    """
    fill(store, count, f"bench.{kind}")
    with Program(sys.executable, "ours", store.url, limit, count) as node:
        first = node.wait_for("first")
        node.wait_for("ran")
        with unfinished(store) as any_left:
            while any_left():
                pass
        seconds = time.time() - first
        return node.end() | {"seconds": seconds, "rate": count / seconds}


# Drains


def _goal(limit: int) -> str:
    return "> 20000" if limit == 1_000 else ""


def _count(size: Size, limit: int) -> int:
    return size.slow_jobs if limit <= 10 else size.jobs


def _drains(report: Report, size: Size, server: PostgresServer) -> None:
    for limit in size.limits:
        count = _count(size, limit)
        rates: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "bare")}
        costs: list[tuple[float, float]] = []
        # In turns, so that whatever else the machine does meets all of them.
        for _ in range(size.rounds):
            with new_store(server) as store:
                fill(store, count, "bench.bare")
                rates["bare"].append(count / bare.drain(store.conninfo, limit))
            for kind in KINDS:
                with new_store(server) as store, _costs(store, count, costs):
                    rates[kind].append(drain(store, count, limit, kind)["rate"])
        _report_drains(report, limit, rates, costs)


def _report_drains(
    report: Report, limit: int, rates: dict[str, list[float]], costs: list[tuple[float, float]]
) -> None:
    loop = median(rates["bare"])
    report.add(f"PostgreSQL, the bare loop, batch {limit}", loop, "jobs/s")
    for kind, wanted in zip(KINDS, ("> 0.8", "> 0.9"), strict=True):
        name = f"PostgreSQL, {kind}, limit {limit}"
        report.add(name, median(rates[kind]), "jobs/s")
        report.add(f"{name}, slowest", min(rates[kind]), "jobs/s")
        report.add(f"{name}, ratio", median(rates[kind]) / loop, "ours / bare", wanted)
    commits, bytes_written = (median(column) for column in zip(*costs, strict=True))
    report.add(f"PostgreSQL, limit {limit}, commits", commits, "per 1,000 jobs")
    report.add(f"PostgreSQL, limit {limit}, WAL", bytes_written, "bytes per job")


@contextmanager
def _costs(store: Store, count: int, costs: list[tuple[float, float]]) -> Iterator[None]:
    """Note what the drain in the block costs: commits for 1,000 jobs, and WAL bytes for each.

    What inserting costs is taken off: the same is done first, without a drain.
    """
    fill(store, count, "bench.none", queue="other")
    before = _counters(store)
    fill(store, count, "bench.none", queue="another")
    filled = _counters(store)
    yield
    after = _counters(store)
    inserting = filled[1] - before[1]
    costs.append(
        (
            (after[0] - filled[0]) / count * 1_000,
            (after[1] - filled[1] - inserting) / count,
        )
    )


def _counters(store: Store) -> tuple[int, int]:
    with psycopg.connect(store.conninfo, autocommit=True) as connection:
        # A backend that has just ended counts its commits at its very end.
        wait_until(lambda: _alone(connection))
        row = connection.execute(
            "SELECT xact_commit, pg_current_wal_insert_lsn() - '0/0'::pg_lsn "
            "FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _alone(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_type = 'client backend'"
    ).fetchone()
    return row == (1,)


def _drain_sqlite(size: Size, limit: int, kind: str) -> float:
    with new_file() as store:
        rate: float = drain(store, _count(size, limit), limit, kind)["rate"]
        return rate


# From insert to start


def bare_starts(server: PostgresServer, count: int) -> list[float]:
    """Give ms from insert to what begins a job, by bare statements on an idle database."""
    late: list[float] = []
    with (
        new_store(server) as store,
        bare.listener(store.conninfo, late),
        psycopg.connect(store.conninfo) as connection,
    ):
        _every_now_and_then(count, lambda: bare.insert(connection))
        wait_until(lambda: len(late) == count)
    return late


def starts(server: PostgresServer, count: int) -> list[float]:
    """Give ms from insert to start of jobs, inserted one by one, of one idle node."""
    with new_store(server) as store, Program(sys.executable, "ours", store.url, 10, 0) as node:
        node.wait_for("started")
        oban = Oban(store.url)
        _every_now_and_then(count, lambda: oban.insert(_job("bench.threads", {"at": time.time()})))
        with unfinished(store) as any_left:
            wait_until(lambda: not any_left())
        oban.repo.close()
        late: list[float] = node.end()["late"]
        return late


def _latency(report: Report, size: Size, server: PostgresServer) -> None:
    plain, ours = bare_starts(server, size.inserts), starts(server, size.inserts)
    report.add_samples("insert to start, bare", plain, "ms")
    report.add_samples("insert to start", ours, "ms", goal="< 15, or 1.5 x bare", median="< 5")
    report.add("insert to start, ratio of p50", median(ours) / median(plain), "ours / bare")


def _every_now_and_then(count: int, do: Any) -> None:
    pause = threading.Event()
    for seconds in pauses(count):
        pause.wait(seconds)
        do()


def _job(worker: str, args: dict[str, Any]) -> Job:
    return Job.new(worker=worker, args=args, queue="bench")


# Memory


def _memory(report: Report, size: Size, server: PostgresServer) -> None:
    figures = []
    for count in size.backlogs:
        with new_store(server) as store:
            fill(store, count, "bench.threads")
            with Program(sys.executable, "ours", store.url, 200, 0) as node:
                node.wait_for("first")
                threading.Event().wait(size.seconds)
                facts = node.end()
        figures.append(facts["peak"])
        report.add(f"memory beside {count:,} queued", facts["peak"], "MB at most")
        report.add(f"jobs done beside {count:,} queued", facts["jobs"] / size.seconds, "jobs/s")
    report.add("memory, ratio", figures[-1] / figures[0], "most / fewest queued", "< 1.1")
