"""Drains: large ones, by two processes, and how long an ended job waits until that is durable."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

from tests.bench.backlog import Store, new_file, new_store
from tests.bench.bench_queues import KINDS
from tests.bench.draining import drain_by
from tests.bench.report import Report
from tests.support.postgres import PostgresServer


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        jobs: in each drain.
        limits: at which ended jobs are watched.
        nodes: how many processes.
        limit: of the queue in all others.
        rounds: the medians of which are reported.
        kinds: of workers.

    """

    jobs: tuple[int, ...] = (20_000, 200_000)
    limits: tuple[int, ...] = (50, 1_000)
    nodes: tuple[int, ...] = (1, 2)
    limit: int = 1_000
    rounds: int = 3
    kinds: tuple[str, ...] = KINDS


GOALS = {("PostgreSQL", 1): "> 15000", ("PostgreSQL", 2): "> 20000"}


def run(report: Report, size: Size = Size()) -> None:
    """Measure on a durable server and on a file."""
    with PostgresServer(durable=True) as server:
        for database in ("PostgreSQL", "SQLite"):
            _rates(report, size, database, server)
            _acknowledgements(report, size, database, server)


def _new(database: str, server: PostgresServer) -> AbstractContextManager[Store]:
    return new_store(server) if database == "PostgreSQL" else new_file()


def _rates(report: Report, size: Size, database: str, server: PostgresServer) -> None:
    cases = [
        (count, nodes, kind) for count in size.jobs for nodes in size.nodes for kind in size.kinds
    ]
    rates: dict[tuple[int, int, str], list[float]] = {case: [] for case in cases}
    # In turns, so that whatever else the machine does meets all of them.
    for _ in range(size.rounds):
        for count, nodes, kind in cases:
            with _new(database, server) as store:
                done = drain_by(nodes, store, count, size.limit, kind)
            rates[count, nodes, kind].append(done.rate)
    for count, nodes, kind in cases:
        found = rates[count, nodes, kind]
        name = f"{database}, {count:,} jobs, {kind}, {nodes} process{'es' if nodes > 1 else ''}"
        report.add(name, median(found), "jobs/s", GOALS.get((database, nodes), ""))
        report.add(f"{name}, slowest", min(found), "jobs/s")
        report.add(f"{name}, fastest", max(found), "jobs/s")


def _acknowledgements(report: Report, size: Size, database: str, server: PostgresServer) -> None:
    for limit in size.limits:
        for kind in size.kinds:
            with _new(database, server) as store:
                done = drain_by(1, store, size.jobs[0], limit, kind, acks=True)
            (said,) = done.said
            if len(said["acked"]) != size.jobs[0]:
                raise RuntimeError(f"{len(said['acked'])} of {size.jobs[0]} ends were told")
            name = f"{database}, from end to durable, {kind}, limit {limit}"
            report.add_samples(name, said["acked"], "ms")
