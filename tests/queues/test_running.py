"""Every end of a job, through a whole tree, on both databases: oban.md 3.2 line by line."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from oban_actors import Beat, Job, telemetry
from tests.queues.work import Work, job, jobs, read, view, wait_state, without_beats
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ALPHA: dict[str, Any] = {"queues": {"alpha": 10}}


@KINDS
@pytest.mark.parametrize("what", ["return", "nothing"])
def test_any_value_completes(
    start_oban: Starter, work: Work, told: Recorder, kind: str, what: str
) -> None:
    """What a worker returns, None too, is success: completed, dated, no error, one attempt."""
    oban = start_oban(**ALPHA)
    one = oban.insert(job(kind, what))
    event = told.wait_for("oban.job.stop")

    after = read(oban, one)
    assert after.state == "completed"
    assert after.completed_at is not None
    assert after.attempted_at is not None
    assert after.completed_at >= after.attempted_at
    assert after.attempt == 1
    assert after.errors == []
    assert after.attempted_by == [oban.config.node, view(oban).uuid]
    assert event.metadata["state"] == "success"
    assert event.metadata["result"] == (7 if what == "return" else None)
    assert work.ran == [one.id]


@KINDS
@pytest.mark.parametrize(
    ("what", "said"), [("raise-frozen", "Frozen)"), ("hostile", "can't be told")]
)
def test_whatever_comes_of_it_is_an_end(
    start_oban: Starter, work: Work, kind: str, what: str, said: str
) -> None:
    """An error that can't be changed, a value that can't be looked at: each fails, and once."""
    oban = start_oban(**ALPHA)
    one = oban.insert(job(kind, what, max_attempts=2))
    last = oban.insert(job(kind, what, max_attempts=1))

    (error,) = wait_state(oban, one, "retryable").errors
    assert said in error["error"]
    assert len(wait_state(oban, last, "discarded").errors) == 1
    oban.ask("pulse", Beat(), timeout=30)
    view(oban)
    assert sorted(work.ran) == [one.id, last.id]


def test_a_plain_worker_may_have_a_loop_of_its_own(start_oban: Starter, told: Recorder) -> None:
    """A worker in a thread that uses asyncio is in nobody's way, async ones beside it included."""
    oban = start_oban(**ALPHA)
    oban.insert_all([*jobs("sync", 8, "loop"), *jobs("async", 8)])
    told.wait_for_count(16, "oban.job.stop")

    assert {job.state for job in oban.all_jobs()} == {"completed"}


@KINDS
@pytest.mark.parametrize(
    ("what", "text"), [("raise", "** (ValueError) kaboom\n"), ("exit", "** (SystemExit) 3\n")]
)
def test_what_is_raised_is_tried_again(
    start_oban: Starter, told: Recorder, kind: str, what: str, text: str
) -> None:
    """An error makes it retryable, due after Oban's back-off, with the error in Oban's form."""
    oban = start_oban(**ALPHA)
    one = oban.insert(job(kind, what))
    event = told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == "retryable"
    assert after.attempt == 1
    (error,) = after.errors
    assert error["attempt"] == 1
    assert error["at"].endswith("Z")
    assert error["error"].startswith(text)
    assert "work.py" in error["error"]
    assert after.scheduled_at is not None
    assert after.attempted_at is not None
    waits = after.scheduled_at - after.attempted_at
    assert timedelta(seconds=17) <= waits <= timedelta(seconds=17 * 1.1 + 20)
    assert event.metadata["state"] == "failure"
    assert event.metadata["kind"] == ("error" if what == "raise" else "exit")


def test_the_same_unique_job_keeps_none_from_failing(start_oban: Starter, work: Work) -> None:
    """One that was inserted while its like ran does not stop that from being tried again."""
    oban = start_oban(queues={"alpha": 1}, stager=None)
    unique = {"states": ["available", "scheduled", "retryable"], "period": None}
    first = oban.insert(job("sync", "meet", unique=unique))
    work.wait_inside(1)
    second = oban.insert(job("sync", "meet", unique=unique))
    assert not second.conflict
    work.full.abort()

    for one in (first, second):
        after = wait_state(oban, one, "retryable")
        assert (after.attempt, len(after.errors)) == (1, 1)
    assert oban.insert(job("sync", "meet", unique=unique)).conflict


