"""Kills: nothing more is handled, from which moment on, and who is killed along."""

import logging
from typing import Any

import pytest

from oban_actors.actors import (
    KILLED,
    Continue,
    Exit,
    NoProcess,
    StartChild,
    StartFailed,
    Supervisor,
    TerminateChild,
    lifecycle,
)
from oban_actors.actors.process import CURRENT, process_of
from tests.actors.conftest import StartTree
from tests.actors.lab import Boom, Gate, Hooks, Journal, Lab, Run, gone, ids, lab, spy_on_inbox


def test_killed_before_it_runs(journal: Journal) -> None:
    """An actor that is killed before its thread runs does not begin, and its start has failed."""

    class Late(Lab):
        def _start_actor_loop(self) -> None:
            self._process.killed = True
            super()._start_actor_loop()

    with pytest.raises(StartFailed) as caught:
        Late.start("late", journal)
    assert caught.value.reason == KILLED
    assert journal.lines == []


def test_killed_while_it_starts(tree: StartTree) -> None:
    """Nor does a supervisor take a child for running that was killed in its `init`."""
    root = tree([])

    def kill(me: Lab) -> None:
        process_of(me.actor_ref).killed = True

    with pytest.raises(StartFailed):
        root.ref.ask(StartChild(lab("a", hooks=Hooks(init=kill))))
    assert ids(root) == []


def test_asking_a_killed_actor() -> None:
    """What comes to an actor that is to handle nothing more was not handled, and says so."""
    ref = Lab.start()
    process_of(ref).killed = True
    with pytest.raises(NoProcess):
        ref.ask("late", timeout=60)
    assert gone(ref).exit_reason == KILLED


