"""Cycles of waiting: found at once, named, and never seen where there is none."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from oban_actors.actors import (
    NORMAL,
    CallTimeout,
    Deadlock,
    Reason,
    Root,
    ServerCrashed,
    StartChild,
    StartFailed,
    Supervisor,
    TerminateChild,
    WhichChildren,
)
from oban_actors.actors.process import CURRENT, process_of
from oban_actors.actors.reply import Reply
from tests.actors.conftest import StartTree
from tests.actors.lab import Gate, Hooks, Journal, Lab, Run, gone, lab
from tests.support.waiting import wait_until

LONG = 60.0


def _relay(*names: str, last: Any = "end") -> Run:
    """A message that each of the named actors passes on to the next by asking it."""
    message: Any = last
    for name in reversed(names):
        message = Run(_asking(name, message))
    assert isinstance(message, Run)
    return message


def _asking(name: str, message: Any) -> Callable[[Lab], Any]:
    return lambda me: me.ask(name, message, LONG)


def _path(error: BaseException | None) -> list[str]:
    while error is not None and not isinstance(error, Deadlock):
        error = error.__cause__
    assert isinstance(error, Deadlock)
    assert " -> ".join(error.path) in str(error)
    return error.path


@pytest.mark.parametrize(
    ("calls", "path"),
    [
        (["a"], ["a", "a"]),
        (["b", "a"], ["b", "a", "b"]),
        (["b", "c", "d", "a"], ["d", "a", "b", "c", "d"]),
        (["b", "c", "b"], ["c", "b", "c"]),
    ],
)
def test_cycle_is_refused(tree: StartTree, calls: list[str], path: list[str]) -> None:
    """An ask that closes a circle fails at once, naming the way round."""
    root = tree([lab(name) for name in "abcd"], max_restarts=9)
    with pytest.raises(ServerCrashed) as caught:
        root.ask("a", _relay(*calls), LONG)
    assert _path(caught.value) == path


def test_caught_deadlock_frees_all(tree: StartTree) -> None:
    """Who catches the error lives on, and all others get their answers."""
    root = tree([lab("a"), lab("b")])

    def careful(me: Lab) -> str:
        with pytest.raises(Deadlock):
            me.ask("a", "hello", LONG)
        return "refused"

    assert root.ask("a", Run(_asking("b", Run(careful))), LONG) == "refused"
    assert [process_of(root.whereis(name)).waiting for name in "ab"] == [None, None]  # type: ignore[arg-type]  # both run


def test_chain_is_no_cycle(tree: StartTree) -> None:
    """A long chain of calls ends in an answer."""
    root = tree([lab(name) for name in "abcdefgh"])
    assert root.ask("a", _relay(*"bcdefgh", last="deep"), LONG) == "deep"


def test_answered_wait_is_no_cycle(tree: StartTree) -> None:
    """Asking back right after the answer is fine, though the first asker has not woken yet.

    The asker is marked as waiting until its thread runs again; by then the actor that answered
    may ask it in turn.
    """
    before = sys.getswitchinterval()
    root = tree([lab("a"), lab("b")])
    rounds = 2_000
    asked_back = threading.Semaphore(0)

    def back(me: Lab) -> None:
        assert me.ask("a", "back", LONG) == "back"
        asked_back.release()

    def there(me: Lab) -> None:
        future = me.ask("b", Run(lambda b: b.actor_ref.tell(Run(back)) or "there"), LONG)
        assert future == "there"

    sys.setswitchinterval(1e-5)
    try:
        for _ in range(rounds):
            root.ask("a", Run(there), LONG)
            assert asked_back.acquire(timeout=30)
    finally:
        sys.setswitchinterval(before)
    assert [node.restarts for node in root.tree().children] == [0, 0]


def test_wait_that_is_over_is_no_cycle(tree: StartTree) -> None:
    """The same, without luck: the first asker is held between its answer and its waking."""
    root = tree([lab("a"), lab("b")])
    a, b = root.whereis("a"), root.whereis("b")
    assert a is not None
    assert b is not None
    answered = Reply()
    answered.target = process_of(b)
    answered.set("there")
    process_of(a).waiting = answered
    assert root.ask("b", Run(_asking("a", "hello"))) == "hello"
    process_of(a).waiting = None


def test_cycle_that_dissolves_while_it_is_looked_at(tree: StartTree) -> None:
    """Waits that were never there at one time are no circle."""
    root = tree([lab("a"), lab("b")])
    a, b = root.whereis("a"), root.whereis("b")
    assert a is not None
    assert b is not None

    waited = process_of(b)

    class Ending:
        """A wait that is over when it is looked at again."""

        target = waited
        looks = iter([False, True])

        def over(self) -> bool:
            """Whether it is over."""
            return next(self.looks)

        def fail(self, error: BaseException) -> bool:
            """Nobody is to be refused."""
            raise AssertionError(error)

    process_of(a).waiting = Ending()
    assert root.ask("b", Run(_asking("a", "hello"))) == "hello"
    process_of(a).waiting = None


def test_others_cycle(tree: StartTree) -> None:
    """Who asks one of a circle that it is no part of is neither refused nor goes round for ever."""
    root = tree([lab("a"), lab("b"), lab("c")])
    a, b = (process_of(root.whereis(name)) for name in "ab")  # type: ignore[arg-type]  # they live
    for one, other in ((a, b), (b, a)):
        one.waiting = wait = Reply()
        wait.target = other
    assert root.ask("c", Run(_asking("a", "hello"))) == "hello"
    a.waiting = b.waiting = None


def test_two_who_ask_each_other(tree: StartTree) -> None:
    """When two ask each other at one time, one at least is refused, and neither waits."""
    root = tree([lab("a"), lab("b")], max_restarts=10**6)
    barrier = threading.Barrier(2)

    def both(other: str) -> Callable[[Lab], None]:
        def do(me: Lab) -> None:
            barrier.wait(30)
            me.ask(other, "hello", LONG)

        return do

    for _ in range(50):
        wait_until(lambda: root.whereis("a") and root.whereis("b"))
        futures = [
            root.whereis(one).ask(Run(both(other)), block=False) for one, other in ("ab", "ba")
        ]
        errors = []
        for future in futures:
            try:
                future.get(timeout=LONG / 2)
            except ServerCrashed as error:
                errors.append(error)
        assert errors
        assert any(_is_deadlock(error) for error in errors)


def _is_deadlock(error: BaseException) -> bool:
    return isinstance(error.__cause__, Deadlock)


def test_child_that_asks_its_supervisor_in_init(tree: StartTree) -> None:
    """A child can't ask who waits for it to start; the start fails, saying so."""

    def ask_up(me: Lab) -> None:
        parent = process_of(me.actor_ref).parent
        assert parent is not None
        assert parent.ref is not None
        me.ask(parent.ref, WhichChildren(), LONG)

    with pytest.raises(StartFailed) as caught:
        tree([lab("a", hooks=Hooks(init=ask_up))], name="root")
    assert _path(caught.value) == ["a", "root", "a"]
    root = tree([])
    with pytest.raises(StartFailed) as added:
        root.ref.ask(StartChild(lab("a", hooks=Hooks(init=ask_up))))
    assert _path(added.value) == ["a", "Supervisor", "a"]


