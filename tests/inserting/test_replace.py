"""Replacing fields of the job that is there."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_actors import Job, JobState, Oban
from oban_actors.testing import DrainCounts
from tests.control.conftest import waits_for_lock
from tests.support.instances import Starter
from tests.support.waiting import wait_until

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance that is not started."""
    return start_oban.make()


def new(**options: Any) -> Job:
    """Make a job that is unique by its worker."""
    unique = {"fields": ["worker"], "period": None}
    return Job.new(**{"worker": "tests.Worker", "unique": unique, **options})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("args", {"n": 2, "deep": [{"x": None}]}),
        ("max_attempts", 7),
        ("meta", {"who": "me"}),
        ("priority", 9),
        ("queue", "other"),
        ("scheduled_at", LATER),
        ("tags", ["b", "c"]),
    ],
)
def test_each_field(oban: Oban, field: str, value: Any) -> None:
    """A field that is named is replaced, and no other; what comes back stands in the table."""
    first = oban.insert(new(args={"n": 1}, tags=["a"]))

    second = oban.insert(new(**{"args": {"n": 0}, field: value}, replace=[field]))

    assert second.conflict
    assert second.id == first.id
    setattr(first, field, value)
    if field == "scheduled_at":
        first.state = JobState.SCHEDULED
    second.conflict = False
    assert second == first
    assert oban.get_job(first.id or 0) == first


def test_put_off(start_oban: Starter) -> None:
    """What was to run now and is put off does not run now; what is due already stays available."""
    oban = start_oban.make()
    first = oban.insert(new())
    assert oban.insert(new(schedule_in=-5, replace=["scheduled_at"])).state == "available"

    later = oban.insert(new(schedule_in=600, replace=["scheduled_at"]))
    assert (later.id, later.state) == (first.id, "scheduled")
    assert oban.drain_queue("default") == DrainCounts()

    sooner = oban.insert(new(schedule_in=0, replace=["scheduled_at"]))
    assert (sooner.id, sooner.state) == (first.id, "scheduled")
    assert oban.drain_queue("default", with_scheduled=True).failure == 1


def test_of_one_that_ended(start_oban: Starter) -> None:
    """The time of a job that has ended can be replaced, and it stays ended."""
    oban = start_oban.make()
    first = oban.insert(new())
    start_oban.tables.execute("UPDATE {jobs} SET state = 'completed'")
    assert oban.insert(new(schedule_in=600, replace=["scheduled_at"])).state == "completed"
    assert start_oban.tables.states() == {first.id: "completed"}


def test_worker(oban: Oban) -> None:
    """The worker can be replaced where it is not what makes the job unique."""
    unique = {"fields": ["args"], "period": None}
    first = oban.insert(new(worker="tests.Old", unique=unique))

    second = oban.insert(new(worker="tests.New", unique=unique, replace=["worker"]))

    assert (second.id, second.worker) == (first.id, "tests.New")


def test_relative_time(oban: Oban) -> None:
    """A relative time counts from now, and none given replaces none."""
    first = oban.insert(new(schedule_in=60))

    second = oban.insert(new(schedule_in=3600, replace=["scheduled_at"]))
    third = oban.insert(new(replace=["scheduled_at"]))

    assert first.scheduled_at is not None
    assert second.scheduled_at is not None
    assert timedelta(seconds=3000) < second.scheduled_at - first.scheduled_at
    assert third.scheduled_at == second.scheduled_at
    assert third.state == "scheduled"


def test_by_state(oban: Oban) -> None:
    """What is replaced depends on the state of the one that is there."""
    replace = {"scheduled": ["priority"], "available": ["tags"]}
    oban.insert(new(schedule_in=60))
    oban.insert(new(worker="tests.Other"))

    waits = oban.insert(new(priority=3, tags=["x"], replace=replace))
    ready = oban.insert(new(worker="tests.Other", priority=3, tags=["x"], replace=replace))

    assert (waits.priority, waits.tags) == (3, [])
    assert (ready.priority, ready.tags) == (0, ["x"])


def test_the_queue_of_a_job_that_runs(oban: Oban) -> None:
    """It stays, as its producer looks there for what it has; all else that is named is replaced."""
    running = new(state="executing")
    running.attempt = 1
    first = oban.insert(running)

    second = oban.insert(new(queue="other", priority=3, replace=["queue", "priority"]))

    assert (second.id, second.state) == (first.id, "executing")
    assert (second.queue, second.priority) == ("default", 3)
    second.conflict = False
    assert oban.get_job(first.id or 0) == second


@pytest.mark.parametrize(
    ("state", "most"),
    [
        ("available", 3),
        ("scheduled", 3),
        ("retryable", 3),
        ("suspended", 3),
        ("executing", 2),
        ("completed", 2),
    ],
)
def test_fewer_attempts(oban: Oban, state: str, most: int) -> None:
    """None is taken that a job has had, and one that waits keeps one to run with."""
    tried = new(state=state, max_attempts=5)
    tried.attempt = 2
    first = oban.insert(tried)

    second = oban.insert(new(max_attempts=1, replace=["max_attempts"]))

    assert (second.id, second.state, second.attempt, second.max_attempts) == (
        first.id,
        state,
        2,
        most,
    )


def test_within_a_batch(oban: Oban) -> None:
    """The last of those that are the same has the last word, and all show it."""
    jobs = oban.insert_all([new(priority=priority, replace=["priority"]) for priority in (1, 2, 3)])

    assert [job.priority for job in jobs] == [3, 3, 3]
    assert [job.conflict for job in jobs] == [False, True, True]
    assert len({job.id for job in jobs}) == 1


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("becomes", "conflict", "priority"), [("available", True, 0), ("cancelled", False, 3)]
)
def test_one_that_goes_on_meanwhile(
    oban: Oban, start_oban: Starter, becomes: str, priority: int, *, conflict: bool
) -> None:
    """Whoever changes it is waited for, and what counts is the state that it then has."""
    tables = start_oban.tables
    first = oban.insert(new(schedule_in=60))
    second = new(priority=3, replace={"scheduled": ["priority"]})
    with ThreadPoolExecutor(1) as threads:
        with tables.engine.begin() as connection:
            tables.on(connection, f"UPDATE {{jobs}} SET state = '{becomes}'")
            inserted = threads.submit(oban.insert, second)
            waits_for_lock(tables)
        after = inserted.result(60)

    assert (after.conflict, after.id == first.id) == (conflict, conflict)
    assert (after.state, after.priority) == ("available", priority)
    assert len(tables.states()) == (1 if conflict else 2)


def test_brought_forward(start_oban: Starter) -> None:
    """Whoever stages learns of a job that is due soon by being replaced."""
    oban = start_oban()
    heard = start_oban.hear(oban, "actors")
    oban.insert(new(schedule_in=3600))

    oban.insert(new(schedule_in=0.9, replace=["scheduled_at"]))

    told = wait_until(lambda: [each for each in heard.payloads("actors") if "due" in each])
    assert told[0]["name"] == oban.config.name
