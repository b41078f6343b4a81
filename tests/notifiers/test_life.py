"""How notifiers crash, reconnect, reach each other and end."""

import pytest

from oban_actors.errors import ServerCrashed
from oban_actors.messages import Listen, Notify, Reconnect, TryLock, Unlisten, Unlock
from tests.notifiers.rig import Rig, crash_once
from tests.support.waiting import wait_until

END = {"the": "end"}


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "told"])
@pytest.mark.parametrize("kind", [Listen, Unlisten, Notify, Reconnect, TryLock, Unlock])
def test_crashed_over_a_message_it_comes_back(rig: Rig, kind: type, *, asked: bool) -> None:
    """The next Notifier has all listeners, and wakes them, since they may have missed something."""
    node = rig.node()
    one, two = node.hear("signal"), node.hear("leader")
    one.forget()
    two.forget()
    crash_once(node, kind)
    message = {
        Listen: Listen(["x"], one.ref),
        Unlisten: Unlisten(["x"], one.ref),
        Notify: Notify("signal", [{"n": 1}]),
        Reconnect: Reconnect(),
        TryLock: TryLock(7),
        Unlock: Unlock(7),
    }[kind]

    if asked:
        with pytest.raises(ServerCrashed):
            node.ask(message)
    else:
        node.tell(message)

    one.wait_for_reconnected()
    two.wait_for_reconnected()
    node.publish("signal", END)
    node.publish("leader", END)
    one.wait_for(END)
    two.wait_for(END)


def test_asked_to_reconnect(rig: Rig) -> None:
    """Everybody is told to look, and hears again."""
    node = rig.node()
    ear = node.hear("signal")
    ear.forget()

    node.tell(Reconnect())

    ear.wait_for_reconnected()
    node.publish("signal", END)
    ear.wait_for(END)


def test_an_unknown_message(rig: Rig) -> None:
    """Told, it is dropped."""
    node = rig.node()
    ear = node.hear("signal")

    node.tell("what?")
    node.publish("signal", END)

    ear.wait_for(END)


def test_nodes_hear_each_other(shared_rig: Rig) -> None:
    """What one sends, all hear, each as often as it was sent."""
    nodes = [shared_rig.node(node=f"n{n}") for n in range(3)]
    ears = [node.hear("signal") for node in nodes]

    for n, node in enumerate(nodes):
        node.publish("signal", {"n": n})

    for ear in ears:
        ear.wait_for(*({"n": n} for n in range(3)))
        assert len(ear.payloads()) == 3


def test_what_is_published_already_stays_here(shared_rig: Rig) -> None:
    """Other nodes hear of it from the database, or not at all."""
    here, there = shared_rig.node(node="here"), shared_rig.node(node="there")
    near, far = here.hear("signal"), there.hear("signal")

    here.ask(Notify("signal", [{"n": 1}], published=True))
    here.publish("signal", END)

    far.wait_for(END)
    near.wait_for(END)
    assert far.payloads() == [END]
    assert near.payloads() == [{"n": 1}, END]


def test_ended_in_order_it_leaves_nothing(rig: Rig) -> None:
    """Its connections are closed; the fixture looks for threads."""
    node = rig.node()
    notifier = node.root.whereis("notifier")
    assert notifier is not None

    node.root.stop()

    wait_until(lambda: not notifier.is_alive())
