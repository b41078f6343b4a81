"""Inserting: bulk beside the bare statement, unique jobs beside a million finished ones."""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.sql import SQL, Composed, Identifier

from oban_actors import Job, Oban
from tests.bench.report import Report
from tests.support.postgres import PostgresServer

BULK = 20_000
ROUNDS = 5
FINISHED = 1_000_000
SAMPLES = 300
WORKER = "bench.Worker"

WAYS: dict[str, dict[str, Any]] = {
    "args, queue, worker": {"period": None},
    "keys": {"period": None, "keys": ["account"]},
    "meta": {"period": None, "fields": ["worker", "meta"]},
    "keys of meta": {"period": None, "fields": ["worker", "meta"], "keys": ["order"]},
    "the last minute": {"period": 60},
}

BY_JSON = ("keys", "meta")
"""Ways that only an index on JSON makes quick, which a table has where it was asked for."""

BY_KEYS = ("keys", "keys of meta")
"""Ways for which there is one of our own."""

FEW = 10
"""Samples of what takes seconds."""

NEW_ACCOUNTS = itertools.count(FINISHED * 3)

OWN_INDEXES = ("unfinished", "finished")

FINISHED_ON_POSTGRES = """
INSERT INTO oban_jobs (state, queue, worker, args, meta, inserted_at, completed_at)
SELECT 'completed', 'bench', '{worker}',
  jsonb_build_object('account', n, 'kind', 'welcome'), jsonb_build_object('order', n),
  now() - interval '1 day', now() - interval '1 day'
FROM generate_series(1, {count}) AS n
"""
FINISHED_ON_SQLITE = """
INSERT INTO oban_jobs (state, queue, worker, args, meta, inserted_at, completed_at)
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count})
SELECT 'completed', 'bench', '{worker}', json_object('account', i, 'kind', 'welcome'),
  json_object('order', i), '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z'
FROM n
"""

BARE = """
INSERT INTO oban_jobs (queue, worker, args)
SELECT queue, worker, cast(args AS jsonb)
FROM unnest(%s::text[], %s::text[], %s::text[]) AS job (queue, worker, args)
RETURNING id
"""

LIFE = (
    (
        "UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1, attempted_at = now(), "
        "attempted_by = '{a,b}' WHERE id = ANY (%s)"
    ),
    "UPDATE oban_jobs SET state = 'completed', completed_at = now() WHERE id = ANY (%s)",
)


