"""Events of a run: what they are named, what they measure, and what they carry."""

import pytest

from oban_actors import telemetry
from tests.support.events import recording
from tests.workers import jobs
from tests.workers.running import EVENTS, do, performer, run


@pytest.mark.parametrize(
    ("what", "event", "state"),
    [
        (None, "oban.job.stop", "success"),
        ("cancel", "oban.job.stop", "cancelled"),
        ("snooze", "oban.job.stop", "snoozed"),
        ("error", "oban.job.exception", "failure"),
    ],
)
def test_events(what: str | None, event: str, state: str) -> None:
    """Start and end are told with Oban's names, times and facts."""
    by = performer()
    with recording(*EVENTS) as events:
        claim = run(do(jobs.plain, what), by)
        by.tell_end(claim)

    start, end = events.all()
    assert (start.name, end.name) == ("oban.job.start", event)
    assert start.measurements.keys() == {"system_time", "monotonic_time"}
    assert end.measurements == {"duration": claim.duration_ns, "queue_time": 2_000_000_000}
    assert end.metadata["state"] == state
    assert end.metadata["result"] == claim.result
    for name in ("id", "args", "queue", "worker", "attempt", "max_attempts", "tags"):
        assert start.metadata[name] == end.metadata[name] == getattr(claim.job, name)
    assert end.metadata["job"] is claim.job
    assert (end.metadata["conf"], end.metadata["prefix"]) == (by.config, "public")
    if event == "oban.job.exception":
        assert end.metadata["kind"] == "error"
        assert end.metadata["reason"] is end.metadata["error"] is claim.error
        assert "in act" in end.metadata["stacktrace"]


def test_a_stale_end_is_told_as_such() -> None:
    """What was no longer this node's is neither stop nor exception."""
    by = performer()
    with recording(*EVENTS) as events:
        by.tell_end(run(do(jobs.plain, "error"), by), stale=True)

    assert [event.name for event in events.all()] == ["oban.job.start", "oban.job.stale"]


def test_a_handler_that_raises_breaks_no_job() -> None:
    """The job runs on, and the handler is detached."""

    def handler(*_: object) -> None:
        raise ValueError("handler")

    telemetry.attach("broken", "oban.job.start", handler)

    assert run(do(jobs.plain)).verdict == "success"
    assert not telemetry.attached("oban.job.start")
