"""Events of jobs and queues, name by name: measurements and metadata as Oban has them."""

from collections.abc import Iterator

import pytest

from oban_actors import Oban
from tests.queues.work import Work, job, renew, wait_state
from tests.support.events import Event, Predicate, Recorder, recording
from tests.support.instances import Starter, scheduled

CONTEXT = {"telemetry_span_context"}
STARTED = {"system_time", "monotonic_time"}
STOPPED = {"duration", "monotonic_time"}
ABOUT = {
    *("conf", "job", "id", "args", "queue", "worker", "attempt", "max_attempts", "tags", "meta"),
    "prefix",
}
ENDED = ABOUT | {"state", "result", "error"}
NAMES = [
    *(f"oban.job.{name}" for name in ("start", "stop", "exception")),
    *("oban.producer.start", "oban.producer.stop", "oban.queue.shutdown"),
]


def check(event: Event, measurements: set[str], metadata: set[str]) -> None:
    """Check that an event has just these, and whole numbers."""
    assert event.measurements.keys() == measurements, event.name
    assert event.metadata.keys() == metadata, event.name
    assert {type(value) for value in event.measurements.values()} <= {int}


@pytest.fixture
def told() -> Iterator[Recorder]:
    """What is told of jobs and queues."""
    with recording(*NAMES) as recorder:
        yield recorder


def test_of_a_job(start_oban: Starter, told: Recorder) -> None:
    """One that succeeds and one that fails."""
    renew()
    oban = start_oban(queues={"alpha": 2}, stager=None)
    good = wait_state(oban, oban.insert(job("sync", "return")), "completed")
    bad = wait_state(oban, oban.insert(job("sync", "raise")), "retryable")

    def of(id_: int | None) -> Predicate:
        return lambda event: bool(event.metadata["id"] == id_)

    start = told.wait_for("oban.job.start", of(good.id))
    check(start, STARTED, ABOUT)
    stop = told.wait_for("oban.job.stop", of(good.id))
    check(stop, {"duration", "queue_time"}, ENDED)
    assert (stop.metadata["conf"], stop.metadata["state"]) == (oban.config, "success")
    failed = told.wait_for("oban.job.exception", of(bad.id))
    check(failed, {"duration", "queue_time"}, ENDED | {"kind", "reason", "stacktrace"})
    assert failed.metadata["state"] == "failure"


def test_of_turns(start_oban: Starter, told: Recorder) -> None:
    """Each is a span that says how many jobs it gave out, and how many ends it wrote."""
    renew()
    oban = start_oban(queues={"alpha": 2}, stager=None)
    for _ in range(3):
        wait_state(oban, oban.insert(job("sync", "return")), "completed")
    oban.stop()

    for event in told.all("oban.producer.start"):
        check(event, STARTED, CONTEXT | {"conf", "queue"})
    stops = told.all("oban.producer.stop")
    for event in stops:
        check(event, STOPPED, CONTEXT | {"conf", "queue", "dispatched_count", "settled_count"})
        assert (event.metadata["conf"], event.metadata["queue"]) == (oban.config, "alpha")
    assert sum(event.metadata["dispatched_count"] for event in stops) == 3
    assert sum(event.metadata["settled_count"] for event in stops) == 3


def test_of_a_queue_that_ends(start_oban: Starter, told: Recorder) -> None:
    """How long it took, in nanoseconds, and which jobs did not end."""
    work: Work = renew()
    oban = start_oban(queues={"alpha": 1}, stager=None, shutdown_grace_period=0.2)
    left = oban.insert(job("sync", "wait"))
    work.wait_inside(1)

    oban.stop()
    work.open()

    event = told.wait_for("oban.queue.shutdown")
    check(event, {"elapsed"}, {"conf", "queue", "orphaned"})
    assert event.measurements["elapsed"] >= 200_000_000
    assert event.metadata["orphaned"] == [left.id]


@pytest.mark.parametrize("action", ["cancel", "retry", "delete"])
def test_of_changes(start_oban: Starter, action: str) -> None:
    """One job, and many."""
    oban: Oban = start_oban.make()
    made = oban.insert(scheduled(60))
    one, many = f"oban.engine.{action}_job", f"oban.engine.{action}_all_jobs"
    ends = [f"{name}.{phase}" for name in (one, many) for phase in ("start", "stop")]
    with recording(*ends) as told:
        getattr(oban, f"{action}_job")(made)
        getattr(oban, f"{action}_all_jobs")(queue="alpha")

    about = CONTEXT | {"conf", "engine"}
    check(told.wait_for(f"{one}.start"), STARTED, about | {"job"})
    check(told.wait_for(f"{one}.stop"), STOPPED, about | {"job", "changed"})
    check(told.wait_for(f"{many}.start"), STARTED, about | {"queryable"})
    check(told.wait_for(f"{many}.stop"), STOPPED, about | {"queryable", "jobs"})


def test_of_an_update(start_oban: Starter) -> None:
    """The job as it was asked for, and as it is then."""
    oban = start_oban.make()
    made = oban.insert(scheduled(60))
    with recording("oban.engine.update_job.start", "oban.engine.update_job.stop") as told:
        updated = oban.update_job(made, {"priority": 1})

    start, stop = told.all()
    check(start, STARTED, CONTEXT | {"conf", "engine", "job"})
    check(stop, STOPPED, CONTEXT | {"conf", "engine", "job"})
    assert stop.metadata["job"] == updated
