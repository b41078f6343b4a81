"""The live tree, read without a message to anybody."""

import json

import pytest
from pykka.messages import ProxyCall

from oban_actors.actors import (
    Node,
    ServerCrashed,
    StartChild,
    Supervisor,
    TerminateChild,
    VirtualClock,
)
from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.tree import look
from tests.actors.conftest import StartTree
from tests.actors.lab import Boom, Gate, Hooks, Lab, Run, crash, lab, settled
from tests.support.waiting import wait_until


def _find(node: Node, id_: str) -> Node:
    found = node.find(id_)
    assert found is not None
    return found


def test_whole_tree(tree: StartTree) -> None:
    """All actors, in start order, on all levels; a spec without an actor too."""
    inner = Supervisor.child_spec([lab("b"), lab("c")], id="inner", name="inner")
    root = tree([lab("a"), inner, lab("d")], name=("root", "x"))
    root.ref.ask(TerminateChild("d"))
    wait_until(lambda: root.tree().state == "idle")
    node = root.tree()
    assert [one.id for one in node.walk()] == ["root x", "a", "inner", "b", "c", "d"]
    assert _find(node, "d").state == "stopped"
    assert _find(node, "c").actor == "c"
    assert _find(node, "inner").recent_restarts == 0
    assert _find(node, "a").recent_restarts is None
    assert node.find("nobody") is None


def test_busy_actor(tree: StartTree) -> None:
    """What it does now, for how long, what waits, how old that is; a stuck one answers nothing."""
    root, gate = tree([lab("a")]), Gate()
    began = real_monotonic()
    root.tell("a", Run(gate))
    gate.wait()
    for number in range(3):
        root.tell("a", number)
    node = wait_until(lambda: node if (node := _find(root.tree(), "a")).oldest else None)
    assert (node.state, node.handling, node.inbox) == ("busy", "Run", 3)
    assert node.busy_for is not None
    assert node.oldest is not None
    # Two looks at the clock, one right after the other.
    assert real_monotonic() - began >= max(node.busy_for, node.oldest)
    assert min(node.busy_for, node.oldest) > 0
    gate.open()
    root.ask("a", "sync")
    node = wait_until(lambda: node if (node := _find(root.tree(), "a")).state == "idle" else None)
    assert (node.handling, node.busy_for, node.inbox, node.oldest) == (None, None, 0, None)


def test_waiting_and_starting(tree: StartTree) -> None:
    """An actor that waits for another one, and one whose `init` still runs, say so."""
    gate, starting = Gate(), Gate()
    root = tree([lab("a"), lab("b")])
    root.tell("b", Run(gate))
    gate.wait()
    root.tell("a", Run(lambda me: me.ask("b", "hello", 60)))
    wait_until(lambda: _find(root.tree(), "a").state == "waiting")
    gate.open()
    wait_until(lambda: _find(root.tree(), "a").state == "idle")
    added = root.ref.ask(StartChild(lab("c", hooks=Hooks(init=starting))), block=False)
    starting.wait()
    assert _find(root.tree(), "c").state == "starting"
    assert root.tree().state == "waiting"
    starting.open()
    added.get()
    wait_until(lambda: _find(root.tree(), "c").state == "idle")


def test_restarts_and_last_crash(tree: StartTree, clock: VirtualClock) -> None:
    """How often a child was restarted, how often of late, and what it crashed with."""
    root = tree([lab("a"), lab("b")], clock=clock)
    root.tell("a", crash(Boom("why")))
    wait_until(lambda: root.tree().recent_restarts == 1)
    settled(root)
    node = _find(root.tree(), "a")
    assert (node.restarts, node.last_crash) == (1, "crashed: Boom('why')")
    assert (_find(root.tree(), "b").restarts, _find(root.tree(), "b").last_crash) == (0, None)
    clock.advance(6)
    assert root.tree().recent_restarts == 0


def test_failing_restart(tree: StartTree) -> None:
    """While its restart fails a child is `restarting`, with the error of its `init`."""
    gate, first = Gate(), [True]

    def init(_: Lab) -> None:
        if first:
            first.pop()
        elif not gate.opened.is_set():
            gate.reached.set()
            gate.opened.wait(0.01)  # or its log fills up before anybody looks
            raise Boom("init")

    root = tree([lab("a", hooks=Hooks(init=init))], max_restarts=10**9, max_seconds=0.001)
    root.tell("a", crash())
    gate.wait()
    (view,) = root.ref.ask(ProxyCall(("_views",), (), {}))
    assert (view.idle, view.last_crash) == ("restarting", "Boom('init')")
    assert look(None, view).state == "restarting"
    gate.open()
    assert settled(root)
    assert _find(root.tree(), "a").state == "idle"


def test_as_plain_values(tree: StartTree) -> None:
    """It can be written as JSON."""
    inner = Supervisor.child_spec([lab("b")], id=("inner", 1))
    values = json.loads(json.dumps(tree([lab("a"), inner]).tree().to_dict()))
    assert [child["id"] for child in values["children"]] == ["a", "('inner', 1)"]
    assert values["children"][1]["children"][0]["id"] == "b"


def test_as_text(tree: StartTree) -> None:
    """It can be printed: one line an actor, with what is out of the ordinary."""
    inner = Supervisor.child_spec([lab("b"), lab("c")], id="inner")
    root, gate = tree([inner, lab("d")]), Gate()
    with pytest.raises(ServerCrashed):
        root.ask("d", crash(Boom("why")))
    settled(root)
    root.tell("c", Run(gate))
    gate.wait()
    root.tell("c", "more")
    lines = str(root.tree()).split("\n")
    assert [line[:5] for line in lines] == ["Super", "├─ in", "│  ├─", "│  └─", "└─ d "]
    assert "busy  Run for " in lines[3]
    assert "inbox 1, oldest " in lines[3]
    assert lines[4].endswith("restarted 1x  last crash: crashed: Boom('why')")
    gate.open()


def test_after_the_end(tree: StartTree) -> None:
    """A tree that has ended can still be looked at."""
    root = tree([lab("a")])
    root.stop()
    assert root.tree().state == "exited"
    assert [node.state for node in root.tree().children] == ["stopped"]


@pytest.mark.parametrize("count", [50])
def test_no_message_is_sent(tree: StartTree, count: int) -> None:
    """Looking costs no actor anything, even if all of them hang."""
    gates = [Gate() for _ in range(count)]
    root = tree([lab(str(one)) for one in range(count)])
    for one, gate in enumerate(gates):
        root.tell(str(one), Run(gate))
        gate.wait()
    nodes = root.tree().children
    assert {node.state for node in nodes} == {"busy"}
    assert {node.inbox for node in nodes} == {0}
    for gate in gates:
        gate.open()
