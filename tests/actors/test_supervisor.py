"""Supervisors: order, strategies, restart types, and children added and taken away by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from oban_actors.actors import (
    IGNORE,
    NORMAL,
    SHUTDOWN,
    ChildExit,
    ChildSpec,
    DeleteChild,
    GenServer,
    Parent,
    Reason,
    RestartChild,
    ServerCrashed,
    StartChild,
    StartFailed,
    Stop,
    Supervisor,
    TerminateChild,
    UnknownChild,
    WhichChildren,
)
from tests.actors.conftest import StartTree
from tests.actors.lab import (
    Boom,
    Gate,
    Hooks,
    Journal,
    Lab,
    Run,
    crash,
    gone,
    ids,
    known,
    lab,
    settled,
)


def _fail(times: int, error: BaseException | None = None) -> Callable[[Lab], None]:
    left = [times]

    def init(me: Lab) -> None:
        if left[0]:
            left[0] -= 1
            me.journal("fail", me.tag)
            raise error or Boom("init")

    return init


def _after_first(times: int) -> Callable[[Lab], None]:
    """As `_fail`, but the first start succeeds."""
    fail, first = _fail(times), [True]

    def init(me: Lab) -> None:
        if first:
            first.pop()
        else:
            fail(me)

    return init


def _end(root: Any, name: str, message: Run) -> None:
    """Let a child end, and wait until its supervisor has done what follows."""
    ref = root.whereis(name)
    ref.tell(message)
    gone(ref)
    settled(root)


def _stop(reason: Reason) -> Run:
    def do(_: Lab) -> None:
        raise Stop(reason)

    return Run(do)


# Start


def test_start_in_order(tree: StartTree, journal: Journal) -> None:
    """Children start from left to right, each when the one before is ready."""
    gate = Gate()
    gate.open()
    root = tree([lab("a", journal, hooks=Hooks(init=gate)), lab("b", journal), lab("c", journal)])
    assert journal.lines == [("start", tag) for tag in "abc"]
    assert ids(root) == ["a", "b", "c"]


@pytest.mark.parametrize("error", [Boom("init"), SystemExit(1)])
def test_failing_start(journal: Journal, error: BaseException) -> None:
    """When one fails at first, those before it end in reverse, and the starter gets the reason."""
    bad = lab("c", journal, hooks=Hooks(init=_fail(1, error)))
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
        [lab("b", journal), lab("c", journal, hooks=Hooks(init=_fail(1)))], id="inner"
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
    _end(root, "made", crash())
    assert root.ask("made", 2) == 2


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
    "normal": _stop(NORMAL),
    "shutdown": _stop(SHUTDOWN),
    "shutdown with detail": _stop(Reason("shutdown", "drained")),
    "error": crash(Boom),
    "exit": crash(SystemExit),
}


@pytest.mark.parametrize(("restart", "end"), TYPES)
def test_restart_types(tree: StartTree, restart: Any, end: str) -> None:
    """OTP's table: who is started again after which end, who is kept, who is forgotten."""
    root = tree([lab("a", restart=restart), lab("b")])
    _end(root, "a", ENDS[end])
    found = "restarted" if "a" in ids(root) else NO_PID if "a" in known(root) else "forgotten"
    assert found == TYPES[restart, end]
    assert "b" in ids(root)