@KINDS
def test_the_last_attempt_discards(start_oban: Starter, told: Recorder, kind: str) -> None:
    """An error with no attempt left makes it discarded, for good."""
    oban = start_oban(**ALPHA)
    one = oban.insert(job(kind, "raise", max_attempts=1))
    event = told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == "discarded"
    assert after.discarded_at is not None
    assert len(after.errors) == 1
    assert event.metadata["state"] == "discard"


@KINDS
def test_each_failure_adds_its_error(
    start_oban: Starter, work: Work, told: Recorder, kind: str
) -> None:
    """Tried again when it is due, a job that fails twice shows both errors and is discarded."""
    oban = start_oban.leading(**ALPHA)
    one = oban.insert(job(kind, "raise", max_attempts=2))
    told.wait_for("oban.job.exception")
    start_oban.tables.execute("UPDATE {jobs} SET scheduled_at = inserted_at")
    told.wait_for_count(2, "oban.job.exception")

    after = read(oban, one)
    assert after.state == "discarded"
    assert [error["attempt"] for error in after.errors] == [1, 2]
    assert work.ran == [one.id, one.id]


@KINDS
@pytest.mark.parametrize("what", ["cancel", "raise-cancel"])
def test_a_worker_cancels_its_job(
    start_oban: Starter, told: Recorder, kind: str, what: str
) -> None:
    """Cancel, returned or raised, makes it cancelled, with its reason among the errors."""
    oban = start_oban(**ALPHA)
    one = oban.insert(job(kind, what))
    event = told.wait_for("oban.job.stop")

    after = read(oban, one)
    assert after.state == "cancelled"
    assert after.cancelled_at is not None
    (error,) = after.errors
    assert "no more" in error["error"]
    assert event.metadata["state"] == "cancelled"
    assert event.metadata["result"] == "no more"


def test_a_worker_cancels_what_somebody_has_cancelled(
    start_oban: Starter, work: Work, told: Recorder
) -> None:
    """A cancel whose word has not come yet keeps no worker's own reason from its errors."""
    oban = without_beats(start_oban(**ALPHA, stager=None))
    one = oban.insert(job("sync", "wait-cancel"))
    work.wait_inside(1)
    cancel = "UPDATE {jobs} SET state = 'cancelled', cancelled_at = inserted_at WHERE id = :id"
    start_oban.tables.execute(cancel, id=one.id)
    work.open()
    event = told.wait_for("oban.job.stop")

    after = read(oban, one)
    assert (after.state, after.cancelled_at) == ("cancelled", after.inserted_at)
    assert [error["error"] for error in after.errors] == [
        "** (PerformError) tests.obey failed with Cancel('no more')"
    ]
    assert (event.metadata["state"], event.metadata["result"]) == ("cancelled", "no more")


@KINDS
@pytest.mark.parametrize("what", ["snooze", "raise-snooze"])
def test_a_worker_snoozes_its_job(
    start_oban: Starter, told: Recorder, kind: str, what: str
) -> None:
    """Snooze makes it scheduled; the attempt is given back and counted in its meta instead."""
    oban = start_oban(**ALPHA)
    one = oban.insert(job(kind, what, meta={"kept": True}))
    event = told.wait_for("oban.job.stop")

    after = read(oban, one)
    assert after.state == "scheduled"
    assert after.attempt == 0
    assert after.max_attempts == one.max_attempts
    assert after.meta == {"kept": True, "snoozed": 1}
    assert after.errors == []
    assert after.scheduled_at is not None
    assert after.attempted_at is not None
    waits = after.scheduled_at - after.attempted_at
    assert timedelta(seconds=60) <= waits < timedelta(seconds=80)
    assert event.metadata["state"] == "snoozed"


def test_snoozing_for_no_time_comes_back(start_oban: Starter, work: Work) -> None:
    """Snooze of zero seconds is allowed: staged at once, it runs again, and each one is counted."""
    oban = start_oban.leading(stager={"interval": 0.05}, **ALPHA)
    one = oban.insert(job("sync", "snooze-none"))
    wait_until(lambda: len(work.ran) >= 3)
    oban.pause_queue("alpha")
    wait_until(lambda: view(oban).paused and not view(oban).running)

    wait_until(lambda: read(oban, one).meta == {"snoozed": len(work.ran)})
    assert read(oban, one).attempt == 0


