"""What a host holds of a tree, and what a root that gives up means to it."""

import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pykka
import pytest

from oban_actors.actors import (
    NORMAL,
    SHUTDOWN,
    CallTimeout,
    Exit,
    NoProcess,
    Reason,
    Root,
    Runtime,
    StartFailed,
    Supervisor,
    Timers,
    VirtualClock,
)
from oban_actors.actors import root as roots
from oban_actors.actors.process import process_of
from tests.actors.conftest import StartTree
from tests.actors.lab import Boom, Gate, Hooks, Journal, Lab, Run, crash, lab
from tests.support.waiting import wait_until


def test_exit_gives_up_aloud(
    tree: StartTree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A tree that does not end in time as the interpreter exits is logged, with what still runs."""
    gate = Gate()
    root = tree([lab("a", hooks=Hooks(ends=gate), shutdown=None)])
    monkeypatch.setattr(roots, "EXIT_TIMEOUT", 0.0)
    root._stop_at_exit()
    gate.wait()
    gate.open()
    assert root.wait(60) == SHUTDOWN
    (line,) = caplog.messages
    assert line.startswith("Supervisor did not end within 0 seconds and is given up")
    assert "a " in line.splitlines()[-1]


def test_context_manager(journal: Journal) -> None:
    """`with` gives the handle, and ends the tree in order, also after an error."""
    with Supervisor.start([lab("a", journal)]) as root:
        assert root.alive
        assert root.reason is None
        assert root.ask("a", "hello") == "hello"
    assert not root.alive
    assert root.reason == SHUTDOWN
    assert journal.lines == [("start", "a"), ("end", "a", "shutdown")]
    with pytest.raises(Boom), Supervisor.start([lab("a")]) as root:
        raise Boom
    assert not root.alive


def test_stop_is_done_when_it_returns(tree: StartTree) -> None:
    """After `stop` all threads of the tree have ended; a second one changes nothing."""
    ends: list[Reason] = []
    root = tree([lab("a"), lab("b")], on_exit=ends.append)
    root.runtime.timers.send_after("a", "tick", 3600)
    assert root.stop() == SHUTDOWN
    assert ends == [SHUTDOWN]
    assert not [one for one in threading.enumerate() if one.name.startswith("oban-")]
    assert root.stop() == SHUTDOWN
    assert root.wait() == SHUTDOWN


def test_stop_in_vain(tree: StartTree) -> None:
    """A stop has a time-out; the tree goes on ending, and can be waited for."""
    gate = Gate()
    root = tree([lab("a", hooks=Hooks(ends=gate), shutdown=None)])
    with pytest.raises(CallTimeout, match="Supervisor did not answer Exit"):
        root.stop(0.01)
    assert root.wait(0) is None
    gate.open()
    assert root.wait(30) == SHUTDOWN


def test_root_that_gives_up(tree: StartTree) -> None:
    """It ends with shutdown: `wait` says so, `alive` is false, `on_exit` is called, no more."""
    ends: list[tuple[Reason, bool]] = []
    called = threading.Event()

    def on_exit(reason: Reason) -> None:
        ends.append((reason, root.alive))
        called.set()

    root = tree([lab("a")], max_restarts=0, on_exit=on_exit)
    root.tell("a", crash())
    assert root.wait(30) == SHUTDOWN
    assert called.wait(30)
    assert ends == [(SHUTDOWN, False)]
    assert not root.alive
    with pytest.raises(NoProcess):
        root.ask("a", "hello")
    assert root.tell("a", "hello") is False


@pytest.mark.parametrize("error", [Boom(), SystemExit(1)])
def test_failing_on_exit(
    tree: StartTree, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the callback is logged; the tree has ended all the same."""

    def on_exit(_: Reason) -> None:
        raise error

    root = tree([lab("a")], on_exit=on_exit)
    assert root.stop() == SHUTDOWN
    assert "what was to be called at the end of Supervisor failed" in caplog.messages


def test_on_exit_of_a_root_that_is_gone(tree: StartTree) -> None:
    """A root that ended before its handle was made still calls back, once."""
    ends: list[Reason] = []

    def stop(me: Lab) -> None:
        parent = process_of(me.actor_ref).parent
        assert parent is not None
        assert parent.ref is not None
        parent.ref.tell(Exit(NORMAL))

    root = tree([lab("a", hooks=Hooks(init=stop))], on_exit=ends.append)
    root.wait(30)
    wait_until(lambda: ends)
    assert ends == [NORMAL]


def test_handle_on_a_root_that_has_ended() -> None:
    """Who gets its handle only then is called back at once."""
    runtime, ends = Runtime(), list[Reason]()
    ref = Supervisor.start_link(runtime=runtime)
    ref.stop()
    assert Root(ref, runtime, ends.append, owns_runtime=False).wait() == NORMAL
    assert ends == [NORMAL]


def test_crash_of_the_root_itself(tree: StartTree, journal: Journal) -> None:
    """A root with a bug ends its children in order and says what happened."""

    class Bad(Supervisor):
        def handle_info(self, message: Any) -> None:
            if message == "bug":
                raise Boom("in the root")
            super().handle_info(message)

    root = Bad.start([lab("a", journal)])
    root.ref.tell("bug")
    reason = root.wait(30)
    assert str(reason) == "crashed: Boom('in the root')"
    assert journal.lines[-1] == ("end", "a", "shutdown")


def test_root_stopped_from_within(tree: StartTree, journal: Journal) -> None:
    """A member of the tree may tell its root to end."""
    root = tree([lab("a", journal), lab("b", journal)], name="root")
    root.tell("a", Run(lambda me: me.tell("root", Exit())))
    assert root.wait(30) == SHUTDOWN
    assert journal.about("end") == [("end", "b", "shutdown"), ("end", "a", "shutdown")]


def test_failing_start_leaves_nothing(journal: Journal) -> None:
    """A tree that does not start leaves no thread, no actor, no name and no timers behind."""
    clock = VirtualClock()

    def fail(me: Lab) -> None:
        me.send_after("tick", 1)
        raise Boom

    with pytest.raises(StartFailed):
        Supervisor.start([lab("a", journal), lab("b", hooks=Hooks(init=fail))], clock=clock)
    assert pykka.ActorRegistry.get_all() == []
    assert clock._sources == []


def test_shared_runtime(tree: StartTree, clock: VirtualClock) -> None:
    """A runtime that is given is used, and outlives the tree."""
    runtime = Runtime(clock)
    root = tree([lab("a")], runtime=runtime, name="root")
    assert root.runtime is runtime
    assert runtime.registry.whereis("root") is root.ref
    root.stop()
    again = tree([lab("a")], runtime=runtime, name="root")
    again.runtime.timers.send_after("a", "tick", 1)
    clock.advance(2)
    assert again.ask("a", "sync") == "sync"
    runtime.close()
    assert isinstance(runtime.timers, Timers)


@pytest.mark.parametrize("wait", ["ask", "wait", "stop"])
def test_signals_are_handled_meanwhile(tree: StartTree, wait: str) -> None:
    """A host that waits for its tree handles a signal at once: Ctrl-C is not put off."""
    gate = Gate()

    def handled() -> bool:
        # Again and again: one that comes just before a thread blocks does not wake it.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        return gate.opened.is_set()

    def interrupt(*_: object) -> None:
        wait_until(handled)

    root = tree([lab("a", hooks=Hooks(ends=interrupt), shutdown=None)])
    before = signal.signal(signal.SIGUSR1, gate.open)
    try:
        if wait == "ask":
            root.ask("a", Run(interrupt), 60)
        elif wait == "wait":
            root.ref.tell(Exit())
            assert root.wait(60) == SHUTDOWN
        else:
            assert root.stop(60) == SHUTDOWN
    finally:
        gate.open()
        root.stop(60)
        signal.signal(signal.SIGUSR1, before)


def test_nested_roots(tree: StartTree) -> None:
    """An actor may start a tree of its own; the outer tree knows nothing of it."""
    outer = tree([lab("a")])
    inner = outer.ask("a", Run(lambda _: Supervisor.start([lab("a")])))
    assert inner.ask("a", Run(lambda me: me.tag)) == "a"
    assert [node.id for node in outer.tree().walk()] == ["Supervisor", "a"]
    inner.stop()
    assert outer.ask("a", "still here") == "still here"


def test_members_can_be_found(tree: StartTree) -> None:
    """`whereis`, `ask` and `tell` go by name."""
    root = tree([lab("a")], name="root")
    ref = root.whereis("a")
    assert ref is not None
    assert ref.ask("x") == root.ask("a", "x", timeout=5) == "x"
    assert root.whereis("nobody") is None


def _run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SAYING = """
    import sys
    from oban_actors.actors import GenServer, Supervisor

    class Saying(GenServer):
        def __init__(self, word):
            super().__init__()
            self.word = word

        def init(self):
            self.send_after("tick", 3600)

        def handle_call(self, message, sender):
            return message

        def terminate(self, reason):
            print(self.word, reason, flush=True)
"""


def test_host_that_never_stops_still_exits() -> None:
    """A program that forgets its tree ends, and the tree before it, in order."""
    script = """
    root = Supervisor.start([Saying.child_spec(word, id=word, name=word) for word in "abc"])
    print(root.ask("a", "hello"))
    """
    assert _run(SAYING + script).split("\n") == [
        "hello",
        "c shutdown",
        "b shutdown",
        "a shutdown",
        "",
    ]


def test_host_that_exits_with_a_stuck_child() -> None:
    """Nor does a child that never ends keep its program from ending."""
    script = """
    import logging, threading
    logging.disable()
    class Stuck(Saying):
        def handle_info(self, message):
            threading.Event().wait()
    root = Supervisor.start([
        Saying.child_spec("a", id="a"), Stuck.child_spec("b", name="b", shutdown=0.01),
    ])
    root.tell("b", "hang")
    """
    assert _run(SAYING + script) == "a shutdown\n"


def test_fork() -> None:
    """A forked child has no actors: it hears so at once, stops nothing, may build its own tree."""
    script = """
    import os, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from oban_actors.actors import NoProcess
    from oban_actors.actors.process import process_of

    root = Supervisor.start([Saying.child_spec("a", name="a")])
    ref = root.whereis("a")
    process_of(ref).lock.acquire()
    if os.fork() == 0:
        try:
            ref.ask("hello", timeout=60)
        except NoProcess:
            print("child: no process")
        print("child:", root.alive, root.whereis("a"), root.tell("a", 1), root.reason)
        print("child:", root.stop(), root.wait())
        print("child:", root.tree().state)
        with Supervisor.start([Saying.child_spec("own", name="a")]) as own:
            print("child:", own.ask("a", "own tree"))
        sys.stdout.flush()
        sys.exit()
    os.wait()
    process_of(ref).lock.release()
    print("parent:", root.alive, root.ask("a", "hello"))
    """
    forked = "noproc: 'its thread did not survive the fork of its program'"
    assert _run(SAYING + script).split("\n") == [
        "child: no process",
        f"child: False None False {forked}",
        f"child: {forked} {forked}",
        "child: exited",
        "child: own tree",
        "own shutdown",
        "parent: True hello",
        "a shutdown",
        "",
    ]
