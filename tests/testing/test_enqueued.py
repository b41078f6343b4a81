"""assert_enqueued, refute_enqueued and all_enqueued: what waits, and messages that show it."""

import threading
from datetime import timedelta
from typing import Any
from unittest.mock import ANY

import pytest

from oban_actors import ConfigError, Job, JobState, Oban, VirtualClock
from oban_actors.testing import all_enqueued, assert_enqueued, refute_enqueued
from oban_actors.testing.matching import contains
from tests.support.instances import Starter
from tests.testing import work


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance whose tree does not run."""
    return start_oban.make(testing="manual")


def ids(jobs: list[Job]) -> list[int | None]:
    """Give the jobs' ids."""
    return [job.id for job in jobs]


def test_what_waits_is_listed_newest_first(oban: Oban, start_oban: Starter) -> None:
    """Available, scheduled and suspended jobs count as enqueued, others don't."""
    jobs = oban.insert_all(
        [
            work.note.new(),
            work.note.new(schedule_in=60),
            work.note.new(state="suspended"),
            work.note.new(state="completed"),
            work.note.new(state="retryable"),
            work.note.new(),
        ]
    )
    start_oban.tables.execute("UPDATE {jobs} SET state = 'executing' WHERE id = :id", id=jobs[5].id)

    assert ids(all_enqueued(oban)) == [jobs[2].id, jobs[1].id, jobs[0].id]
    assert all_enqueued(oban)[1].state == "scheduled"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"worker": work.note},
        {"worker": "tests.testing.work.note"},
        {"worker": "Elixir.tests.testing.work.note"},
        {"queue": "alpha"},
        {"args": {"id": 1}},
        {"args": {"user": {"name": "ann"}}},
        {"args": {"user": {"name": ANY}, "tags": ["a", ANY]}},
        {"args": {"tags": ("a", "b")}},
        {"args": {"ratio": 2}},
        {"args": {"none": None}},
        {"meta": {"by": "test"}},
        {"tags": ["red"]},
        {"tags": {"red", "small"}},
        {"state": "available"},
        {"priority": 3, "max_attempts": 2},
        {"scheduled_in": 0, "delta": 60},
        {"scheduled_in": timedelta(0), "delta": timedelta(minutes=1)},
    ],
)
def test_a_job_is_found_by_part_of_it(oban: Oban, fields: dict[str, Any]) -> None:
    """Each field finds it, args and meta by a part of theirs, and the job found is returned."""
    args = {
        "id": 1,
        "user": {"name": "ann", "age": 7},
        "tags": ["a", "b"],
        "ratio": 2.0,
        "none": None,
    }
    job = oban.insert(
        work.note.new(args, meta={"by": "test", "n": 1}, tags=["red", "small"], priority=3)
    )

    assert assert_enqueued(oban, **fields).id == job.id
    with pytest.raises(AssertionError, match="expected no job to be enqueued"):
        refute_enqueued(oban, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"worker": work.ANote},
        {"worker": "tests.nobody"},
        {"queue": "beta"},
        {"args": {"id": 2}},
        {"args": {"id": True}},
        {"args": {"id": "1"}},
        {"args": {"other": ANY}},
        {"args": {"other": None}},
        {"args": {"tags": ["a"]}},
        {"args": {"tags": ["b", "a"]}},
        {"args": {"id": {"a": 1}}},
        {"meta": {"by": "other"}},
        {"tags": ["red", "blue"]},
        {"state": "scheduled"},
        {"priority": 1},
        {"id": -1},
        {"scheduled_in": 600},
    ],
)
def test_a_job_that_differs_is_not_found(oban: Oban, fields: dict[str, Any]) -> None:
    """One field that does not hold is enough, whatever else does."""
    oban.insert(work.note.new({"id": 1, "tags": ["a", "b"]}, meta={"by": "test"}, tags=["red"]))

    refute_enqueued(oban, **fields)
    with pytest.raises(AssertionError, match="expected a job to be enqueued with "):
        assert_enqueued(oban, **fields)


def test_a_renamed_worker_is_found_by_both_names(oban: Oban) -> None:
    """Jobs that carry a worker's alias are its jobs."""
    job = oban.insert(Job.new(worker="tests.old_note", queue="alpha"))

    assert assert_enqueued(oban, worker=work.ANote).id == job.id
    assert assert_enqueued(oban, worker="tests.anote").id == job.id


def test_times_may_be_off_by_delta(start_oban: Starter) -> None:
    """A job's time is met within a second, or within what is given, on either side."""
    clock = VirtualClock()
    oban = start_oban.make(testing="manual", clock=clock)
    oban.insert(work.note.new(schedule_in=60))
    due = clock.now() + timedelta(seconds=60)

    assert_enqueued(oban, scheduled_at=due - timedelta(seconds=1))
    assert_enqueued(oban, scheduled_at=due + timedelta(seconds=1))
    assert_enqueued(oban, scheduled_in=61)
    refute_enqueued(oban, scheduled_in=61.001)
    refute_enqueued(oban, scheduled_at=due - timedelta(seconds=1.001))
    assert_enqueued(oban, scheduled_in=58, delta=2)
    refute_enqueued(oban, scheduled_in=59, delta=0)
    clock.advance(30)
    assert_enqueued(oban, scheduled_in=30, delta=0)


