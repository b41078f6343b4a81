"""Supervisors: the order of starts, who is started again with whom, and restarts that fail."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pykka
import pytest

from oban_actors.actors import (
    IGNORE,
    NORMAL,
    SHUTDOWN,
    ChildSpec,
    DeleteChild,
    GenServer,
    Parent,
    Reason,
    RestartChild,
    StartChild,
    StartFailed,
    Supervisor,
    TerminateChild,
    UnknownChild,
    WhichChildren,
)
from oban_actors.actors.process import Process, process_of
from oban_actors.actors.spec import RESTARTS
from tests.actors.conftest import StartTree
from tests.actors.lab import (
    Boom,
    Gate,
    Hooks,
    Journal,
    Lab,
    crash,
    end_child,
    failing,
    failing_again,
    ids,
    known,
    lab,
    stopping,
)

# Start


def test_start_in_order(tree: StartTree, journal: Journal) -> None:
    """Children start from left to right, each when the one before is ready."""
    gate, first, ready = Gate(), list[Process](), list[bool]()

    def hold(me: Lab) -> None:
        first.append(process_of(me.actor_ref))
        gate()

    def begin(_: Lab) -> None:
        ready.append(first[0].started.is_set())

    specs = [lab("a", journal, hooks=Hooks(init=hold)), lab("b", journal, hooks=Hooks(init=begin))]
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(tree, specs)
        gate.wait()
        supervisor = first[0].parent
        assert supervisor is not None
        assert supervisor.waiting is not None
        assert supervisor.waiting.target is first[0]
        assert not supervisor.started.is_set()
        assert journal.lines == []
        gate.open()
        root = starting.result(60)
    assert ready == [True]
    assert journal.lines == [("start", tag) for tag in "ab"]
    assert ids(root) == ["a", "b"]


@pytest.mark.parametrize("error", [Boom("init"), SystemExit(1)])
def test_failing_start(journal: Journal, error: BaseException) -> None:
    """When one fails at first, those before it end in reverse, and the starter gets the reason."""
    bad = lab("c", journal, hooks=Hooks(init=failing(1, error)))
    with pytest.raises(StartFailed) as caught:
        Supervisor.start([lab("a", journal), lab("b", journal), bad, lab("d", journal)])
    assert journal.lines == [
        ("start", "a"),
        ("start", "b"),
        ("fail", "c"),
        ("end", "b", "shutdown"),
        ("end", "a", "shutdown"),
    ]
    assert caught.value.child == "Supervisor"
    assert isinstance(caught.value.reason, StartFailed)
    assert caught.value.reason.child == "c"
    assert caught.value.reason.reason is error


def test_failing_start_two_levels_down(journal: Journal) -> None:
    """A failure below takes down all that had started, on every level."""
    inner = Supervisor.child_spec(
        [lab("b", journal), lab("c", journal, hooks=Hooks(init=failing(1)))], id="inner"
    )
    with pytest.raises(StartFailed):
        Supervisor.start([lab("a", journal), inner])
    assert [line[:2] for line in journal.about("end")] == [("end", "b"), ("end", "a")]


@pytest.mark.parametrize("error", [Boom("built badly"), SystemExit(1)])
def test_failing_constructor(tree: StartTree, error: BaseException) -> None:
    """A child whose `__init__` raises did not start; that is its own affair."""

    class Bad(GenServer):
        def __init__(self) -> None:
            super().__init__()
            raise error

    root = tree([lab("a")])
    with pytest.raises(StartFailed) as caught:
        root.ref.ask(StartChild(Bad.child_spec()))
    assert caught.value.reason is error
    assert known(root) == ["a"]


def test_ignored_children(tree: StartTree, journal: Journal) -> None:
    """One that ignores its start stays known without running; a temporary one is forgotten."""
    hooks = Hooks(init=lambda _: IGNORE)
    root = tree(
        [
            lab("a", journal),
            lab("b", hooks=hooks),
            lab("c", hooks=hooks, restart="temporary"),
            lab("d", journal),
        ]
    )
    assert ids(root) == ["a", "d"]
    assert known(root) == ["a", "b", "d"]
    assert root.whereis("b") is None


def test_custom_start(tree: StartTree) -> None:
    """`start` may be any function that starts a child linked to the parent it is given."""

    def begin(parent: Parent) -> Any:
        return Lab.start_link(("made",), parent=parent, name="made")

    root = tree([ChildSpec("mine", begin)])
    assert root.ask("made", 1) == 1
    end_child(root, "made", crash())
    assert root.ask("made", 2) == 2


@pytest.mark.parametrize("strange", [None, "pid", Lab, pykka.ThreadingActor])
def test_start_that_links_nothing(tree: StartTree, journal: Journal, strange: Any) -> None:
    """A `start` that gives no actor, or one whose end its supervisor can't hear of, has failed."""
    made: Any = strange.start() if callable(strange) else strange
    root = tree([lab("a", journal)])
    with pytest.raises(StartFailed) as caught:
        root.ref.ask(StartChild(ChildSpec("mine", lambda _: made)))
    assert caught.value.child == "mine"
    assert isinstance(caught.value.reason, TypeError)
    assert "expected" in str(caught.value.reason)
    assert repr(made) in str(caught.value.reason)
    assert known(root) == ["a"]
    if callable(strange):
        made.stop()


