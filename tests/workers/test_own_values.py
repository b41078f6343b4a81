"""What a worker gives or changes as it likes: values of its own, and its job."""

from datetime import timedelta
from typing import Any

import pytest

from oban_actors import Cancel, Job, JobState, Snooze, tracing, worker
from oban_actors.queues.remote import payload, perform_here
from oban_actors.running import Running
from tests.support.events import recording
from tests.workers.jobs import Secretive
from tests.workers.running import EVENTS, calling, claimed, performer, run, text


@pytest.mark.parametrize(
    ("given", "verdict", "error"),
    [
        (Cancel, "cancelled", "failed with Cancel('cancelled')"),
        (Snooze, "failure", "** (TypeError) Snooze.__init__() missing 1 required positional"),
        (ValueError, "success", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_class_is_returned(given: type, verdict: str, error: str | None) -> None:
    """It means what it means where it is raised."""
    name = f"tests.returns_{given.__name__}"

    @worker(name=name)
    def returns(_job: Job) -> type:
        return given

    claim = run(claimed(returns.new()))
    assert claim.verdict == verdict
    if error is not None:
        assert error in text(claim)

    claim = claimed(returns.new())
    sent = payload(claim, tracing.performing(claim.job), performer())
    told = perform_here(__name__, name, sent, Running())
    assert told["kind"] == {"cancelled": "cancel", "success": "returned"}.get(verdict, verdict)


class _Later(Snooze):
    """A Snooze that checks nothing."""

    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds


@pytest.mark.parametrize(("given", "seconds"), [(timedelta(minutes=5), 300.0), (7, 7.0)])
def test_a_snooze_of_the_hosts(given: Any, seconds: float) -> None:
    """One that derives from ours is put off by what a Snooze of its seconds would be."""
    claim = run(calling(lambda _job: _Later(given)))

    assert (claim.verdict, claim.result, claim.ack.delay) == ("snoozed", seconds, seconds)
    assert type(claim.ack.delay) is float


@pytest.mark.parametrize("given", ["soon", None, float("nan"), -1, 1e300])
def test_a_snooze_for_no_time_fails(given: Any) -> None:
    """Whoever made it so: it is a failure of its job, and nobody else has to deal with it."""
    claim = run(calling(lambda _job: _Later(given)))

    assert (claim.verdict, claim.ack.state) == ("failure", JobState.RETRYABLE)
    assert text(claim).startswith("** (ValueError) invalid value for 'seconds': expected a")


@pytest.mark.parametrize(("attempt", "verdict"), [(1, "failure"), (20, "discard")])
@pytest.mark.parametrize("junk", [None, "x", 10**30, Secretive()], ids=type)
def test_what_a_worker_makes_of_its_job_is_its_own(junk: Any, attempt: int, verdict: str) -> None:
    """The row's attempts count, and what is written and told of the run is of the row."""

    def spoil(job: Job) -> None:
        for name in ("attempt", "max_attempts", "scheduled_at", "attempted_at", "id", "errors"):
            setattr(job, name, junk)
        raise ValueError("kaboom")

    claim, by = calling(spoil), performer()
    claim.attempt, at = attempt, claim.attempted_at
    run(claim, by)

    assert claim.verdict == verdict
    assert claim.ack.error is not None
    assert claim.ack.error["attempt"] == attempt
    assert claim.ack.error["error"].startswith("** (ValueError) kaboom")
    assert (claim.ack.job_id, claim.ack.attempted_at) == (7, at)
    with recording(*EVENTS) as events:
        by.tell_end(claim)
    (event,) = events.all()
    assert event.measurements["queue_time"] == 2_000_000_000
    assert (event.metadata["attempt"], event.metadata["max_attempts"]) == (attempt, 20)


def test_an_end_that_can_not_be_told_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Who tells of many goes on with the next one; the log has it."""

    def spoil(job: Job) -> None:
        job.meta = job.args = None  # type: ignore[assignment]  # as a worker may

    claim, by = calling(spoil), performer()
    with recording(*EVENTS) as events:
        by.tell_end(run(claim, by))

    assert claim.verdict == "success"
    assert [event.name for event in events.all()] == ["oban.job.start"]
    assert "nobody can be told how job 7 ended" in caplog.messages
