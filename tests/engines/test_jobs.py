"""Inserting and reading jobs."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import create_engine

from oban_actors.engines.inserts import MOST_AT_ONCE
from oban_actors.errors import InvalidJob
from oban_actors.job import Job, JobState
from tests.engines.conftest import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_defaults(store: Store) -> None:
    """A plain job is available at once, at the database's time, and is returned as it stands."""
    before = store.repo.transaction(lambda c: store.engine.database_now(c, None))
    (job,) = store.insert(Job.new({"week": 47}, worker="reports.Weekly"))
    after = store.repo.transaction(lambda c: store.engine.database_now(c, None))

    assert job == store.get(job)
    assert (job.state, job.queue, job.args) == ("available", "default", {"week": 47})
    assert job.inserted_at is not None
    assert before <= job.inserted_at <= after
    assert job.scheduled_at == job.inserted_at


def test_everything(store: Store) -> None:
    """Every field reaches the table and comes back the same."""
    east = timezone(timedelta(hours=5))
    given = Job(
        worker="w" * 127,
        args={"text": "ü\u2028'\"\\ %s :now {x} \U0001f600", "deep": [{"n": 10**30, "f": 1.5}]},
        queue="q" * 127,
        state=JobState.DISCARDED,
        priority=9,
        max_attempts=3,
        tags=["a", 'b,"c"', "{}", "NULL"],
        meta={"key": None},
        attempt=3,
        attempted_by=["web.1", "uuid"],
        errors=[{"at": "2026-11-24T12:00:00.000000Z", "attempt": 1, "error": "boom", "more": [1]}],
        inserted_at=NOON,
        scheduled_at=NOON.astimezone(east) + timedelta(microseconds=1),
        attempted_at=NOON + timedelta(microseconds=123),
        completed_at=NOON,
        discarded_at=NOON,
        cancelled_at=NOON,
    )

    (job,) = store.insert(given)

    given.id = job.id
    assert job == given
    assert store.get(job) == given


def test_each_state(store: Store) -> None:
    """A job may be put in with any state."""
    jobs = store.insert(*(Job.new(worker="w", state=state) for state in JobState))

    assert [store.get(job).state for job in jobs] == list(JobState)


def test_schedule_in(store: Store) -> None:
    """A relative wish counts from the database's time, to the microsecond and also backwards."""
    later, earlier = store.insert(
        Job.new(worker="w", schedule_in=90.000001), Job.new(worker="w", schedule_in=-5)
    )

    assert later.state == "scheduled"
    assert later.inserted_at is not None
    assert later.inserted_at == earlier.inserted_at
    assert store.get(later).scheduled_at == later.inserted_at + timedelta(seconds=90.000001)
    assert store.get(earlier).scheduled_at == later.inserted_at - timedelta(seconds=5)
    assert later.schedule_in is None


def test_virtual_time(store: Store) -> None:
    """A given time stands in for the database's."""
    (job,) = store.insert(Job.new(worker="w", schedule_in=1), now=NOON)

    assert store.get(job).inserted_at == NOON
    assert store.get(job).scheduled_at == NOON + timedelta(seconds=1)
    assert store.repo.transaction(lambda c: store.engine.database_now(c, NOON)) == NOON


def test_thousands(store: Store) -> None:
    """However many there are, they come back in the order given, with ascending ids."""
    count = MOST_AT_ONCE + 3
    jobs = store.insert(*(Job.new({"n": n}, worker="w", queue=f"q{n % 7}") for n in range(count)))

    assert [job.args["n"] for job in jobs] == list(range(count))
    ids = [job.id for job in jobs if job.id]
    assert ids == sorted(set(ids))
    assert len(ids) == count
    for job in (jobs[0], jobs[4711], jobs[-1]):
        assert store.get(job) == job
    assert store.insert() == []


def test_database_refuses(pg_store: Store) -> None:
    """Of jobs inserted together, all or none get in."""
    good, bad = Job.new(worker="w"), Job(worker="")

    with pytest.raises(Exception, match="worker_length"):
        pg_store.insert(good, bad)

    assert pg_store.run("SELECT count(*) FROM {jobs}") == [(0,)]


def test_host_connection(store: Store) -> None:
    """On a host's own connection and engine, jobs live and die with the host's transaction."""
    host = create_engine(store.repo.engine.url)
    with host.connect() as connection:
        store.engine.insert_jobs(connection, [Job.new(worker="lost")], None)
        connection.rollback()
        (kept,) = store.engine.insert_jobs(connection, [Job.new(worker="w", tags=["x"])], None)
        assert store.engine.get_job(connection, kept.id or 0) == kept
        connection.commit()
    host.dispose()

    assert store.run("SELECT worker FROM {jobs}") == [("w",)]
    assert store.get(kept) == kept


def test_zone_of_the_session_is_irrelevant(pg_store: Store) -> None:
    """Whatever zone a host's session is set to, times are UTC."""
    host = create_engine(pg_store.repo.engine.url)
    at = NOON + timedelta(hours=1)
    with host.connect() as connection:
        connection.exec_driver_sql("SET timezone = 'Asia/Tokyo'")
        first, second = pg_store.engine.insert_jobs(
            connection, [Job.new(worker="w", scheduled_at=at), Job.new(worker="w")], NOON
        )
        now = pg_store.engine.database_now(connection, None)
        connection.commit()
    host.dispose()

    assert pg_store.get(first).scheduled_at == at
    assert pg_store.get(second).inserted_at == NOON
    assert abs(now - pg_store.repo.transaction(lambda c: pg_store.engine.database_now(c, None))) < (
        timedelta(minutes=1)
    )


def test_rows_of_others(pg_store: Store) -> None:
    """What else Elixir may have left in a row can be read."""
    ((job_id,),) = pg_store.run(
        "INSERT INTO {jobs} (worker, tags, meta, errors, attempted_by, priority, args) VALUES "
        "('Elixir.MyApp.Worker', NULL, NULL, ARRAY[cast(:error AS jsonb)], ARRAY['web.1'], 12, "
        "cast(:args AS jsonb)) RETURNING id",
        error='{"at": "2026-11-23T20:12:08+00:00", "attempt": 1, "error": "x", "kind": ["y"]}',
        args='{"n": 1e2, "big": 123456789012345678901234567890}',
    )

    job = pg_store.get(job_id)

    assert (job.tags, job.meta, job.priority) == ([], {}, 12)
    assert job.errors[0]["kind"] == ["y"]
    assert job.args == {"n": 100, "big": 123456789012345678901234567890}


def test_unreadable_row(store: Store) -> None:
    """A row that no job can be says so when it is read."""
    ((job_id,),) = store.run("INSERT INTO {jobs} (worker, args) VALUES ('w', '[1]') RETURNING id")

    with pytest.raises(InvalidJob, match=str(job_id)):
        store.get(job_id)


def test_no_such_job(store: Store) -> None:
    """A job that is not there is None."""
    assert store.repo.transaction(lambda c: store.engine.get_job(c, 4711)) is None