# Who restarts

NO_PID = "no pid"
TYPES = {
    ("permanent", "normal"): "restarted",
    ("permanent", "shutdown"): "restarted",
    ("permanent", "shutdown with detail"): "restarted",
    ("permanent", "error"): "restarted",
    ("permanent", "exit"): "restarted",
    ("transient", "normal"): NO_PID,
    ("transient", "shutdown"): NO_PID,
    ("transient", "shutdown with detail"): NO_PID,
    ("transient", "error"): "restarted",
    ("transient", "exit"): "restarted",
    ("temporary", "normal"): "forgotten",
    ("temporary", "shutdown"): "forgotten",
    ("temporary", "shutdown with detail"): "forgotten",
    ("temporary", "error"): "forgotten",
    ("temporary", "exit"): "forgotten",
}
ENDS = {
    "normal": stopping(NORMAL),
    "shutdown": stopping(SHUTDOWN),
    "shutdown with detail": stopping(Reason("shutdown", "drained")),
    "error": crash(Boom),
    "exit": crash(SystemExit),
}


@pytest.mark.parametrize(("restart", "end"), TYPES)
def test_restart_types(tree: StartTree, restart: Any, end: str) -> None:
    """OTP's table: who is started again after which end, who is kept, who is forgotten."""
    root = tree([lab("a", restart=restart), lab("b")])
    end_child(root, "a", ENDS[end])
    found = "restarted" if "a" in ids(root) else NO_PID if "a" in known(root) else "forgotten"
    assert found == TYPES[restart, end]
    assert "b" in ids(root)


