"""Staging: how late jobs become available, and how fast a backlog does."""

import random
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from oban_actors import IsLeader, Job, Oban, Stage, telemetry
from tests.bench.report import Report
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

JOBS = 200
SECONDS = 20.0
BACKLOG = 100_000


def run(report: Report) -> None:
    """Measure on durable servers of both kinds."""
    with tempfile.TemporaryDirectory() as folder:
        _measure(report, "SQLite", f"sqlite:///{Path(folder) / 'jobs.db'}")
    with PostgresServer(durable=True) as server:
        _measure(report, "PostgreSQL", server.url())
        _bare(report, server)


def _measure(report: Report, kind: str, url: str) -> None:
    oban = Oban(url)
    oban.migrate()
    with oban:
        wait_until(lambda: oban.ask("peer", IsLeader()))
        report.add_samples(f"{kind}, lateness", _lateness(oban), "ms", goal="< 10")
        report.add(f"{kind}, a backlog staged", _backlog(oban), "jobs/s")
        _insert(report, kind, oban)


def _lateness(oban: Oban) -> list[float]:
    due: dict[int, float] = {}
    late: list[float] = []
    done = threading.Event()

    def on_pass(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        now = time.time()
        late.extend((now - due[job.id]) * 1e3 for job in metadata.get("staged_jobs", ()))
        if len(late) >= JOBS:
            done.set()

    rng = random.Random(7)
    jobs = oban.insert_all([_job(schedule_in=1 + rng.uniform(0, SECONDS)) for _ in range(JOBS)])
    due.update({job.id or 0: job.scheduled_at.timestamp() for job in jobs if job.scheduled_at})
    telemetry.attach("bench", "oban.plugin.stop", on_pass)
    try:
        if not done.wait(SECONDS + 60):
            raise TimeoutError(f"only {len(late)} of {JOBS} jobs were staged")
    finally:
        telemetry.detach("bench")
    return late


def _backlog(oban: Oban) -> float:
    oban.insert_all([_job(schedule_in=-60) for _ in range(BACKLOG)])
    began = time.perf_counter()
    staged = 0
    while staged < BACKLOG:
        staged += oban.ask("stager", Stage(), timeout=60).staged_count
        if _left(oban) == 0:
            break
    return BACKLOG / (time.perf_counter() - began)


def _left(oban: Oban) -> int:
    statement = sa.text(
        f"SELECT count(*) FROM {'public.' if oban.repo.dialect == 'postgresql' else ''}oban_jobs "
        "WHERE state = 'scheduled' AND queue = 'bench'"
    )
    return int(oban.repo.transaction(lambda c: c.execute(statement).scalar_one()))


def _insert(report: Report, kind: str, oban: Oban) -> None:
    jobs = [_job() for _ in range(20_000)]
    began = time.perf_counter()
    oban.insert_all(jobs)
    report.add(f"{kind}, bulk insert", len(jobs) / (time.perf_counter() - began), "jobs/s")


def _bare(report: Report, server: PostgresServer) -> None:
    """The same UPDATE by psycopg alone, with the same limit."""
    with psycopg.connect(server.conninfo()) as connection:
        connection.execute("UPDATE oban_jobs SET state = 'scheduled' WHERE state = 'available'")
        count = connection.execute("SELECT count(*) FROM oban_jobs").fetchone()
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE oban_jobs")
        connection.autocommit = False
        began = time.perf_counter()
        while connection.execute(
            "UPDATE oban_jobs SET state = 'available' WHERE id = ANY (ARRAY(SELECT id FROM "
            "oban_jobs WHERE state IN ('scheduled', 'retryable') AND scheduled_at <= now() AT "
            "TIME ZONE 'UTC' ORDER BY scheduled_at, id LIMIT 5000 FOR UPDATE SKIP LOCKED))"
        ).rowcount:
            connection.commit()
        took = time.perf_counter() - began
    report.add("PostgreSQL, the bare UPDATE", (count or (0,))[0] / took, "jobs/s")


def _job(**options: Any) -> Job:
    return Job.new(worker="bench.Worker", args={}, queue="bench", **options)
