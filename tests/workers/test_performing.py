"""What each end of a run makes of its row: Oban's table, for all kinds of workers."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from oban_actors import Job, JobState, VirtualClock
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.backoff import retry_delay
from oban_actors.claim import Ack, Claim
from oban_actors.engines import Unreadable, UnreadableRow
from oban_actors.errors import ClaimLost, NotRunning
from oban_actors.running import Running
from tests.support.events import recording
from tests.workers import jobs
from tests.workers.running import EVENTS, ToldToEnd, calling, claimed, do, performer, run, text

every_kind = pytest.mark.parametrize("kind", jobs.KINDS, ids=lambda kind: kind.__name__)


@every_kind
@pytest.mark.parametrize(("what", "result"), [(None, None), ("value", {"answer": 42})])
def test_any_value_is_success(kind: Any, what: str | None, result: object) -> None:
    """What returns is completed, whatever it returns."""
    claim = run(do(kind, what))

    assert (claim.verdict, claim.result) == ("success", result)
    assert claim.ack.state == JobState.COMPLETED
    assert claim.ack.error is None
    assert (claim.ack.job_id, claim.ack.attempted_at) == (7, claim.attempted_at)
    assert claim.job.running is None


@every_kind
@pytest.mark.parametrize("what", ["cancel", "raise cancel"])
def test_cancel_returned_or_raised(kind: Any, what: str) -> None:
    """Cancel makes the job cancelled, its reason stands among the errors."""
    claim = run(do(kind, what))

    assert (claim.verdict, claim.result) == ("cancelled", "enough")
    assert (claim.ack.state, claim.ack.killed) == (JobState.CANCELLED, True)
    assert text(claim) == f"** (PerformError) {claim.job.worker} failed with Cancel('enough')"


@every_kind
@pytest.mark.parametrize("what", ["snooze", "raise snooze"])
def test_snooze_returned_or_raised(kind: Any, what: str) -> None:
    """Snooze makes the job scheduled after its time, without an error."""
    claim = run(do(kind, what))

    assert (claim.verdict, claim.result) == ("snoozed", 60.0)
    assert (claim.ack.state, claim.ack.delay, claim.ack.error) == (JobState.SCHEDULED, 60.0, None)


@every_kind
@pytest.mark.parametrize(
    ("what", "first"),
    [
        ("error", "** (ValueError) kaboom"),
        ("exit", "** (SystemExit) 3"),
        ("interrupt", "** (KeyboardInterrupt)"),
        ("generator exit", "** (GeneratorExit)"),
        ("rude", "** (tests.workers.jobs.RudeError) <no message: its __str__ raised ValueError>"),
        ("bad snooze", "** (ValueError) invalid value for 'seconds': expected a non-negative"),
    ],
)
def test_failures_are_retried(kind: Any, what: str, first: str) -> None:
    """Whatever is raised is a failure of this job: it is to be tried again, after Oban's delay."""
    claim = run(do(kind, what))

    assert claim.verdict == "failure"
    assert claim.ack.state == JobState.RETRYABLE
    low = retry_delay(1, claim.job.max_attempts, rand=lambda: 0.0)
    assert low <= claim.ack.delay <= low * 1.1
    lines = text(claim).splitlines()
    assert lines[0].startswith(first)
    assert re.match(r"    .*jobs\.py:\d+: in act", lines[2 if what == "bad snooze" else 1])
    assert "performing.py" not in text(claim)


@every_kind
def test_the_last_attempt_is_discarded(kind: Any) -> None:
    """A failure with all attempts used up is discarded, with its error."""
    claim = run(do(kind, "error", attempt=kind.new({}).max_attempts))

    assert (claim.verdict, claim.ack.state) == ("discard", JobState.DISCARDED)
    assert text(claim).startswith("** (ValueError) kaboom")


def test_unknown_workers_fail() -> None:
    """A row whose worker nobody registered is a failure, and imports nothing."""
    claim = run(claimed(Job.new(worker="antigravity.fly")))

    assert (claim.verdict, claim.ack.state) == ("failure", JobState.RETRYABLE)
    assert text(claim) == "** (RuntimeError) unknown worker: antigravity.fly"


def test_a_forgotten_await_is_a_failure() -> None:
    """A sync worker that returns a coroutine did not do its work, and does not count as done."""

    async def work() -> None: ...

    def forgetful(_job: Job) -> object:
        return work()

    claim = run(calling(forgetful))

    assert claim.verdict == "failure"
    assert "coroutine, which nobody awaited" in text(claim)