def run(report: Report) -> None:
    """Measure on durable servers of both kinds."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _opened(f"sqlite:///{Path(folder) / 'jobs.db'}") as oban,
    ):
        report.add("SQLite, bulk", max(_bulk(oban) for _ in range(ROUNDS)), "jobs/s")
        _finished(oban, FINISHED_ON_SQLITE)
        _unique(report, "SQLite", oban, ways=("args, queue, worker", "the last minute"))
    with PostgresServer(durable=True) as server, _opened(server.url()) as oban:
        _beside_bare(report, server, oban)
        _cost_of_indexes(report, server)
        _finished(oban, FINISHED_ON_POSTGRES)
        _unique(report, "PostgreSQL", oban, ways=("args, queue, worker", "the last minute"))
        _unique(report, "PostgreSQL, bare of GIN", oban, ways=BY_JSON, count=FEW)
        own = {"unique_keys": ["account"], "unique_meta_keys": ["order"]}
        with _opened(server.url(), **own) as other:
            _unique(report, "PostgreSQL, with an index for its keys", other, ways=BY_KEYS)
        with _opened(server.url(), elixir_indexes=True) as other:
            _unique(report, "PostgreSQL, with Elixir's indexes", other, ways=BY_JSON)


class _opened:  # noqa: N801 (it is used as a function)
    def __init__(self, url: str, **options: Any) -> None:
        self._oban = Oban(url, **options)

    def __enter__(self) -> Oban:
        self._oban.migrate()
        return self._oban

    def __exit__(self, *_: object) -> None:
        self._oban.stop()


def _jobs() -> list[Job]:
    return [
        Job.new({"account": n, "kind": "welcome"}, worker=WORKER, queue="bench")
        for n in range(BULK)
    ]


def _timed(work: Callable[[], object], count: int) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def _bulk(oban: Oban) -> float:
    jobs = _jobs()
    return _timed(lambda: oban.insert_all(jobs), BULK)


def _beside_bare(report: Report, server: PostgresServer, oban: Oban) -> None:
    with psycopg.connect(server.conninfo()) as connection:

        def bare(jobs: list[Job]) -> None:
            columns = [[job.queue for job in jobs], [job.worker for job in jobs]]
            args = [json.dumps(job.args) for job in jobs]
            connection.execute(BARE, [*columns, args]).fetchall()
            connection.commit()

        ours: list[float] = []
        theirs: list[float] = []
        streamed: list[float] = []
        for _ in range(ROUNDS):
            for rates, insert in (
                (theirs, bare),
                (ours, oban.insert_all),
                (streamed, lambda jobs: oban.insert_all(iter(jobs))),
            ):
                connection.execute("TRUNCATE oban_jobs")
                connection.commit()
                jobs = _jobs()
                rates.append(_timed(lambda i=insert, j=jobs: i(j), BULK))  # type: ignore[misc]  # mypy infers no such lambda
    report.add("PostgreSQL, the bare INSERT", max(theirs), "jobs/s")
    report.add("PostgreSQL, bulk", max(ours), "jobs/s")
    report.add("PostgreSQL, from an iterator", max(streamed), "jobs/s")
    report.add("PostgreSQL, bulk beside bare", max(ours) / max(theirs), "ratio", goal="> 0.8")


def _cost_of_indexes(report: Report, server: PostgresServer) -> None:
    """What jobs that are not unique pay: insert, start and end, with our indexes and without."""
    for name, kept in (("without", False), ("with", True)):
        with _opened(server.url()), psycopg.connect(server.conninfo()) as connection:
            if not kept:
                connection.execute(_dropped())
            connection.execute("TRUNCATE oban_jobs")
            connection.commit()
            before = _wal(connection)
            rates = [_timed(lambda c=connection: _life(c), BULK) for _ in range(ROUNDS)]  # type: ignore[misc]  # as above
            wal = (_wal(connection) - before) / (ROUNDS * BULK)
        report.add(f"PostgreSQL, lives {name} the indexes for unique jobs", max(rates), "jobs/s")
        report.add(f"PostgreSQL, WAL of a life {name} them", wal, "bytes")


def _dropped() -> Composed:
    names = [Identifier(f"oban_actors_{name}_index") for name in OWN_INDEXES]
    return SQL("DROP INDEX {}").format(SQL(", ").join(names))


def _wal(connection: "psycopg.Connection[Any]") -> float:
    row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    return float((row or (0,))[0])


def _life(connection: "psycopg.Connection[Any]") -> None:
    jobs = _jobs()
    args = [json.dumps(job.args) for job in jobs]
    columns = [[job.queue for job in jobs], [job.worker for job in jobs]]
    ids = [row[0] for row in connection.execute(BARE, [*columns, args])]
    for start in range(0, BULK, 1000):
        for step in LIFE:
            connection.execute(step, [ids[start : start + 1000]])
            connection.commit()


def _finished(oban: Oban, statement: str) -> None:
    text = sa.text(statement.format(worker=WORKER, count=FINISHED))
    oban.repo.transaction(lambda c: c.execute(text), statement_timeout=0)


def _unique(
    report: Report,
    kind: str,
    oban: Oban,
    ways: tuple[str, ...],
    count: int = SAMPLES,
) -> None:
    took = list(_samples(oban, None, count))
    report.add_samples(f"{kind}, not unique beside a million", took, "ms")
    for way in ways:
        took = list(_samples(oban, WAYS[way], count))
        name = f"{kind}, unique by {way} beside a million"
        report.add_samples(name, took, "ms", goal="< 10")


def _samples(oban: Oban, unique: dict[str, Any] | None, count: int) -> Iterator[float]:
    for nth in range(count):
        # Every second one is there already, the others were not inserted before in any way.
        account = FINISHED - nth if nth % 2 else next(NEW_ACCOUNTS)
        job = Job.new(
            {"account": account, "kind": "welcome"},
            worker=WORKER,
            queue="bench" if unique else "other",
            meta={"order": account} if unique else {},
            unique=unique,
        )
        began = time.perf_counter()
        oban.insert(job)
        yield (time.perf_counter() - began) * 1e3
