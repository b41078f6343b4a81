"""Every end of a job, through a whole tree, on both databases: oban.md 3.2 line by line."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from oban_actors import Beat, DatabaseUnavailable, Job, VirtualClock, telemetry
from oban_actors.claim import Claim
from oban_actors.messages import CancelClaims
from oban_actors.queues.foreman import Foreman
from oban_actors.running import EndReason
from tests.queues.work import OBEY, Work, claims, job, jobs, read, view, wait_state
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


@pytest.mark.parametrize(("kind", "what"), [("sync", "heed"), ("async", "wait")])
@pytest.mark.parametrize(("most", "state"), [(20, "retryable"), (1, "discarded")])
def test_a_run_out_of_time_fails(
    start_oban: Starter, work: Work, told: Recorder, kind: str, what: str, most: int, state: str
) -> None:
    """A worker that heeds its time-out ends in time; its job fails with a TimeoutError."""
    oban = start_oban(**ALPHA)
    one = oban.insert(OBEY[kind].new({"do": what, "timeout": 0.05}, max_attempts=most))
    event = told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == state
    (error,) = after.errors
    assert error["error"].startswith("** (TimeoutError) ")
    assert "timed out after 0.05 s" in error["error"]
    assert event.measurements["duration"] >= 0.05 * 1e9
    assert work.told == {one.id: "timeout"}


@pytest.mark.parametrize(("kind", "what"), [("sync", "wait"), ("async", "refuse")])
def test_a_run_that_ignores_its_time_is_stuck(
    start_oban: Starter,
    work: Work,
    told: Recorder,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    what: str,
) -> None:
    """Its error is recorded, its slot given again; the row stays claimed until the run ends."""
    oban = start_oban(queues={"alpha": 1})
    one = oban.insert(OBEY[kind].new({"do": what, "timeout": 0.05}))
    wait_until(lambda: view(oban).stuck == (one.id,))

    producer = next(node for node in oban.tree().walk() if node.actor == "producer alpha")
    assert producer.note == "1 running, 1 stuck"
    assert "1 running, 1 stuck" in str(oban.tree())
    name = OBEY[kind].spec.name
    said = f"job {one.id} ({name}) is out of time and goes on; its thread hangs in\n"
    (stack,) = [text.partition(said)[2] for text in caplog.messages if said in text]
    assert ("in _obey\n    work.gate.result" in stack) == (kind == "sync")
    during = read(oban, one)
    assert during.state == "executing"
    (error,) = during.errors
    assert "timed out after 0.05 s" in error["error"]
    other = oban.insert(job(kind, "return"))
    wait_state(oban, other, "completed")
    assert told.all("oban.job.exception") == []
    work.open()
    told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == "retryable"
    assert after.errors == [error]
    assert view(oban).stuck == ()


def test_the_slot_of_a_stuck_run_is_used_at_once(start_oban: Starter, work: Work) -> None:
    """A job that waits begins as soon as its place is free, and without being told of again."""
    clock = VirtualClock()
    oban = start_oban(queues={"alpha": 1}, stager=None, clock=clock)
    hung, next_one = oban.insert_all(
        [OBEY["sync"].new({"do": "wait", "timeout": 1.0}), job("sync", "return")]
    )
    work.wait_inside(1)
    clock.advance(1)
    wait_until(lambda: claims(oban)[hung.id or 0].running.reason == "timeout")
    # Far less than until the Pulse looks for jobs that wait.
    wait_until(lambda: (clock.advance(0.02), view(oban).stuck)[1])

    wait_state(oban, next_one, "completed")


def test_a_time_that_is_over_before_anybody_watches_it(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline is a moment: a Foreman that hears of the run late does not put it off."""
    clock = VirtualClock()
    watch = Foreman._watch

    def late(self: Foreman, claim: Claim) -> None:
        clock.advance(1)
        watch(self, claim)

    monkeypatch.setattr(Foreman, "_watch", late)
    oban = start_oban(queues={"alpha": 1}, stager=None, clock=clock)
    one = oban.insert(OBEY["sync"].new({"do": "heed", "timeout": 1.0}))

    wait_state(oban, one, "retryable")
    assert work.told == {one.id: "timeout"}


@pytest.mark.parametrize("reason", ["cancelled", "shutdown"])
def test_the_time_of_a_run_that_was_told_to_end_counts_too(
    start_oban: Starter, work: Work, reason: EndReason
) -> None:
    """One that does not end for that either is stuck, once its time is over."""
    clock = VirtualClock()
    oban = start_oban(queues={"alpha": 1}, stager=None, clock=clock)
    hung, next_one = oban.insert_all(
        [OBEY["sync"].new({"do": "wait", "timeout": 1.0}), job("sync", "return")]
    )
    work.wait_inside(1)
    claim = claims(oban)[hung.id or 0]
    oban.tell(("foreman", "alpha"), CancelClaims([claim], reason))
    wait_until(lambda: claim.running.cancelled)
    clock.advance(1)
    wait_until(lambda: (clock.advance(0.02), view(oban).stuck)[1])

    wait_state(oban, next_one, "completed")
    assert claim.running.reason == ("cancelled" if reason == "cancelled" else "timeout")


def test_a_foreman_that_can_not_record_is_not_kept_by_it(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away is tried once, not for each run that is stuck; all are told."""
    tried: list[int] = []

    def away(_engine: Any, _connection: Any, _claimant: Any, job_id: int, *_more: Any) -> bool:
        tried.append(job_id)
        raise DatabaseUnavailable("put in")

    oban = start_oban(queues={"alpha": 3}, stager=None)
    monkeypatch.setattr(type(oban._parts.engine), "record_error", away)
    hung = oban.insert_all([OBEY["sync"].new({"do": "wait", "timeout": 0.05}) for _ in range(3)])
    wait_until(lambda: len(view(oban).stuck) == 3)
    assert len(tried) == 1
    work.open()

    for one in hung:
        (error,) = wait_state(oban, one, "retryable").errors
        assert "timed out after 0.05 s" in error["error"]


def test_stuck_runs_are_replaced_up_to_the_limit(start_oban: Starter, work: Work) -> None:
    """With as many stuck as the limit is, as many others run; when those are stuck too, none."""
    oban = start_oban(queues={"alpha": 2})
    hung = [OBEY["sync"].new({"do": "wait", "timeout": 0.05}) for _ in range(4)]
    oban.insert_all([*hung, *jobs("sync", 2)])
    wait_until(lambda: len(view(oban).stuck) == 4)
    assert start_oban.tables.count("available") == 2
    assert work.inside == 4
    work.open()

    wait_until(lambda: start_oban.tables.count("completed") == 2)
    wait_until(lambda: start_oban.tables.count("retryable") == 4)


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