@every_kind
@pytest.mark.parametrize("what", [None, "error", "snooze", "raise cancel"])
def test_a_killed_job_is_cancelled(kind: Any, what: str | None) -> None:
    """After somebody cancelled the job, any end of its run is the cancelled one."""
    claim = run(do(kind, what), ToldToEnd("cancelled"))

    assert (claim.verdict, claim.ack.state) == ("cancelled", JobState.CANCELLED)
    assert claim.ack.killed
    assert "failed with Cancel('cancelled while it ran')" in text(claim)


def test_a_sync_worker_that_is_late_fails() -> None:
    """Who looks at its flag and returns after its time has failed with a TimeoutError."""
    claim = do(jobs.timed)
    claim.running.on_cancel = None
    by = performer()
    by.begin(claim)
    claim.running.cancel("timeout")

    by.returned(claim, "late")

    assert (claim.verdict, claim.ack.state) == ("failure", JobState.RETRYABLE)
    assert text(claim) == "** (TimeoutError) tests.workers.jobs.timed timed out after 30 s"
    assert isinstance(claim.error, TimeoutError)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("attempt", "state"), [(1, "retryable"), (20, "discarded")])
def test_a_recorded_time_out_is_not_recorded_again(
    attempt: int, state: str, *, known: bool
) -> None:
    """The element was given while the thread went on; its end adds none, or the very same."""
    claim, by = do(jobs.timed, attempt=attempt), performer(clock=SYSTEM_CLOCK)
    by.begin(claim)

    element = by.timed_out(claim)
    claim.recorded = known
    by.raised(claim, ValueError("late"))

    assert element["error"].startswith("** (TimeoutError) ")
    assert element["attempt"] == attempt
    assert (claim.ack.state, claim.ack.error) == (state, None if known else element)


@pytest.mark.parametrize(
    ("reason", "verdict", "head"),
    [
        ("timeout", "failure", "** (TimeoutError)"),
        ("cancelled", "cancelled", "** (PerformError)"),
        (None, "failure", "** (asyncio.exceptions.CancelledError)"),
    ],
)
def test_a_cancelled_task_ends_by_its_reason(reason: Any, verdict: str, head: str) -> None:
    """What CancelledError means for an async job depends on who wanted it to end."""
    claim = _cancelled_task(reason)

    assert claim.verdict == verdict
    assert text(claim).startswith(head)


def test_a_task_that_shutdown_cancelled_stays_executing() -> None:
    """It is neither done nor failed: nothing is acknowledged, and no event is told."""
    with recording(*EVENTS) as events:
        claim = _cancelled_task("shutdown")
        performer().tell_end(claim)

    assert (claim.ack, claim.verdict) == (None, None)
    assert [event.name for event in events.all()] == ["oban.job.start"]


@every_kind
@pytest.mark.parametrize(("what", "verdict"), [(None, "success"), ("error", "failure")])
def test_a_job_that_ends_during_shutdown_counts(kind: Any, what: str, verdict: str) -> None:
    """While the node stops, what a job returned or raised is acknowledged."""
    claim = run(do(kind, what), ToldToEnd("shutdown"))

    assert claim.verdict == verdict


@every_kind
@pytest.mark.parametrize(("reason", "verdict"), [("cancelled", "cancelled"), ("shutdown", None)])
def test_a_job_that_is_to_end_before_it_begins_does_not_run(
    kind: Any, reason: Any, verdict: str | None
) -> None:
    """Cancelled, it ends so with its reason; when the node stops there is nothing to write."""
    called: list[Job] = []
    claim = do(kind)
    claim.worker = replace(claim.worker, call=called.append)
    claim.running.cancel(reason)

    with recording(*EVENTS) as events:
        run(claim)

    assert called == []
    assert events.all() == []
    assert claim.verdict == verdict
    assert (claim.ack is None) == (verdict is None)
    assert claim.ack is None or "Cancel('cancelled while it ran')" in text(claim)
    assert claim.job.running is None


def test_reasons_rank() -> None:
    """A cancelled job is cancelled whatever else there was; shutdown is the weakest reason."""
    running = Running()
    seen: list[str] = []
    running.on_cancel = seen.append

    for reason in ("shutdown", "timeout", "shutdown", "cancelled", "timeout"):
        running.cancel(reason)

    assert seen == ["shutdown", "timeout", "timeout", "cancelled", "cancelled"]
    assert running.cancelled