def test_an_unknown_worker_fails(start_oban: Starter, told: Recorder) -> None:
    """A name in a row imports nothing: the job fails, to be tried again by who knows it."""
    oban = start_oban(**ALPHA)
    one = oban.insert(Job.new(worker="os.system", queue="alpha"))
    told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == "retryable"
    assert after.errors[0]["error"].startswith("** (RuntimeError) unknown worker: os.system")


@pytest.mark.parametrize(("most", "state"), [(20, "retryable"), (1, "discarded")])
def test_a_row_that_is_no_job_fails(
    start_oban: Starter, work: Work, told: Recorder, most: int, state: str
) -> None:
    """Args that are no object fail their job, and leave the others of its fetch alone."""
    oban = start_oban(queues={"alpha": {"limit": 10, "paused": True}})
    bad, good = oban.insert_all([job("sync", "return", max_attempts=most), job("sync", "return")])
    start_oban.tables.execute("UPDATE {jobs} SET args = '[1]' WHERE id = :id", id=bad.id)
    oban.resume_queue("alpha")
    wait_state(oban, good, "completed")
    wait_until(lambda: start_oban.tables.states()[bad.id or 0] == state)

    ((errors,),) = start_oban.tables.execute(
        "SELECT cast(errors AS text) FROM {jobs} WHERE id = :id", id=bad.id
    )
    assert "InvalidJob" in errors
    assert work.ran == [good.id]
    assert told.wait_for("oban.job.exception").metadata["id"] == bad.id


def test_the_events_of_a_run(start_oban: Starter, told: Recorder) -> None:
    """Start and stop name the job; stop says how long it took, and how long it had waited."""
    oban = start_oban(queues={"alpha": {"limit": 10, "paused": True}})
    due = oban.config.clock.now() - timedelta(hours=1)
    told_of: dict[str, Any] = {"tags": ["a"], "meta": {"b": 1}}
    one = oban.insert(job("sync", "return", scheduled_at=due, state="available", **told_of))
    oban.resume_queue("alpha")
    stop = told.wait_for("oban.job.stop")
    start = told.wait_for("oban.job.start")

    for event in (start, stop):
        about = dict(event.metadata)
        assert about["conf"] is oban.config
        assert about["job"].id == about["id"] == one.id
        assert (about["queue"], about["worker"]) == ("alpha", "tests.obey")
        assert (about["attempt"], about["max_attempts"]) == (1, 20)
        assert (about["args"], about["tags"], about["meta"]) == ({"do": "return"}, ["a"], {"b": 1})
        assert about["prefix"] == oban.config.prefix
    assert {"system_time", "monotonic_time"} <= set(start.measurements)
    assert isinstance(stop.measurements["duration"], int)
    assert 0 < stop.measurements["duration"] < 60e9
    assert isinstance(stop.measurements["queue_time"], int)
    assert 3600e9 <= stop.measurements["queue_time"] < 3660e9


@pytest.fixture
def shown(start_oban: Starter) -> Iterator[list[tuple[str, str]]]:
    """How a job ended by its event, and the state that its row showed just then."""
    seen: list[tuple[str, str]] = []

    def look(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        seen.append((metadata["state"], start_oban.tables.states()[metadata["id"]]))

    handler = f"look-{uuid4()}"
    telemetry.attach_many(handler, ["oban.job.stop", "oban.job.exception"], look)
    yield seen
    telemetry.detach(handler)


@KINDS
def test_an_end_is_told_once_its_row_shows_it(
    start_oban: Starter, shown: list[tuple[str, str]], kind: str
) -> None:
    """Whoever hears that a job ended finds it so in the table."""
    oban = start_oban(**ALPHA)
    whats = ["return", "raise", "cancel", "snooze"]
    oban.insert_all([job(kind, what) for what in whats])
    oban.insert(job(kind, "raise", max_attempts=1))
    wait_until(lambda: len(shown) == 5)

    assert sorted(shown) == [
        ("cancelled", "cancelled"),
        ("discard", "discarded"),
        ("failure", "retryable"),
        ("snoozed", "scheduled"),
        ("success", "completed"),
    ]
