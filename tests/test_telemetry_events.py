"""The tree's own events, name by name: measurements and metadata as Oban has them."""

from collections.abc import Set as AbstractSet
from typing import Any, NoReturn

import pytest

from oban_actors import Election, ServerCrashed, Stage, WireError
from oban_actors.actors import SYSTEM_CLOCK
from oban_actors.messages import Switched
from oban_actors.passes import Passes
from oban_actors.peers.database import DatabasePeer
from oban_actors.peers.elections import Elections
from oban_actors.stager import Stager
from tests.stager.passes import SLOW, of_stager, stage
from tests.support.events import Event, Predicate, Recorder
from tests.support.instances import Starter, scheduled
from tests.support.waiting import wait_until

CONTEXT = {"telemetry_span_context"}
STARTED = {"system_time", "monotonic_time"}
STOPPED = {"duration", "monotonic_time"}
FAILURE = {"kind", "reason", "stacktrace"}


def check(event: Event, measurements: AbstractSet[str], metadata: AbstractSet[str]) -> None:
    """Check that an event has just these, and whole nanoseconds of today."""
    assert event.measurements.keys() == measurements, event.name
    assert event.metadata.keys() == metadata, event.name
    assert {type(value) for value in event.measurements.values()} <= {int}
    hour = 3600 * 10**9
    if "system_time" in measurements:
        passed = SYSTEM_CLOCK.system_time_ns() - event.measurements["system_time"]
        assert 0 <= passed < hour
    if "monotonic_time" in measurements:
        passed = SYSTEM_CLOCK.monotonic_ns() - event.measurements["monotonic_time"]
        assert 0 <= passed < hour
    if "duration" in measurements:
        assert 0 <= event.measurements["duration"] < hour


def check_span(
    events: Recorder, name: str, metadata: AbstractSet[str], predicate: Predicate | None = None
) -> tuple[Event, Event]:
    """Check the start of a span, and find its end."""

    def ends(event: Event) -> bool:
        return bool(event.metadata["telemetry_span_context"] == context)

    start = events.wait_for(f"{name}.start", predicate)
    check(start, STARTED, CONTEXT | metadata)
    context = start.metadata["telemetry_span_context"]
    wait_until(lambda: [*events.all(f"{name}.stop", ends), *events.all(f"{name}.exception", ends)])
    [found] = [*events.all(f"{name}.stop", ends), *events.all(f"{name}.exception", ends)]
    assert {key: found.metadata[key] for key in ("conf", *CONTEXT)} == {
        key: start.metadata[key] for key in ("conf", *CONTEXT)
    }
    return start, found


def fail(*_: object) -> NoReturn:
    """Fail as a bug does."""
    raise RuntimeError("a bug")


def test_of_the_tree(start_oban: Starter, events: Recorder) -> None:
    """`oban.supervisor.init` and the Stager's `oban.plugin.init`, once each."""
    oban = start_oban.leading(stager=SLOW)

    init = events.wait_for("oban.supervisor.init")
    check(init, {"system_time"}, {"conf", "pid"})
    assert init.metadata["conf"] is oban.config
    assert init.metadata["pid"] == oban.whereis("oban")
    plugin = events.wait_for("oban.plugin.init")
    check(plugin, frozenset(), {"conf", "plugin"})
    assert plugin.metadata["conf"] is oban.config
    assert plugin.metadata["plugin"] is Stager
    assert len(events.all("oban.supervisor.init")) == len(events.all("oban.plugin.init")) == 1


def test_of_a_pass(start_oban: Starter, events: Recorder) -> None:
    """Who leads is known from the start; the end has what was staged."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    jobs = oban.insert_all([scheduled(-9), scheduled(-5), scheduled(10)])
    events.clear()

    stage(oban)

    about = {"conf", "plugin", "leader"}
    start, stop = check_span(events, "oban.plugin", about, of_stager)
    check(stop, STOPPED, CONTEXT | about | {"staged_count", "staged_jobs"})
    assert start.metadata["leader"] is stop.metadata["leader"] is True
    assert stop.metadata["staged_count"] == 2
    assert [(job.id, job.queue, job.state) for job in stop.metadata["staged_jobs"]] == [
        (job.id, "alpha", "scheduled") for job in jobs[:2]
    ]
    _, of_engine = check_span(events, "oban.engine.stage_jobs", {"conf", "engine"})
    check(of_engine, STOPPED, CONTEXT | {"conf", "engine", "jobs", "queues"})


def test_of_a_followers_pass(start_oban: Starter, events: Recorder) -> None:
    """A pass that stages nothing, for this node does not lead, is told likewise."""
    oban = start_oban(peer=False, stager=SLOW)

    stage(oban)

    about = {"conf", "plugin", "leader"}
    start, stop = check_span(events, "oban.plugin", about, of_stager)
    check(stop, STOPPED, CONTEXT | about | {"staged_count", "staged_jobs"})
    assert start.metadata["leader"] is stop.metadata["leader"] is False
    assert (stop.metadata["staged_count"], stop.metadata["staged_jobs"]) == (0, ())


def test_of_a_failed_pass(start_oban: Starter, events: Recorder) -> None:
    """What would have been counted is there, as nothing, beside the error."""
    oban = start_oban.leading(stager=SLOW)
    start_oban.tables.execute("ALTER TABLE {jobs} RENAME TO elsewhere")
    events.clear()

    error = stage(oban).error

    about = {"conf", "plugin", "leader"}
    _, stop = check_span(events, "oban.plugin", about, of_stager)
    check(stop, STOPPED, CONTEXT | about | {"staged_count", "staged_jobs", "error"})
    assert (stop.metadata["staged_count"], stop.metadata["staged_jobs"]) == (0, ())
    assert stop.metadata["error"] is error is not None


def test_of_a_crashing_pass(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug ends the pass with an exception event, and the Stager with it."""
    oban = start_oban.leading(stager=SLOW)
    events.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Passes, "stage", fail)
        with pytest.raises(ServerCrashed):
            oban.ask("stager", Stage(), timeout=30)

    about = {"conf", "plugin", "leader"}
    _, found = check_span(events, "oban.plugin", about, of_stager)
    assert found.name == "oban.plugin.exception"
    check(found, STOPPED, CONTEXT | about | FAILURE)
    assert (found.metadata["kind"], str(found.metadata["reason"])) == ("error", "a bug")
    assert "in fail" in found.metadata["stacktrace"]


