"""How many restarts are too many, and what giving up means on each level."""

import pytest

from oban_actors.actors import SHUTDOWN, Root, ServerCrashed, Supervisor, VirtualClock
from oban_actors.actors.restarts import Intensity
from oban_actors.actors.spec import Restart
from tests.actors.conftest import StartTree
from tests.actors.lab import Boom, Hooks, Journal, Lab, crash, gone, ids, lab
from tests.support.waiting import wait_until


def _crash(root: Root, name: str) -> None:
    """Let a child crash, and wait until its supervisor has it back or has ended."""
    before = root.whereis(name)
    assert before is not None
    with pytest.raises(ServerCrashed):
        before.ask(crash())
    wait_until(lambda: not root.alive or root.whereis(name) not in (None, before))


def test_defaults_are_elixirs(tree: StartTree, clock: VirtualClock) -> None:
    """Three restarts within five seconds are borne; the fourth ends the supervisor."""
    root = tree([lab("a")], clock=clock)
    for _ in range(3):
        _crash(root, "a")
    assert root.tree().recent_restarts == 3
    _crash(root, "a")
    assert root.wait(30) == SHUTDOWN
    assert root.whereis("a") is None


def test_window_moves(tree: StartTree, clock: VirtualClock) -> None:
    """Only restarts within the window count, its edge included."""
    root = tree([lab("a")], clock=clock)
    for _ in range(3):
        _crash(root, "a")
    clock.advance(5.001)
    assert root.tree().recent_restarts == 0
    for _ in range(3):
        _crash(root, "a")
    clock.advance(5)
    _crash(root, "a")
    assert root.wait(30) == SHUTDOWN


def test_zero_restarts(tree: StartTree) -> None:
    """Zero bears none."""
    root = tree([lab("a")], max_restarts=0)
    _crash(root, "a")
    assert root.wait(30) == SHUTDOWN


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_one_event_counts_once(tree: StartTree, clock: VirtualClock, strategy: str) -> None:
    """However many children one crash restarts, it is one restart."""
    root = tree([lab(tag) for tag in "abcd"], strategy=strategy, clock=clock)
    for _ in range(3):
        _crash(root, "a")
    assert ids(root) == ["a", "b", "c", "d"]
    _crash(root, "d")
    assert root.wait(30) == SHUTDOWN


def test_ends_without_restart_do_not_count(tree: StartTree, clock: VirtualClock) -> None:
    """Temporary children may crash as often as they like."""
    root = tree([lab(str(one), restart="temporary") for one in range(10)], clock=clock)
    for one in range(10):
        ref = root.whereis(str(one))
        assert ref is not None
        with pytest.raises(ServerCrashed):
            ref.ask(crash())
    assert ids(root) == []
    assert root.alive


def test_each_retry_counts(tree: StartTree, clock: VirtualClock, journal: Journal) -> None:
    """A restart whose start keeps failing is tried until the intensity is used up."""
    first = [True]

    def init(me: Lab) -> None:
        if first:
            first.pop()
            return
        me.journal("fail", me.tag)
        raise Boom("init")

    root = tree([lab("a", journal, hooks=Hooks(init=init)), lab("b", journal)], clock=clock)
    root.tell("a", crash())
    assert root.wait(30) == SHUTDOWN
    assert len(journal.about("fail")) == 3
    assert journal.lines[-1] == ("end", "b", "shutdown")


def test_giving_up_ends_the_rest_in_order(
    tree: StartTree, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """It says why, ends the other children in reverse, and ends with reason shutdown."""
    root = tree([lab(tag, journal) for tag in "abc"], max_restarts=0, max_seconds=2.5)
    journal.clear()
    _crash(root, "b")
    assert root.wait(30) == SHUTDOWN
    assert journal.lines == [
        ("end", "b", "crashed"),
        ("end", "c", "shutdown"),
        ("end", "a", "shutdown"),
    ]
    assert (
        "Supervisor gives up: more than 0 restarts within 2.5 seconds, the last of child b"
        in caplog.messages
    )


def test_two_levels(tree: StartTree, clock: VirtualClock, journal: Journal) -> None:
    """A supervisor that gives up is restarted by its own, with its children; bursts multiply."""
    inner = Supervisor.child_spec([lab("a", journal), lab("b", journal)], id="inner", name="inner")
    root = tree([inner, lab("c", journal)], clock=clock)
    for _ in range(15):
        _crash(root, "a")
        assert root.alive
    (view, _) = root.tree().children
    assert view.restarts == 3
    _crash(root, "a")
    assert root.wait(30) == SHUTDOWN
    assert len([line for line in journal.lines if line == ("start", "a")]) == 16
    assert len([line for line in journal.lines if line == ("start", "b")]) == 4
    assert len([line for line in journal.lines if line == ("start", "c")]) == 1


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_giving_up_is_no_crash(tree: StartTree, restart: Restart) -> None:
    """It ends with reason shutdown, so only a permanent supervisor is started again."""
    inner = Supervisor.child_spec(
        [lab("a")],
        id="inner",
        name="inner",
        restart=restart,
        max_restarts=0,
    )
    root = tree([inner])
    ref = root.whereis("inner")
    root.tell("a", crash())
    assert gone(ref).exit_reason == SHUTDOWN
    assert ids(root) == []
    assert root.alive


def test_pure_intensity() -> None:
    """The decision itself: the window's edge counts, what is older is forgotten."""
    state = Intensity(2, 10)
    for now in (0, 5, 10):
        assert not state.exceeded
        state = state.add(now)
    assert state.exceeded
    assert state.within(10.0) == 3
    assert state.within(10.1) == 2
    assert state.add(20.1).times == (20.1,)
