"""Lateness: how long after its due time a scheduled job starts, beside the bare statements."""

import random
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psycopg

from oban_actors import Job, Oban
from tests.bench import bare
from tests.bench.backlog import Store
from tests.bench.program import Program
from tests.bench.report import Report
from tests.support.databases import new_database
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        jobs: that are due at random moments.
        seconds: within which they are due.
        nodes: that run them; one of them leads.
        burst: jobs that are due within one second.

    """

    jobs: int = 200
    seconds: float = 20.0
    nodes: int = 2
    burst: int = 1_000


AHEAD = 3.0
"""Seconds from the insert until the first job is due."""

UNFINISHED = ["scheduled", "available", "executing"]

STAGE = """
UPDATE oban_jobs SET state = 'available' WHERE id = ANY (ARRAY(
  SELECT id FROM oban_jobs WHERE state IN ('scheduled', 'retryable')
  AND scheduled_at <= clock_timestamp() AT TIME ZONE 'UTC'
  ORDER BY scheduled_at, id LIMIT 5000 FOR UPDATE SKIP LOCKED))
"""


def run(report: Report, size: Size = Size()) -> None:
    """Measure with default settings, on a durable server and on a file."""
    with PostgresServer(durable=True) as server:
        with new_database(server) as name:
            plain = _bare(Store(server.url(name), server.conninfo(name)), size)
        with new_database(server) as name:
            ours = _ours(Store(server.url(name), server.conninfo(name)), size, size.seconds)
        with new_database(server) as name:
            store = Store(server.url(name), server.conninfo(name))
            burst = _ours(store, Size(size.burst, 1.0, size.nodes), 1.0)
    report.add_samples("PostgreSQL, the bare chain", plain, "ms")
    report.add_samples(f"PostgreSQL, {size.nodes} nodes", ours, "ms", goal="< 10")
    report.add("PostgreSQL, ratio of p50", median(ours) / median(plain), "ours / bare", "< 1.5")
    report.add("PostgreSQL, ratio of p99", _p99(ours) / _p99(plain), "ours / bare", "< 1.5")
    report.add_samples(f"PostgreSQL, {size.burst} due within a second", burst, "ms")
    with tempfile.TemporaryDirectory() as folder:
        late = _ours(Store(f"sqlite:///{Path(folder) / 'jobs.db'}"), size, size.seconds)
    report.add_samples(f"SQLite, {size.nodes} nodes", late, "ms", goal="< 10")


def _p99(samples: list[float]) -> float:
    return sorted(samples)[min(len(samples) * 99 // 100, len(samples) - 1)]


def _moments(size: Size, seconds: float) -> list[datetime]:
    rng = random.Random(7)
    first = datetime.now(UTC) + timedelta(seconds=AHEAD)
    return sorted(first + timedelta(seconds=rng.uniform(0, seconds)) for _ in range(size.jobs))


def _insert(oban: Oban, size: Size, seconds: float) -> list[datetime]:
    moments = _moments(size, seconds)
    oban.insert_all(
        [
            Job.new(
                {"at": due.timestamp()}, worker="bench.threads", queue="bench", scheduled_at=due
            )
            for due in moments
        ]
    )
    return moments


def _ours(store: Store, size: Size, seconds: float) -> list[float]:
    oban = Oban(store.url)
    oban.migrate()
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(Program(sys.executable, "ours", store.url, 10, 0))
            for _ in range(size.nodes)
        ]
        for node in nodes:
            node.wait_for("started")
        moments = _insert(oban, size, seconds)
        wait_until(lambda: datetime.now(UTC) > moments[-1], AHEAD + seconds + 60)
        wait_until(lambda: not oban.all_jobs(state=UNFINISHED, limit=1))
        oban.repo.close()
        late: list[float] = [each for node in nodes for each in node.end()["late"]]
    if len(late) != size.jobs:
        raise RuntimeError(f"{len(late)} of {size.jobs} jobs ran")
    return late


def _bare(store: Store, size: Size) -> list[float]:
    """Stage, commit, fetch, commit, in one thread that knows each due time."""
    oban = Oban(store.url)
    oban.migrate()
    moments = _insert(oban, size, size.seconds)
    oban.repo.close()
    late: list[float] = []
    pause = threading.Event()
    with psycopg.connect(store.conninfo, prepare_threshold=0) as connection:
        for name in ("seqscan", "bitmapscan", "sort"):
            connection.execute(f"SET enable_{name} = off")
        connection.commit()
        while len(late) < len(moments):
            # Rounding must not make it look before the job is due.
            ahead = moments[len(late)].timestamp() - time.time() + 0.0005
            if ahead > 0:
                pause.wait(ahead)
            connection.execute(STAGE)
            connection.commit()
            rows = connection.execute(bare.FETCH, (10,)).fetchall()
            connection.commit()
            late += [(time.time() - row[3]["at"]) * 1e3 for row in rows]
    return late