def test_the_deadline_is_set_and_watched() -> None:
    """A run's time counts from its begin; the job knows it, and whoever watches is told."""
    clock = VirtualClock()
    watched: list[Claim] = []
    by = performer(clock=clock)
    by.watch = watched.append
    claim = do(jobs.timed)

    by.begin(claim)
    clock.advance(10)

    assert watched == [claim]
    assert claim.job.time_left == 20.0
    assert claim.job.deadline is not None
    assert (claim.job.deadline - clock.now()).total_seconds() == 20.0


def test_a_job_without_time_out_has_no_deadline() -> None:
    """Nothing is watched, and the job says None; nor does a job that does not run have one."""
    claim = do(jobs.plain)
    performer().begin(claim)

    assert (claim.job.time_left, claim.job.deadline, claim.job.cancelled) == (None, None, False)
    assert (Job.new(worker="x").time_left, Job.new(worker="x").cancelled) == (None, False)


class _Spoiled:
    """Rows that hold what no job can hold."""

    def read(self, row: Unreadable) -> Job:
        raise UnreadableRow(row)


def _unreadable(*, attempt: int, reason: str) -> Ack:
    row = Unreadable(7, SYSTEM_CLOCK.now(), attempt, 2, "w", "alpha", reason)
    # Its own back-off is not asked about a job that can't be read.
    spec = replace(jobs.plain.spec, backoff=3.0)
    claim = run(Claim(7, row.attempted_at, spec, Running(), _Spoiled(), row))
    assert claim.verdict == ("discard" if attempt == 2 else "failure")
    assert (claim.job.worker, claim.job.queue, claim.job.attempt) == ("w", "alpha", attempt)
    assert claim.ack is not None
    return claim.ack


def test_rows_that_cannot_be_read_fail() -> None:
    """They are failures as any other, the last attempt discarded."""
    first = _unreadable(attempt=1, reason="bad\0 args")
    last = _unreadable(attempt=2, reason="bad args")

    assert first.state == JobState.RETRYABLE
    assert first.error is not None
    assert first.error["error"] == "** (InvalidJob) bad\N{REPLACEMENT CHARACTER} args"
    assert first.delay >= 17
    assert last.state == JobState.DISCARDED


def test_complete_goes_through_the_run() -> None:
    """The run's completer gets the job and the host's session; a lost claim is told."""
    calls: list[Any] = []
    job = Job.new(worker="x")
    job.running = Running(completer=lambda *given: calls.append(given))

    job.complete(session="s")

    assert calls == [(job, "s")]
    assert job.running.completed
    job.running = Running(completer=lambda *_: False)
    with pytest.raises(ClaimLost, match="given to somebody else"):
        job.complete(connection="c")
    assert not job.running.completed
    job.running.completed = True
    with pytest.raises(ClaimLost, match="has completed itself before, or was cancelled"):
        job.complete(connection="c")


def test_complete_is_refused_elsewhere() -> None:
    """Only a running job completes itself, and with one transaction."""
    job = Job.new(worker="x")

    with pytest.raises(NotRunning, match="while it runs"):
        job.complete(session="s")
    with pytest.raises(TypeError, match="either session= or connection="):
        job.complete()
    job.running = Running()
    with pytest.raises(NotRunning, match="from where it runs"):
        job.complete(session="s")


@pytest.mark.parametrize("reason", [None, "cancelled", "timeout", "shutdown"])
def test_a_job_that_completed_itself_failed_unless_its_row_says_so(reason: Any) -> None:
    """Its own transaction decides, whatever it was told: not committed, it has done nothing."""
    claim, by = do(jobs.plain, "value"), performer()
    claim.running.completed = True
    run(claim, by if reason is None else ToldToEnd(reason))
    assert (claim.verdict, claim.ack.state, claim.ack.completed) == ("failure", "retryable", True)
    assert text(claim) == (
        "** (PerformError) tests.workers.jobs.plain completed its job in a transaction that was "
        "not committed"
    )
    by.completed(claim)

    assert (claim.verdict, claim.result, claim.error) == ("success", {"answer": 42}, None)
    assert (claim.ack.state, claim.ack.error) == ("completed", None)


# Helpers


def _cancelled_task(reason: Any) -> Claim:
    claim, by = do(jobs.plain_async, "sleep"), performer()

    async def main() -> None:
        task = asyncio.create_task(by.aperform(claim))
        await asyncio.sleep(0)
        if reason is not None:
            claim.running.cancel(reason)
        task.cancel()
        await task

    asyncio.run(main())
    return claim