def test_wait_for_a_start_stands_before_it_begins(tree: StartTree) -> None:
    """Or a child could ask its supervisor unseen, and the supervisor be refused in its place."""
    marked: list[bool] = []

    class Marked(Lab):
        def _start_actor_loop(self) -> None:
            starter = CURRENT.process
            assert starter is not None
            waiting = starter.waiting
            marked.append(waiting is not None and waiting.target is self._process)
            super()._start_actor_loop()

    tree([Marked.child_spec()])
    assert marked == [True]


def test_child_that_asks_its_supervisor_in_terminate(tree: StartTree, journal: Journal) -> None:
    """A child can't ask who waits for it to end; it does not use up its shutdown time over it."""

    def ask_up(me: Lab, _: Reason) -> None:
        try:
            me.ask("root", WhichChildren(), LONG)
        except Deadlock as error:
            me.journal("path", *error.path)
            raise

    root = tree([lab("a", journal, hooks=Hooks(ends=ask_up), shutdown=LONG)], name="root")
    root.ref.ask(TerminateChild("a"))
    assert journal.lines[-1] == ("path", "a", "root", "a")


def test_child_that_has_asked_already(tree: StartTree, journal: Journal) -> None:
    """A question to a supervisor that turns to ending the asker is refused, not waited for."""
    root = tree([lab("a", journal, shutdown=LONG), lab("b", shutdown=LONG)], name="root")
    gate = Gate()
    b = root.whereis("b")
    assert b is not None

    def ask_up(me: Lab) -> None:
        gate()
        try:
            me.ask("root", WhichChildren(), LONG)
        except Deadlock as error:
            me.journal("path", *error.path)

    # Ending `b` is what the supervisor does until `a` has asked it.
    b.tell(Run(lambda _: (gate.wait(), wait_until(lambda: _waits(root, "a")))))
    root.tell("a", Run(ask_up))
    ends = [root.ref.ask(TerminateChild(id_), block=False) for id_ in "ba"]
    gate.open()
    for end in ends:
        end.get(timeout=LONG)
    assert ("path", "a", "root", "a") in journal.lines