def test_a_message_shows_what_waits_instead(oban: Oban) -> None:
    """Whoever reads a failure sees what was asked for and what there is."""
    with pytest.raises(AssertionError) as empty:
        assert_enqueued(oban, worker=work.note, args={"id": 1})
    job = oban.insert(work.note.new({"id": 2}, meta={"by": "me"}, priority=4))
    with pytest.raises(AssertionError) as other:
        assert_enqueued(oban, args={"id": 1}, timeout=0)

    assert str(empty.value) == (
        "expected a job to be enqueued with worker=tests.testing.work.note, args={'id': 1}\n"
        "there was none at all"
    )
    assert job.scheduled_at is not None
    assert str(other.value) == (
        "expected a job to be enqueued with args={'id': 1}, within 0 s\n"
        "there were:\n"
        f"    job {job.id}, available: worker='tests.testing.work.note', queue='alpha', "
        "args={'id': 2}, meta={'by': 'me'}, tags=['small'], priority=4, "
        f"scheduled_at={job.scheduled_at.isoformat()}"
    )


def test_a_message_shows_only_the_newest_of_many(oban: Oban) -> None:
    """A table full of jobs does not fill the screen."""
    oban.insert_all(work.note.new({"n": n}) for n in range(25))

    with pytest.raises(AssertionError, match=r"and 5 more$") as failure:
        refute_enqueued(oban)

    assert "args={'n': 24}" in str(failure.value)
    assert "args={'n': 4}" not in str(failure.value)


def test_a_job_may_come_within_the_time_out(oban: Oban) -> None:
    """A job that another thread inserts meanwhile is found, or refuted."""
    asking = threading.Event()

    def insert_later() -> None:
        asking.wait(30)
        oban.insert(work.note.new({"n": 1}))

    thread = threading.Thread(target=insert_later)
    thread.start()
    look, looks = oban.repo.transaction, []

    def looking(*args: Any, **kwargs: Any) -> Any:
        found = look(*args, **kwargs)
        if kwargs.get("read_only"):
            looks.append(1)
            asking.set()
        return found

    oban.repo.transaction = looking  # type: ignore[method-assign]  # to see it look
    assert assert_enqueued(oban, args={"n": 1}, timeout=30).queue == "alpha"
    thread.join()

    assert len(looks) > 1
    with pytest.raises(AssertionError):
        refute_enqueued(oban, args={"n": 1}, timeout=30)


def test_what_compares_as_it_likes(oban: Oban) -> None:
    """An object of the test's own may stand for a column's value."""
    oban.insert(work.note.new(priority=3, state="suspended"))
    assert_enqueued(oban, priority=ANY, queue=ANY, id=ANY, state=ANY)
    assert_enqueued(oban, state=JobState.SUSPENDED, priority=3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wroker": work.note}, "unknown option 'wroker' for jobs, did you mean 'worker'\\?"),
        ({"worker": print}, "'worker': expected a function or class with @worker"),
        ({"worker": Oban}, "'worker': expected a function or class with @worker"),
        ({"args": [1]}, "'args': expected a mapping"),
        ({"meta": None}, "'meta': expected a mapping, got: None"),
        ({"tags": "red"}, "'tags': expected a list of strings, got: 'red'"),
        ({"scheduled_at": "now"}, "'scheduled_at': expected an aware datetime, got: 'now'"),
        ({"scheduled_in": "1"}, "'scheduled_in': expected a number of seconds or a timedelta"),
        ({"delta": -1}, "'delta': expected a non-negative number of seconds, got: -1"),
        ({"timeout": -1}, "'timeout': expected a non-negative number of seconds, got: -1"),
        ({"id": "1"}, "'id': expected an integer, got: '1'"),
        ({"priority": "1"}, "'priority': expected an integer, got: '1'"),
        ({"priority": True}, "'priority': expected an integer, got: True"),
        ({"max_attempts": 3.0}, "'max_attempts': expected an integer, got: 3.0"),
        ({"queue": work.note}, "'queue': expected a string"),
        ({"queue": None}, "'queue': expected a string, got: None"),
        ({"state": "availble"}, "'state': expected a state in which a job waits: available"),
        ({"state": JobState.COMPLETED}, "scheduled, suspended, got: 'completed'"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(
    oban: Oban, fields: dict[str, Any], message: str
) -> None:
    """A misspelt field fails, where it would otherwise match nothing, and refute pass for ever."""
    with pytest.raises(ConfigError, match=message):
        refute_enqueued(oban, **fields)


def test_an_object_that_is_asked_for_must_be_one() -> None:
    """What is nested is compared as JSON: objects by part, arrays whole, true is not 1."""
    assert contains({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]})
    assert contains({"a": True}, {"a": True})
    assert not contains({"a": True}, {"a": 1})
    assert not contains({"a": 1}, {"a": True})
    assert not contains({"a": [1, 2]}, {"a": [1]})
    assert not contains({"a": None}, {"a": {}})
    assert not contains({"a": {}}, {"a": []})