STRATEGIES = {
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
    _end(root, "b", crash())
    assert journal.lines == [("end", "b", "crashed"), *STRATEGIES[strategy]]  # type: ignore[misc]  # from below, or wrong on purpose
    assert ids(root) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_temporary_siblings(tree: StartTree, journal: Journal, strategy: str) -> None:
    """A temporary child that a sibling's end took down never comes back."""
    root = tree([lab("a", journal), lab("b", journal, restart="temporary")], strategy=strategy)
    _end(root, "a", crash())
    assert known(root) == ["a"]


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_siblings_without_pid(tree: StartTree, strategy: str) -> None:
    """A sibling that had ended for good is started again with the others."""
    root = tree([lab("a"), lab("b", restart="transient"), lab("c")], strategy=strategy)
    _end(root, "b", _stop(NORMAL))
    root.ref.ask(TerminateChild("c"))
    assert ids(root) == ["a"]
    _end(root, "a", crash())
    assert ids(root) == ["a", "b", "c"]


# Restarts whose start fails


@pytest.mark.parametrize("error", [Boom("init"), SystemExit(1)])
def test_failing_restart_is_tried_again(
    tree: StartTree, journal: Journal, error: BaseException
) -> None:
    """A restart that fails is tried again, without delay, until it succeeds."""
    first = [True]
    fail = _fail(2, error)

    def init(me: Lab) -> None:
        if first:
            first.pop()
        else:
            fail(me)

    root = tree([lab("a", journal, hooks=Hooks(init=init)), lab("b", journal)])
    _end(root, "a", crash())
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
    hooks = Hooks(init=_after_first(1))
    root = tree(
        [lab("a", journal), lab("b", journal, hooks=hooks), lab("c", journal)], strategy=strategy
    )
    journal.clear()
    _end(root, "a", crash())
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
    _end(root, "a", crash())
    assert ids(root) == []
    assert known(root) == ["a"]


# By hand


def test_start_child(tree: StartTree, journal: Journal) -> None:
    """A child added comes last, is watched like the others, and ends first."""
    root = tree([lab("a", journal)])
    ref = root.ref.ask(StartChild(lab("b", journal)))
    assert root.whereis("b") is ref
    _end(root, "b", crash())
    assert ids(root) == ["a", "b"]
    journal.clear()
    root.stop()
    assert [tag for _, tag, _ in journal.lines] == ["b", "a"]


def test_start_child_refused(tree: StartTree) -> None:
    """An id twice, a start that fails and what is no spec are the asker's errors, nobody else's."""
    root = tree([lab("a")])
    with pytest.raises(ValueError, match="has a child 'a' already"):
        root.ref.ask(StartChild(lab("a", name="other")))
    with pytest.raises(StartFailed):
        root.ref.ask(StartChild(lab("b", hooks=Hooks(init=_fail(1)))))
    with pytest.raises(StartFailed, match="is taken by"):
        root.ref.ask(StartChild(lab("b", name="a")))
    with pytest.raises(TypeError, match="expected a ChildSpec"):
        root.ref.ask(StartChild("b"))  # type: ignore[arg-type]  # the fault to be found
    with pytest.raises(TypeError, match="unhashable"):
        root.ref.ask(TerminateChild([]))  # type: ignore[arg-type]  # the fault to be found
    assert known(root) == ["a"]
    assert root.tree().restarts == 0


def test_terminate_and_restart_child(tree: StartTree, journal: Journal) -> None:
    """A child ended by hand stays down, whatever its type, until it is started by hand."""
    root = tree([lab("a", journal), lab("b", journal)])
    root.ref.ask(TerminateChild("a"))
    root.ref.ask(TerminateChild("a"))
    assert ids(root) == ["b"]
    assert journal.lines[-1] == ("end", "a", "shutdown")
    with pytest.raises(UnknownChild, match="is running"):
        root.ref.ask(RestartChild("b"))
    assert root.ref.ask(RestartChild("a")) is root.whereis("a")
    assert ids(root) == ["a", "b"]
    assert root.tree().recent_restarts == 0


def test_restart_child_that_fails(tree: StartTree) -> None:
    """A start by hand that fails is the asker's error; the child stays down."""
    root = tree([lab("a", hooks=Hooks(init=_after_first(1)))])
    root.ref.ask(TerminateChild("a"))
    with pytest.raises(StartFailed):
        root.ref.ask(RestartChild("a"))
    assert ids(root) == []
    root.ref.ask(RestartChild("a"))
    assert ids(root) == ["a"]


def test_delete_child(tree: StartTree) -> None:
    """Only a child that is down can be forgotten; its id is free then."""
    root = tree([lab("a")])
    with pytest.raises(UnknownChild, match="is running"):
        root.ref.ask(DeleteChild("a"))
    root.ref.ask(TerminateChild("a"))
    root.ref.ask(DeleteChild("a"))
    assert known(root) == []
    root.ref.ask(StartChild(lab("a")))
    assert ids(root) == ["a"]


def test_terminated_temporary_child(tree: StartTree) -> None:
    """A temporary child ended by hand is forgotten."""
    root = tree([lab("a", restart="temporary")])
    root.ref.ask(TerminateChild("a"))
    assert known(root) == []


@pytest.mark.parametrize("request_", [TerminateChild, RestartChild, DeleteChild])
def test_unknown_child(tree: StartTree, request_: Any) -> None:
    """An id that the supervisor does not know is the asker's error."""
    root = tree([])
    with pytest.raises(UnknownChild, match="has no child 'x'"):
        root.ref.ask(request_("x"))
    assert issubclass(UnknownChild, LookupError)


def test_exit_of_a_stranger(tree: StartTree) -> None:
    """An exit that belongs to no present child is nothing to a supervisor."""
    root, stranger = tree([lab("a")]), Lab.start()
    root.ref.tell(ChildExit(stranger, Reason("crashed")))
    stranger.stop()
    assert ids(root) == ["a"]
    assert root.tree().children[0].restarts == 0


def test_unknown_question_ends_a_supervisor(tree: StartTree, journal: Journal) -> None:
    """Asking a supervisor what it does not know is a bug: it ends, its children in order."""
    root = tree([lab("a", journal)])
    with pytest.raises(ServerCrashed):
        root.ref.ask("what")
    assert journal.lines[-1] == ("end", "a", "shutdown")
    assert root.reason is not None
    assert root.reason.kind == "crashed"


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "all_for_one"}, "expected strategy to be one of"),
        ({"max_restarts": -1}, "expected max_restarts of zero or more"),
        ({"max_seconds": 0}, "max_seconds of more than zero"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    """A wrong option is refused before anything starts."""
    with pytest.raises(StartFailed) as caught:
        Supervisor.start([], **options)
    assert isinstance(caught.value.reason, ValueError)
    assert message in str(caught.value.reason)


def test_ids_are_unique(journal: Journal) -> None:
    """Two children of one id are refused before any starts."""
    with pytest.raises(StartFailed, match="unique ids"):
        Supervisor.start([lab("a", journal), lab("a", journal, name="b")])
    assert journal.lines == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"restart": "sometimes"}, "expected restart to be one of"),
        ({"shutdown": -1}, "expected shutdown to be zero or more seconds"),
        ({"shutdown": float("nan")}, "expected shutdown to be zero or more seconds"),
        ({"start": None}, "expected start to be callable"),
    ],
)
def test_specs_are_checked(options: dict[str, Any], error: str) -> None:
    """A wrong spec is refused where it is made."""
    spec = Lab.child_spec()
    with pytest.raises((ValueError, TypeError), match=error):
        spec.override(**options)


def test_spec_defaults() -> None:
    """OTP's defaults: permanent, five seconds for workers, without limit for supervisors."""
    assert (Lab.child_spec().id, Lab.child_spec().restart) == ("Lab", "permanent")
    assert Lab.child_spec().shutdown == 5.0
    assert Lab.child_spec(name=("producer", "x")).id == ("producer", "x")
    assert Lab.child_spec(id=0).id == 0
    assert Supervisor.child_spec().shutdown is None
    assert Lab.child_spec().override(id="b", shutdown=1).shutdown == 1
