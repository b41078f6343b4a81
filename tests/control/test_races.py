"""Control beside all that happens to a job meanwhile."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import JobLocked, Oban
from tests.control.conftest import job_in, waits_for_lock
from tests.support.instances import Starter, Tables

Aside = Callable[..., Future[Any]]

on_postgresql = pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.db)], indirect=True
)
"""SQLite has one writer at a time, so that none ever meets a row that another one has changed."""

ACK = """
UPDATE {jobs} SET state = 'completed', completed_at = scheduled_at
WHERE id = :id AND cast(state AS text) = 'executing' RETURNING id
"""
CLAIM = "UPDATE {jobs} SET state = 'executing', attempt = attempt + 1 WHERE id = :id"
STAGE = "UPDATE {jobs} SET state = 'available' WHERE id = :id"


def together(aside: Aside, *calls: Callable[[], Any]) -> list[Any]:
    """Make all calls at the same time, each in a thread."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(30)
        return call()

    return [future.result(60) for future in [aside(run, call) for call in calls]]


def state(oban: Oban, job_id: int) -> str:
    """Read a job's state."""
    job = oban.get_job(job_id)
    assert job is not None
    return job.state


@on_postgresql
def test_what_completes_first_stays_completed(
    start_oban: Starter, tables: Tables, aside: Aside
) -> None:
    """A cancel waits for an acknowledgement in flight, and then has nothing to cancel or tell."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "signal")
    jobs = oban.insert_all([job_in("executing"), job_in("executing")])
    with tables.engine.begin() as connection:
        assert tables.on(connection, ACK, id=jobs[0].id)
        one, many = aside(oban.cancel_job, jobs[0]), aside(oban.cancel_all_jobs, queue="default")
        waits_for_lock(tables, 2)

    assert (one.result(30), many.result(30)) == (False, 1)
    assert [job.state for job in oban.all_jobs()] == ["completed", "cancelled"]
    assert heard.wait_for("signal") == [{"action": "pkill", "job_id": jobs[1].id}]


@on_postgresql
def test_what_is_cancelled_first_stays_cancelled(oban: Oban, tables: Tables, aside: Aside) -> None:
    """An acknowledgement that comes while a cancel is in flight changes nothing."""
    job = oban.insert(job_in("executing"))
    with tables.engine.begin() as connection:
        assert oban.cancel_job(job, connection=connection)
        ack = aside(tables.execute, ACK, id=job.id)
        waits_for_lock(tables)

    assert ack.result(30) == []
    assert state(oban, 1) == "cancelled"


def test_each_job_ends_once(oban: Oban, tables: Tables, aside: Aside) -> None:
    """Of a cancel and an acknowledgement at the same time just one counts, for every job."""
    ids = [job.id or 0 for job in oban.insert_all(job_in("executing") for _ in range(30))]

    def acknowledge() -> set[int]:
        return {each for each in ids if tables.execute(ACK, id=each)}

    completed, cancelled = together(
        aside, acknowledge, lambda: {each for each in reversed(ids) if oban.cancel_job(each)}
    )

    assert completed | cancelled == set(ids)
    assert not completed & cancelled
    assert {job_id for job_id, s in tables.states().items() if s == "cancelled"} == cancelled


@on_postgresql
def test_staging_in_flight(oban: Oban, tables: Tables, aside: Aside) -> None:
    """A job that is staged meanwhile is cancelled, unless only scheduled ones were meant."""
    oban.insert_all(job_in("scheduled") for _ in range(2))
    with tables.engine.begin() as connection:
        for each in (1, 2):
            tables.on(connection, STAGE, id=each)
        scheduled = aside(oban.cancel_all_jobs, state="scheduled")
        condition = aside(oban.cancel_all_jobs, oban.jobs.c.state == "scheduled")
        waits_for_lock(tables, 2)
    assert (scheduled.result(30), condition.result(30)) == (0, 0)
    with tables.engine.begin() as connection:
        tables.on(connection, STAGE, id=1)
        either = aside(oban.cancel_all_jobs, queue="default")
        waits_for_lock(tables)
    assert either.result(30) == 2


@on_postgresql
def test_a_cancelled_job_is_not_staged(oban: Oban, tables: Tables) -> None:
    """Staging passes over a job whose cancel is in flight, and leaves it alone thereafter."""
    job = oban.insert(job_in("scheduled"))

    def stage(connection: sa.Connection) -> list[int]:
        return [each.id for each in oban._engine.stage_jobs(connection, 10, None, []).jobs]

    with tables.engine.begin() as connection:
        assert oban.cancel_job(job, connection=connection)
        assert oban.repo.transaction(stage) == []
    assert oban.repo.transaction(stage) == []
    assert state(oban, 1) == "cancelled"


def test_two_cancels(oban: Oban, aside: Aside) -> None:
    """Whoever cancels first counts it; together all are counted once, and none waits for ever."""
    oban.insert_all(job_in("available", priority=n % 10) for n in range(3_000))

    def call(order: str) -> Callable[[], int]:
        return lambda: oban.cancel_all_jobs(queue="default", order=order)

    counts = together(aside, *map(call, ("id", "-id", "priority", "-priority")))

    assert sum(counts) == 3_000


def test_retries_beside_cancels(oban: Oban, aside: Aside) -> None:
    """They take turns in some order, and each job is what the later of the two made of it."""
    oban.insert_all(job_in("available") for _ in range(1_200))

    def repeat(call: Callable[..., int]) -> Callable[[], Iterable[int]]:
        return lambda: [call(queue="default") for _ in range(4)]

    cancelled, retried = together(aside, repeat(oban.cancel_all_jobs), repeat(oban.retry_all_jobs))

    states = [job.state for job in oban.all_jobs()]
    assert sum(cancelled) - sum(retried) == states.count("cancelled")  # type: ignore[arg-type]  # each gave numbers
    assert set(states) <= {"cancelled", "available"}


@on_postgresql
def test_a_retry_after_a_cancel_in_flight(oban: Oban, tables: Tables, aside: Aside) -> None:
    """It waits for the cancel and then makes the job available again."""
    job = oban.insert(job_in("scheduled"))
    with tables.engine.begin() as connection:
        assert oban.cancel_job(job, connection=connection)
        scheduled = aside(oban.retry_all_jobs, state="scheduled")
        alone = aside(oban.retry_job, 1)
        waits_for_lock(tables, 2)
    assert (scheduled.result(30), alone.result(30)) == (0, True)
    found = oban.get_job(1)
    assert found is not None
    assert (found.state, found.cancelled_at) == ("available", None)


@on_postgresql
def test_what_begins_to_run_is_not_deleted(oban: Oban, tables: Tables, aside: Aside) -> None:
    """A job that a producer claims meanwhile stays."""
    job = oban.insert(job_in("available"))
    with tables.engine.begin() as connection:
        tables.on(connection, CLAIM, id=job.id)
        one, many = aside(oban.delete_job, job), aside(oban.delete_all_jobs, queue="default")
        waits_for_lock(tables, 2)
    assert (one.result(30), many.result(30)) == (False, 0)
    assert state(oban, 1) == "executing"


@on_postgresql
def test_an_update_waits_for_nobody(oban: Oban, tables: Tables) -> None:
    """A locked job is refused at once, and named; when it is free the update works."""
    job = oban.insert(job_in("available"))
    with tables.engine.begin() as connection:
        tables.on(connection, "SELECT id FROM {jobs} WHERE id = :id FOR UPDATE", id=job.id)
        with pytest.raises(JobLocked, match="job 1 is locked") as caught:
            oban.update_job(job, {"priority": 1})
    assert caught.value.ids == (1,)
    assert oban.update_job(job, {"priority": 1}).priority == 1


def test_updates_beside_each_other(oban: Oban, aside: Aside) -> None:
    """None of several updates by a function is lost."""
    job = oban.insert(job_in("available", meta={"count": 0}))

    def count() -> int:
        done = 0
        while done < 10:
            try:
                oban.update_job(job, lambda job: {"meta": {"count": job.meta["count"] + 1}})
            except JobLocked:
                continue
            done += 1
        return done

    assert sum(together(aside, count, count, count)) == 30
    found = oban.get_job(1)
    assert found is not None
    assert found.meta == {"count": 30}