def test_brutal_kill_asks_nothing(
    tree: StartTree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child to be killed gets no request that it might begin to act on, and no time."""
    root, gate = (
        tree([lab("a", journal, hooks=Hooks(killed=lambda _: gate.open()), shutdown=0)]),
        Gate(),
    )
    a = root.whereis("a")
    assert a is not None
    requests = spy_on_inbox(monkeypatch, a, Exit)
    monkeypatch.setattr(lifecycle, "await_event", lambda *_: journal("waits"))
    a.tell(Run(gate))
    gate.wait()
    a.tell("behind")
    root.ref.ask(TerminateChild("a"))
    assert gone(a).exit_reason == KILLED
    assert requests == []
    assert journal.lines == [("start", "a"), ("kill", "a")]


def test_nothing_more_once_it_is_freed(tree: StartTree, journal: Journal) -> None:
    """An actor freed by `on_kill` ends while that still runs: it takes no further message."""
    gate, ended = Gate(), list[bool]()

    def free(me: Lab) -> None:
        gate.open()
        ended.append(process_of(me.actor_ref).exited.wait(30))

    root = tree([lab("a", journal, hooks=Hooks(killed=free), shutdown=0.001)])
    a = root.whereis("a")
    assert a is not None
    a.tell(Run(gate))
    gate.wait()
    a.tell("behind")
    root.ref.ask(TerminateChild("a"), timeout=60)
    assert ended == [True]
    assert journal.lines == [("start", "a"), ("kill", "a")]


def test_wait_for_an_end_stands_throughout(tree: StartTree) -> None:
    """What `on_kill` asks or starts does not hide that its supervisor waits for the killed one."""
    stands: list[bool] = []

    def free(me: Lab) -> None:
        Lab.start().stop()
        supervisor = CURRENT.process
        assert supervisor is not None
        waiting = supervisor.waiting
        stands.append(waiting is not None and waiting.target is process_of(me.actor_ref))

    root = tree([lab("a", hooks=Hooks(killed=free), shutdown=0)])
    root.ref.ask(TerminateChild("a"))
    assert stands == [True]


def test_no_more_work_is_done(tree: StartTree, journal: Journal) -> None:
    """What a handler puts off when its time is over is not done."""
    gate = Gate()
    root = tree([lab("a", journal, hooks=Hooks(killed=gate.open), shutdown=0.001)])
    a = root.whereis("a")
    assert a is not None
    a.tell(Run(lambda _: (gate(), Continue("more"))[1]))
    gate.wait()
    root.ref.ask(TerminateChild("a"), timeout=60)
    assert gone(a).exit_reason == KILLED
    assert journal.lines == [("start", "a"), ("kill", "a")]


def test_last_words_of_the_abandoned(
    tree: StartTree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What an actor crashes with after it was abandoned is nobody's error any more."""
    monkeypatch.setattr(lifecycle.kill, "__defaults__", (0.01,))
    gate, root = Gate(), tree([lab("a", shutdown=0.001)])
    a = root.whereis("a")
    assert a is not None

    def late(_: Lab) -> None:
        gate()
        raise Boom("too late")

    a.tell(Run(late))
    gate.wait()
    root.ref.ask(TerminateChild("a"), timeout=60)
    assert root.runtime.abandoned == 1
    caplog.clear()
    with caplog.at_level(logging.INFO):
        gate.open()
        assert gone(a).exit_reason == KILLED
    assert caplog.messages == []


def test_who_is_starting_is_killed_first(tree: StartTree, journal: Journal) -> None:
    """A supervisor killed while a child's `init` blocks frees that one first."""
    gate = Gate()
    starting = lab("b", journal, hooks=Hooks(init=gate, killed=gate.open))
    inner = Supervisor.child_spec([lab("a", journal), starting], id="inner")
    root = tree([])
    added = root.ref.ask(StartChild(inner), block=False)
    gate.wait()
    a = root.whereis("a")
    assert a is not None
    supervisor = process_of(a).parent
    assert supervisor is not None
    lifecycle.kill(supervisor)
    with pytest.raises(StartFailed):
        added.get(timeout=60)
    gone(a)
    assert journal.about("kill", "end")[0] == ("kill", "b")
    assert ids(root) == []


def test_log_names_who_was_late(tree: StartTree, caplog: pytest.LogCaptureFixture) -> None:
    """Of a supervisor whose time is over it says so, and not of the children it takes along."""
    gate = Gate()
    slow = lab("b", hooks=Hooks(ends=gate, killed=gate.open), shutdown=60)
    inner = Supervisor.child_spec([lab("a"), slow], id="inner", name="inner", shutdown=0.2)
    root = tree([inner])
    refs = [root.whereis(name) for name in ("b", "inner")]
    root.ref.ask(TerminateChild("inner"), timeout=60)
    assert [gone(ref).exit_reason for ref in refs] == [KILLED, KILLED]
    assert caplog.messages == ["child inner did not end within 0.2 seconds"]


def test_log_names_who_was_killed_by_others(
    tree: StartTree, caplog: pytest.LogCaptureFixture
) -> None:
    """A child that somebody else killed had its time still: its end is told, and nothing more."""
    gate = Gate()
    root = tree([lab("a", hooks=Hooks(ends=gate, killed=gate.open), shutdown=60)])
    a = root.whereis("a")
    assert a is not None
    ending = root.ref.ask(TerminateChild("a"), block=False)
    gate.wait()
    lifecycle.kill(process_of(a))
    ending.get(timeout=60)
    assert caplog.messages == ["child a ended: killed"]


def test_who_is_asked_is_not_killed(tree: StartTree) -> None:
    """A supervisor that is killed while it waits for an answer takes only its children along."""

    class Asking(Supervisor):
        def handle_info(self, message: Any) -> None:
            if message == "ask":
                self.ask("other", Run(gate), 60)
            super().handle_info(message)

        def on_kill(self) -> None:
            super().on_kill()
            gate.open()

    gate = Gate()
    inner = Asking.child_spec([lab("a")], id="inner", name="inner", shutdown=0)
    root = tree([lab("other"), inner])
    a, other = root.whereis("a"), root.whereis("other")
    root.tell("inner", "ask")
    gate.wait()
    root.ref.ask(TerminateChild("inner"), timeout=60)
    assert gone(a).exit_reason == KILLED
    assert other is not None
    assert other.ask("still there?") == "still there?"
