"""Staging in tables that other programs write to, or have made: odd rows, and partitions."""

import sqlite3
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from oban_actors.engines.sqlite import _read
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.test_plans import SHOWN, explained, fill

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

LONG = "q" * 8000

PARTITIONED = """
ALTER TABLE {jobs} RENAME TO old_jobs
ALTER SEQUENCE {schema}.oban_jobs_id_seq OWNED BY NONE
CREATE TABLE {jobs} (LIKE {schema}.old_jobs INCLUDING DEFAULTS) PARTITION BY HASH (id)
ALTER TABLE {jobs} ADD PRIMARY KEY (id)
CREATE INDEX ON {jobs} (state, queue, priority, scheduled_at, id)
CREATE INDEX ON {jobs} (scheduled_at, id) WHERE state IN ('scheduled', 'retryable')
"""


def due(seconds: float, queue: str = "default") -> Job:
    """Make a job that is due so many seconds after noon."""
    return Job.new(worker="w", queue=queue, scheduled_at=NOON + timedelta(seconds=seconds))


def queues(store: Store) -> list[str]:
    """Look which queues have available jobs."""
    return store.repo.transaction(store.engine.check_available)


def test_a_name_that_no_queue_has(store: Store) -> None:
    """It goes into no notification, so that it is not named; its rows are staged like others."""
    if store.repo.dialect == "postgresql":
        store.run("ALTER TABLE {jobs} DROP CONSTRAINT queue_length")
    store.run("INSERT INTO {jobs} (worker, queue) VALUES ('w', :queue)", queue=LONG)
    store.insert(due(-1, "ü" * 127), due(-1, "z"))
    store.run("UPDATE {jobs} SET queue = :queue WHERE queue = 'z'", queue=LONG)

    assert {job.queue for job in store.stage(now=NOON).jobs} == {"ü" * 127, LONG}
    assert queues(store) == ["ü" * 127]


def test_a_pass_in_one_message_leaves_it_out(pg_store: Store) -> None:
    """What can't be told fails no pass."""
    pg_store.run("ALTER TABLE {jobs} DROP CONSTRAINT queue_length")
    pg_store.run("INSERT INTO {jobs} (worker, queue) VALUES ('w', :queue), ('w', 'a')", queue=LONG)
    assert pg_store.engine.pass_sql is not None
    leads = "SELECT set_config('oban_actors.leads', 'yes', true)"
    values = {"now": NOON.replace(tzinfo=None), "limit": 10, "aside": [], "beat": None}
    channels = {"insert_channel": "a", "beat_channel": "b"}

    _, _, told, *_ = pg_store.repo.message([leads, *pg_store.engine.pass_sql], values | channels)

    assert [queue for queue, _ in told] == ["a"]


@pytest.mark.parametrize("value", ["x'00ff'", "cast(x'ff41' AS TEXT)"], ids=["blob", "no UTF-8"])
def test_a_queue_that_is_no_text(sqlite_store: Store, value: str) -> None:
    """It hinders no other queue, whether its rows are due, available, or first."""
    for state in ("available", "scheduled"):
        sqlite_store.run(
            "INSERT INTO {jobs} (worker, state, queue, scheduled_at) "
            f"VALUES ('w', '{state}', {value}, '2026-11-24T11:00:00Z')"
        )
    (good,) = sqlite_store.insert(due(-1, "good"))

    staged = sqlite_store.stage(now=NOON)

    assert good.id in [job.id for job in staged.jobs]
    assert all(isinstance(job.queue, str) for job in staged.jobs)
    assert sqlite_store.stage(now=NOON).jobs == []
    assert "good" in queues(sqlite_store)
    assert all(queue.isprintable() for queue in queues(sqlite_store))


@pytest.mark.parametrize(
    "value",
    ["'9999-12-31T23:59:59-05:00'", "x'32303939'", "cast(x'32303939ff' AS TEXT)", "2099.5"],
)
def test_a_time_that_is_none(sqlite_store: Store, value: str) -> None:
    """It never comes, and hinders no other."""
    sqlite_store.run(
        "INSERT INTO {jobs} (worker, state, scheduled_at) VALUES "
        f"('w', 'scheduled', {value}), ('w', 'retryable', {value})"
    )
    (good,) = sqlite_store.insert(due(-1))

    staged = sqlite_store.stage(now=NOON)

    assert [job.id for job in staged.jobs] == [good.id]
    assert staged.next_due_in is None


def test_partitions(pg_store: Store) -> None:
    """What is due is staged, and not what stands in the same place of another partition."""
    for statement in PARTITIONED.strip().splitlines():
        pg_store.run(statement.replace("{schema}", f'"{pg_store.repo.config.prefix}"'))
    for part in range(4):
        schema = pg_store.repo.config.prefix
        pg_store.run(
            f'CREATE TABLE "{schema}".jobs_{part} PARTITION OF {{jobs}} '
            f"FOR VALUES WITH (MODULUS 4, REMAINDER {part})"
        )
    jobs = pg_store.insert(*(due(86_400) for _ in range(40)))
    early = {job.id for job in jobs[::8]}
    for job in jobs:
        day = 24 if job.id in early else 25
        pg_store.run(f"UPDATE {{jobs}} SET scheduled_at = '2026-11-{day}' WHERE id = {job.id}")
    places = pg_store.run("SELECT id, cast(ctid AS text) FROM {jobs}")
    taken = {place for job_id, place in places if job_id in early}

    assert any(place in taken for job_id, place in places if job_id not in early)
    assert {job.id for job in pg_store.stage(now=NOON).jobs} == early
    available = pg_store.run("SELECT id FROM {jobs} WHERE state = 'available'")
    assert {job_id for (job_id,) in available} == early


def test_many_rows_and_little_memory(pg_store: Store) -> None:
    """Ids are looked up by their hashes, however many the planner thinks there are."""
    fill(pg_store, "scheduled", 40_000)
    pg_store.run("ANALYZE {jobs}")

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL work_mem = '64kB'")
        pg_store.engine.stage_jobs(connection, 5000, NOON, [1, 2])

    plan = explained(pg_store, work, options=SHOWN)

    assert plan.count("hashed SubPlan") == plan.count("IS TRUE") + plan.count("IS NOT TRUE") == 3


def test_what_was_interrupted_is_not_read_again() -> None:
    """Its time was over: only what is no UTF-8 is read in another way."""
    asked: list[object] = []

    def execute(statement: object, _values: object) -> object:
        asked.append(statement)
        raise OperationalError("SELECT", {}, sqlite3.OperationalError("interrupted"))

    stub = cast("Connection", SimpleNamespace(execute=execute))
    with pytest.raises(OperationalError, match="interrupted"):
        _read(stub, "SELECT {} FROM oban_jobs", "queue", {})
    assert len(asked) == 1