STRATEGIES: dict[str, list[tuple[str, ...]]] = {
    "one_for_one": [("start", "b")],
    "rest_for_one": [
        ("end", "d", "shutdown"),
        ("end", "c", "shutdown"),
        ("start", "b"),
        ("start", "c"),
        ("start", "d"),
    ],
    "one_for_all": [
        ("end", "d", "shutdown"),
        ("end", "c", "shutdown"),
        ("end", "a", "shutdown"),
        ("start", "a"),
        ("start", "b"),
        ("start", "c"),
        ("start", "d"),
    ],
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies(tree: StartTree, journal: Journal, strategy: str) -> None:
    """Who ends with one that crashed, in reverse, and who starts with it, in order."""
    root = tree([lab(tag, journal) for tag in "abcd"], strategy=strategy)
    journal.clear()
    end_child(root, "b", crash())
    assert journal.lines == [("end", "b", "crashed"), *STRATEGIES[strategy]]
    assert ids(root) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_temporary_siblings(tree: StartTree, journal: Journal, strategy: str) -> None:
    """A temporary child that a sibling's end took down never comes back."""
    root = tree([lab("a", journal), lab("b", journal, restart="temporary")], strategy=strategy)
    end_child(root, "a", crash())
    assert known(root) == ["a"]


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_siblings_without_pid(tree: StartTree, strategy: str) -> None:
    """A sibling that had ended for good is started again with the others."""
    root = tree([lab("a"), lab("b", restart="transient"), lab("c")], strategy=strategy)
    end_child(root, "b", stopping(NORMAL))
    root.ref.ask(TerminateChild("c"))
    assert ids(root) == ["a"]
    end_child(root, "a", crash())
    assert ids(root) == ["a", "b", "c"]


@pytest.mark.parametrize("restart", RESTARTS)
def test_abnormal_ends_are_logged(
    tree: StartTree, restart: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A child's crash is an error in the log, of whatever type it is; an end in order is not."""
    root = tree([lab("a", restart=restart), lab("b", restart=restart)])
    with caplog.at_level(logging.INFO):
        end_child(root, "a", stopping(Reason("shutdown", "drained")))
        assert caplog.messages == []
        end_child(root, "b", crash(Boom("why")))
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert "child b ended: crashed: Boom('why')" in errors


# Restarts whose start fails


@pytest.mark.parametrize("error", [Boom("init"), SystemExit(1)])
def test_failing_restart_is_tried_again(
    tree: StartTree, journal: Journal, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart that fails is logged and tried again, without delay, until it succeeds."""
    first = [True]
    fail = failing(2, error)

    def init(me: Lab) -> None:
        if first:
            first.pop()
        else:
            fail(me)

    root = tree([lab("a", journal, hooks=Hooks(init=init)), lab("b", journal)])
    end_child(root, "a", crash())
    failed = f"child a did not start again: {error!r}"
    assert [line for line in caplog.messages if "did not start again" in line] == [failed] * 2
    assert journal.about("start", "fail") == [
        ("start", "a"),
        ("start", "b"),
        ("fail", "a"),
        ("fail", "a"),
        ("start", "a"),
    ]
    assert root.tree().children[0].restarts == 3


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_failing_restart_stops_the_sequence(
    tree: StartTree, journal: Journal, strategy: str
) -> None:
    """Those after the one that fails stay down until its retry succeeds."""
    hooks = Hooks(init=failing_again(1))
    root = tree(
        [lab("a", journal), lab("b", journal, hooks=hooks), lab("c", journal)], strategy=strategy
    )
    journal.clear()
    end_child(root, "a", crash())
    again = [("end", "a", "shutdown"), ("start", "a")] if strategy == "one_for_all" else []
    assert journal.lines == [
        ("end", "a", "crashed"),
        ("end", "c", "shutdown"),
        ("end", "b", "shutdown"),
        ("start", "a"),
        ("fail", "b"),
        *again,
        ("start", "b"),
        ("start", "c"),
    ]
    assert ids(root) == ["a", "b", "c"]


def test_request_gets_in_between_retries(tree: StartTree, journal: Journal) -> None:
    """Between two tries a supervisor answers, and ends when it is asked to."""
    gate, ready = Gate(), Gate()

    def init(me: Lab) -> None:
        if not ready.opened.is_set():
            ready.open()
            return
        gate()
        raise Boom("again")

    root = tree([lab("a", journal, hooks=Hooks(init=init))], max_restarts=10**9)
    root.tell("a", crash())
    gate.wait()
    ended = root.ref.stop(block=False)
    gate.open()
    assert ended.get(timeout=60) is True
    assert root.reason == NORMAL


def test_retry_of_a_child_that_was_ended(tree: StartTree, journal: Journal) -> None:
    """A child that is ended by hand while it is to be tried again is tried no more."""
    gate = Gate()
    first = [True]

    def init(me: Lab) -> None:
        if first:
            first.pop()
            return
        gate()
        me.journal("fail", me.tag)
        raise Boom("again")

    root = tree([lab("a", journal, hooks=Hooks(init=init))], max_restarts=10**9)
    root.tell("a", crash())
    gate.wait()
    requests = [
        root.ref.ask(message, block=False)
        for message in (RestartChild("a"), DeleteChild("a"), TerminateChild("a"))
    ]
    gate.open()
    for refused in requests[:2]:
        with pytest.raises(UnknownChild):
            refused.get(timeout=60)
    requests[2].get(timeout=60)
    assert ids(root) == []
    tries = len(journal.about("fail"))
    root.ref.ask(WhichChildren())
    assert len(journal.about("fail")) == tries
    assert root.tree().children[0].state == "stopped"


def test_ignored_restart(tree: StartTree) -> None:
    """A child that ignores its restart stays known, without pid."""
    first = [True]
    hooks = Hooks(init=lambda _: None if first and first.pop() else IGNORE)
    root = tree([lab("a", hooks=hooks)])
    end_child(root, "a", crash())
    assert ids(root) == []
    assert known(root) == ["a"]
