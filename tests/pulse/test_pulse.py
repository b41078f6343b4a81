"""The Pulse at work: what it sends, how often and at what cost, and what follows from it."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Beat, GetStatus, Job, Notify, Oban
from oban_actors.actors import TerminateChild, VirtualClock
from oban_actors.pulse import PROOF_TIME
from tests.queues.test_crashes import crash
from tests.stager.passes import SLOW, stage
from tests.support.events import Recorder
from tests.support.instances import Heard, Starter, available, named_actor
from tests.support.waiting import wait_until


def beat(oban: Oban) -> None:
    """Have a beat now."""
    oban.ask("pulse", Beat(), timeout=30)


def status(oban: Oban) -> Any:
    """Ask what the cluster looks like."""
    return oban.ask("pulse", GetStatus(), timeout=30)


def statements_of_a_beat(oban: Oban) -> list[str]:
    """Give what the Pulse sends to the database for one beat."""
    pulse: list[threading.Thread] = []
    said: list[tuple[threading.Thread, str]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        said.append((threading.current_thread(), statement))
        if "sonar" in str(values):
            pulse.append(threading.current_thread())

    # It has beaten again by then because the notifier had begun to listen.
    wait_until(lambda: status(oban) in {"solitary", "clustered"})
    sa.event.listen(oban.repo.engine, "before_cursor_execute", note)
    try:
        beat(oban)
    finally:
        sa.event.remove(oban.repo.engine, "before_cursor_execute", note)
    return [statement for thread, statement in said if thread is pulse[0]]


def test_a_beat_costs_the_same_however_many_queues(start_oban: Starter) -> None:
    """All its queues are in one statement, and the work that waits for each is found by it."""
    few = start_oban(name="few", queues={"q": 1}, stager=None, clock=VirtualClock())
    queues = {f"q{n}": 1 for n in range(12)}
    many = start_oban(name="many", queues=queues, stager=None, clock=VirtualClock())

    assert len(statements_of_a_beat(many)) == len(statements_of_a_beat(few))


def test_it_beats_every_ten_seconds(start_oban: Starter) -> None:
    """A tenth sooner at most, so that nodes which began together drift apart."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, stager=None, peer="isolated")
    wait_until(lambda: status(oban) == "solitary")
    heard = start_oban.hear(oban, "sonar")

    def beats() -> int:
        # What had been sent before this is heard before it.
        assert status(oban) == "solitary"
        oban.ask("notifier", Notify("sonar", ({"marker": True},)), timeout=30)
        wait_until(lambda: {"marker": True} in heard.payloads("sonar")[seen:])
        return heard.payloads("sonar").index({"marker": True}, seen) - seen

    seen = 0
    beat(oban)
    seen = beats() + 1
    clock.advance(8.9)
    assert beats() == 0
    seen += 1

    clock.advance(1.2)

    assert beats() == 1


def test_its_ping_is_sonars(start_oban: Starter) -> None:
    """Node and ping and nothing else: a `time` would be taken for the one when it was heard."""
    oban = start_oban(node="web.7", stager=None)
    heard = start_oban.hear(oban, "sonar")

    beat(oban)

    assert heard.wait_for("sonar")[0] == {"node": "web.7", "ping": True}


def test_nodes_see_each_other(start_oban: Starter) -> None:
    """A node is solitary but for those it has heard of late, be they of Elixir."""
    clock = VirtualClock()
    first = start_oban(node="web.1", stager=None, peer="isolated", clock=clock)
    wait_until(lambda: status(first) == "solitary")
    second = start_oban(node="web.2", stager=None, peer="isolated")
    wait_until(lambda: status(first) == "clustered")
    beat(first)
    wait_until(lambda: status(second) == "clustered")
    second.stop()

    # Again and again: its last ping may be on its way still.
    wait_until(lambda: (clock.advance(121), beat(first), status(first))[2] == "solitary")

    first.ask("notifier", Notify("sonar", ({"node": "elixir@host", "ping": True},)), timeout=30)
    wait_until(lambda: status(first) == "clustered")


def test_a_crashed_pulses_ping_makes_no_cluster(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had committed comes back to its successor, which knows it for the node's own."""
    oban = start_oban(stager=None, peer="isolated")
    wait_until(lambda: status(oban) == "solitary")
    heard = start_oban.hear(oban, "actors")
    beat(oban)
    heard.wait_for("actors")
    pings = heard.payloads("actors")
    crash(monkeypatch, oban.whereis("pulse"))
    wait_until(lambda: oban._runtime.registry.whereis("pulse"))
    wait_until(lambda: status(oban) == "solitary")

    oban.ask("notifier", Notify("actors", (*pings, {"marker": True})), timeout=30)

    wait_until(lambda: {"marker": True} in heard.payloads("actors"))
    assert status(oban) == "solitary"


def test_without_a_notifier_the_stager_tells_the_queues_here(
    start_oban: Starter, events: Recorder
) -> None:
    """A ping that does not come back means local mode: producers are told by message."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, peer="isolated", stager=SLOW, insert_notify=False)
    wait_until(lambda: status(oban) == "solitary")
    producer = named_actor(oban, ("producer", "alpha"))
    heard = Heard(producer)
    oban.ask("oban", TerminateChild("notifier"), timeout=30)

    beat(oban)
    clock.advance(PROOF_TIME + 0.1)

    wait_until(lambda: status(oban) == "isolated")
    events.wait_for("oban.notifier.switch", lambda e: e.metadata["status"] == "isolated")
    oban.insert(available())
    oban.insert(Job.new(worker="w", queue="elsewhere"))
    assert stage(oban).leader
    assert events.wait_for("oban.stager.switch").metadata["mode"] == "local"
    assert heard.wait_for("insert") == [{"queue": "alpha"}]
    producer.stop()
