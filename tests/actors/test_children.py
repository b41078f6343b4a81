"""Children added, ended, started again and forgotten by hand, and what a spec may be."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from oban_actors.actors import (
    ChildExit,
    ChildSpec,
    DeleteChild,
    Reason,
    RestartChild,
    ServerCrashed,
    StartChild,
    StartFailed,
    Supervisor,
    TerminateChild,
    UnknownChild,
)
from tests.actors.conftest import StartTree
from tests.actors.lab import (
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
)


def test_start_child(tree: StartTree, journal: Journal) -> None:
    """A child added comes last, is watched like the others, and ends first."""
    root = tree([lab("a", journal)])
    ref = root.ref.ask(StartChild(lab("b", journal)))
    assert root.whereis("b") is ref
    end_child(root, "b", crash())
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
        root.ref.ask(StartChild(lab("b", hooks=Hooks(init=failing(1)))))
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
    root = tree([lab("a", hooks=Hooks(init=failing_again(1)))])
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
        ({"type": "queue"}, "expected type to be one of"),
    ],
)
def test_specs_are_checked(options: dict[str, Any], error: str) -> None:
    """A wrong spec is refused where it is made."""
    spec = Lab.child_spec()
    with pytest.raises((ValueError, TypeError), match=error):
        spec.override(**options)


def test_specs_cannot_change() -> None:
    """A spec is what it was when it was checked."""
    with pytest.raises(FrozenInstanceError):
        Lab.child_spec().id = "other"  # type: ignore[misc]  # the fault to be found


def test_defaults_by_type() -> None:
    """A spec made by hand has the defaults of its type, and a class knows its type."""
    worker = ChildSpec("a", _never)
    assert (worker.restart, worker.shutdown, worker.type) == ("permanent", 5.0, "worker")
    supervisor = ChildSpec("a", _never, type="supervisor")
    assert (supervisor.restart, supervisor.shutdown) == ("permanent", None)
    assert ChildSpec("a", _never, shutdown=None).shutdown is None
    assert ChildSpec("a", _never, shutdown=0, type="supervisor").shutdown == 0
    assert worker.override(id="b").shutdown == 5.0
    assert Lab.child_spec().type == "worker"
    assert Supervisor.child_spec().type == "supervisor"
    assert Supervisor.child_spec(shutdown=1).shutdown == 1


def _never(_: object) -> Any:
    raise AssertionError


def test_spec_defaults() -> None:
    """OTP's defaults: permanent, five seconds for workers, without limit for supervisors."""
    assert (Lab.child_spec().id, Lab.child_spec().restart) == ("Lab", "permanent")
    assert Lab.child_spec().shutdown == 5.0
    assert Lab.child_spec(name=("producer", "x")).id == ("producer", "x")
    assert Lab.child_spec(id=0).id == 0
    assert Supervisor.child_spec().shutdown is None
    assert Lab.child_spec().override(id="b", shutdown=1).shutdown == 1