def _waits(root: Root, name: str) -> bool:
    ref = root.whereis(name)
    return ref is not None and process_of(ref).state() == "waiting"


def test_cycle_over_a_supervisor(tree: StartTree) -> None:
    """Waiting for a child's start or end is part of the way round."""
    root = tree([lab("helper")], name="root")

    def ask_helper(me: Lab) -> None:
        me.ask("helper", Run(_asking("root", WhichChildren())), LONG)

    with pytest.raises(StartFailed) as caught:
        root.ref.ask(StartChild(lab("a", hooks=Hooks(init=ask_helper))))
    assert _path(caught.value.__cause__) == ["helper", "root", "a", "helper"]


def test_member_cannot_wait_for_its_trees_end(tree: StartTree, journal: Journal) -> None:
    """An actor that stops its own tree, or waits for its end without limit, is refused at once."""
    roots: list[Root] = []

    def end_all(me: Lab) -> None:
        for attempt in (roots[0].stop, roots[0].wait, roots[0].ref.stop):
            try:
                attempt()
            except Deadlock as error:
                me.journal("path", *error.path)
        assert roots[0].wait(0) is None

    inner = Supervisor.child_spec([lab("a", journal, shutdown=LONG)], id="inner", name="inner")
    roots.append(tree([inner], name="root"))
    roots[0].ask("a", Run(lambda me: me.actor_ref.tell(Run(end_all))))
    assert roots[0].wait(LONG) == NORMAL
    assert journal.about("path") == [
        ("path", "a", "inner", "root", "a"),
        ("path", "a", "inner", "root", "a"),
        ("path", "a", "root", "inner", "a"),
    ]


def test_time_out_ends_the_wait(tree: StartTree) -> None:
    """Who gave up waiting is waited for again without a circle being seen."""
    root = tree([lab("a"), lab("b")])
    gate = Gate()

    def impatient(me: Lab) -> None:
        with pytest.raises(CallTimeout):
            me.ask("b", Run(gate), 0.001)

    root.ask("a", Run(impatient), LONG)
    b = root.whereis("b")
    assert b is not None
    future = b.ask(Run(_asking("a", "hello")), block=False)
    gate.open()
    assert future.get(timeout=LONG) == "hello"


def test_outsiders_are_not_watched(tree: StartTree) -> None:
    """A host's own thread that waits belongs to no circle."""
    root = tree([lab("a")])
    lone = Lab.start()
    assert root.ask("a", Run(lambda me: me.ask(lone, "hi", LONG))) == "hi"
    lone.stop()
    gone(lone)
