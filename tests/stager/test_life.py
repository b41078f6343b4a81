"""The Stager's life: without a Peer or a Notifier, over strange messages, and at its end."""

import pytest

from oban_actors import DatabaseError, Stage
from oban_actors.actors import RestartChild, TerminateChild, VirtualClock
from oban_actors.messages import Notification, Reconnected, Switched
from oban_actors.passes import Passes
from oban_actors.staging import BURST
from tests.stager.passes import SLOW, of_stager, stage
from tests.support.events import Recorder
from tests.support.instances import (
    Heard,
    Starter,
    available,
    named_actor,
    scheduled,
    wait_until_leader,
)
from tests.support.waiting import wait_until


def test_no_peer_no_staging(start_oban: Starter) -> None:
    """A vacant or dead peer answers nobody: the Stager takes that for a no, and lives."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    job = oban.insert(scheduled(-5))
    stager = oban.whereis("stager")
    oban.ask("oban", TerminateChild("peer"), timeout=30)

    first = stage(oban)

    assert (first.leader, first.staged_count, first.error) == (False, 0, None)
    assert start_oban.tables.states()[job.id or 0] == "scheduled"
    oban.ask("oban", RestartChild("peer"), timeout=30)
    wait_until_leader(oban)
    wait_until(lambda: stage(oban).leader)
    assert start_oban.tables.states()[job.id or 0] == "available"
    assert oban.whereis("stager") is stager


def test_an_unknown_message_is_dropped_an_unknown_question_is_a_bug(start_oban: Starter) -> None:
    """The Stager survives the one, is restarted after the other, and serves again."""
    oban = start_oban.leading(stager=SLOW)
    stager = oban.whereis("stager")
    oban.tell("stager", "nonsense")
    oban.tell("stager", Notification("actors", {"name": "Oban", "due": "soon"}))
    oban.tell("stager", Notification("actors", {"name": "Oban", "due": "2026-11-27T12:00:00"}))
    oban.tell("stager", Notification("actors", {"name": "Oban", "due": 7}))
    assert stage(oban).error is None
    assert oban.whereis("stager") is stager

    with pytest.raises(Exception, match="died while"):
        stager.ask("nonsense")

    wait_until(lambda: oban.tell("stager", Stage()))
    assert oban.whereis("stager") is not stager
    assert stage(oban).error is None


def test_many_stage_messages_leave_one_timer(start_oban: Starter) -> None:
    """Told twice, late or often, the Stager still has one timer."""
    clock = VirtualClock()
    oban = start_oban.make(clock=clock, peer="isolated", notifier="isolated", stager=SLOW)
    oban.start()
    for _ in range(20):
        oban.tell("stager", Stage())
    stage(oban)

    timers = oban._runtime.timers
    live = [t for _, _, t in timers._heap if t.live and isinstance(t.message, Stage)]
    assert len(live) == 1
    oban.whereis("stager").stop()


def test_ending_cancels_the_timer(start_oban: Starter) -> None:
    """`terminate` leaves no message behind for a successor."""
    clock = VirtualClock()
    oban = start_oban.make(clock=clock, peer="isolated", notifier="isolated", stager=SLOW)
    oban.start()
    heap = oban._runtime.timers._heap
    timer = next(t for _, _, t in heap if isinstance(t.message, Stage))

    oban.stop()

    assert not timer.live


def test_without_a_working_notifier_it_tells_the_producers_itself(
    start_oban: Starter, events: Recorder
) -> None:
    """In local mode the queues of this node are told by message, and the switch is an event."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    producer = named_actor(oban, ("producer", "alpha"))
    heard = Heard(producer)
    oban.insert(scheduled(-5))
    oban.tell("stager", Switched("isolated"))

    stage(oban)

    assert heard.wait_for("insert")[0] == {"queue": "alpha"}
    assert events.wait_for("oban.stager.switch").metadata["mode"] == "local"
    oban.tell("stager", Switched("clustered"))
    stage(oban)
    assert events.wait_for_count(2, "oban.stager.switch")[1].metadata["mode"] == "global"
    producer.stop()


def test_a_follower_in_local_mode_polls_for_its_own_producers(start_oban: Starter) -> None:
    """Whoever leads elsewhere can't be heard, so this node looks for itself."""
    oban = start_oban(peer=False, stager=SLOW, insert_notify=False)
    producer = named_actor(oban, ("producer", "alpha"))
    heard = Heard(producer)
    oban.insert(available())
    oban.tell("stager", Switched("isolated"))

    assert stage(oban).queues == ("alpha",)
    assert heard.wait_for("insert")[0] == {"queue": "alpha"}
    producer.stop()


def test_queues_are_told_though_staging_fails(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that could run all the same need not wait until staging works again."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    heard = start_oban.hear(oban, "insert")
    oban.insert(available())

    def fail(*_: object) -> None:
        raise DatabaseError("put in")

    monkeypatch.setattr(Passes, "stage", fail)
    result = stage(oban)

    assert (str(result.error), result.queues) == ("put in", ("alpha",))
    assert heard.wait_for("insert")[0] == {"queue": "alpha"}


def test_a_reconnected_notifier_makes_it_look_at_once(start_oban: Starter) -> None:
    """Something may have been missed while nobody listened."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    oban.insert(scheduled(-5))

    oban.tell("stager", Reconnected())

    wait_until(lambda: start_oban.tables.count("available") == 1)


def test_told_of_many_due_jobs_it_keeps_its_pace(start_oban: Starter, events: Recorder) -> None:
    """A burst of passes comes at once; then each one waits for its turn, however many tell it."""
    clock = VirtualClock()
    oban = start_oban.make(clock=clock, peer="isolated", notifier="isolated", stager=SLOW)
    oban.start()
    due = Notification("actors", {"name": "Oban", "due": clock.now().isoformat()})

    for _ in range(3 * BURST):
        oban.tell("stager", due)
        wait_until(lambda: not (node := oban.tree().find("stager")).inbox and node.state == "idle")
        clock.advance(0)

    assert 1 < len(events.all("oban.plugin.start", of_stager)) <= BURST