def test_of_an_election(start_oban: Starter, events: Recorder) -> None:
    """Who led is known at its end, not at its start."""
    start_oban.leading(stager=None)

    about = {"conf", "peer", "leader", "was_leader"}
    start, stop = check_span(events, "oban.peer.election", about)
    check(stop, STOPPED, CONTEXT | about)
    assert start.metadata["peer"] is stop.metadata["peer"] is DatabasePeer
    assert (start.metadata["leader"], start.metadata["was_leader"]) == (False, None)
    won = events.wait_for("oban.peer.election.stop", lambda e: e.metadata["leader"])
    assert won.metadata["was_leader"] is False


def test_of_a_crashing_election(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in an election is told as such."""
    oban = start_oban.leading(stager=None)
    hold = Elections.hold
    failed: list[object] = []

    def fail_once(*args: Any) -> Any:
        if not failed:
            failed.append(args)
            fail()
        return hold(*args)

    monkeypatch.setattr(Elections, "hold", fail_once)
    oban.tell("peer", Election())

    found = events.wait_for("oban.peer.election.exception")
    about = {"conf", "peer", "leader", "was_leader"}
    check(found, STOPPED, CONTEXT | about | FAILURE)


def test_of_a_notification(start_oban: Starter, events: Recorder) -> None:
    """The payloads are told as they were given, before they were encoded."""
    oban = start_oban.leading(stager=None)
    events.clear()

    oban.insert(scheduled(-5))

    about = {"conf", "channel", "payload"}
    start, stop = check_span(
        events, "oban.notifier.notify", about, lambda e: e.metadata["channel"] == "actors"
    )
    check(stop, STOPPED, CONTEXT | about)
    assert start.metadata["payload"] == stop.metadata["payload"]
    with start_oban.tables.engine.begin() as connection, pytest.raises(WireError):
        oban._publisher.publish(connection, "signal", [{"n": object()}])
    failed = events.wait_for("oban.notifier.notify.exception")
    check(failed, STOPPED, CONTEXT | about | FAILURE)
    assert isinstance(failed.metadata["reason"], WireError)


def test_of_switches(start_oban: Starter, events: Recorder) -> None:
    """The status that the Pulse sees, and the Stager's mode that follows from it."""
    oban = start_oban.leading(stager=SLOW)

    status = events.wait_for("oban.notifier.switch")
    check(status, frozenset(), {"conf", "status"})
    assert status.metadata["conf"] is oban.config
    assert status.metadata["status"] == "solitary"
    oban.tell("stager", Switched("isolated"))
    stage(oban)
    mode = events.wait_for("oban.stager.switch")
    check(mode, frozenset(), {"conf", "mode"})
    assert mode.metadata["conf"] is oban.config
    assert mode.metadata["mode"] == "local"


def test_of_inserting(start_oban: Starter, events: Recorder) -> None:
    """One job, and many."""
    oban = start_oban.make()

    job = oban.insert(scheduled(60))
    jobs = oban.insert_all([scheduled(60), scheduled(60)])

    _, one = check_span(events, "oban.engine.insert_job", {"conf", "engine", "job"})
    check(one, STOPPED, CONTEXT | {"conf", "engine", "job"})
    assert one.metadata["job"] == job
    _, many = check_span(events, "oban.engine.insert_all_jobs", {"conf", "engine", "changesets"})
    check(many, STOPPED, CONTEXT | {"conf", "engine", "changesets", "jobs"})
    assert many.metadata["jobs"] == jobs
