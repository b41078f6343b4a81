"""Questions: answers, later answers, and the three ways not to get one."""

import asyncio
import queue
import threading
from typing import Any

import pykka
import pytest

from oban_actors.actors import (
    NOREPLY,
    NORMAL,
    CallTimeout,
    Failure,
    NoProcess,
    Reason,
    Root,
    Runtime,
    Sender,
    ServerCrashed,
    Stop,
    reply,
)
from oban_actors.actors.process import process_of
from tests.actors.conftest import StartLab, StartTree
from tests.actors.lab import Boom, Gate, Hooks, Lab, Run, RunWith, crash, gone, lab
from tests.support.waiting import wait_until


def test_answer(start: StartLab) -> None:
    """What `handle_call` returns is the answer, None and False among them."""
    ref = start()
    for value in ("yes", 0, False):
        assert ref.ask(value) is value
    assert ref.ask(Run(lambda _: None)) is None


def test_dead_crashed_and_late_are_different(start: StartLab) -> None:
    """Not handled, died over it, may still happen: each its own error, and pykka's too."""
    gate, ref = Gate(), start()
    with pytest.raises(CallTimeout) as late:
        ref.ask(Run(gate), timeout=0)
    gate.open()
    with pytest.raises(ServerCrashed) as crashed:
        ref.ask(crash())
    with pytest.raises(NoProcess) as dead:
        ref.ask("hello")
    assert issubclass(CallTimeout, TimeoutError | pykka.Timeout)
    assert {pykka.ActorDeadError} == {ServerCrashed.__bases__[1], NoProcess.__bases__[1]}
    assert not isinstance(crashed.value, NoProcess)
    assert not isinstance(dead.value, ServerCrashed)
    assert "Lab did not answer Run within 0 seconds" in str(late.value)
    assert "Lab died while handling Run: crashed: Boom()" in str(crashed.value)
    assert "no process: Lab" in str(dead.value)


def test_errors_name_target_and_message(start: StartLab, tree: StartTree) -> None:
    """Each error carries who was asked, and what."""
    root = tree([lab("b")])
    gate, ref = Gate(), start()
    slow, bad = Run(gate), crash()
    with pytest.raises(CallTimeout) as late:
        ref.ask(slow, timeout=0)
    gate.open()
    assert (str(late.value.target), late.value.message) == ("Lab", slow)
    assert late.value.seconds == 0
    with pytest.raises(ServerCrashed) as crashed:
        ref.ask(bad)
    assert (str(crashed.value.target), crashed.value.message) == ("Lab", bad)
    with pytest.raises(NoProcess) as vacant:
        root.ask("nobody", "hello")
    assert (vacant.value.target, vacant.value.message) == ("nobody", "hello")
    with pytest.raises(ServerCrashed) as dead:
        root.ask("b", Run(lambda me: me.ask(ref, "hello")))
    cause = dead.value.__cause__
    assert isinstance(cause, NoProcess)
    assert (cause.target, cause.message) == (ref, "hello")


def test_default_timeout(start: StartLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """No question waits for ever: without a time-out it is OTP's five seconds."""
    assert reply.CALL_TIMEOUT == 5.0
    monkeypatch.setattr(reply, "CALL_TIMEOUT", 0.01)
    gate, ref = Gate(), start()
    with pytest.raises(CallTimeout) as late:
        ref.ask(Run(gate))
    assert late.value.seconds == 0.01
    gate.open()


def test_default_timeout_of_stop(start: StartLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Being asked to stop, an actor first does all that it was sent, so it has longer."""
    assert reply.STOP_TIMEOUT == 60.0
    monkeypatch.setattr(reply, "STOP_TIMEOUT", 0.01)
    gate, ref = Gate(), start()
    ref.tell(Run(gate))
    with pytest.raises(CallTimeout) as late:
        ref.stop()
    assert late.value.seconds == 0.01
    gate.open()


def test_unlimited_timeout(start: StartLab) -> None:
    """Whoever wants to wait without limit says infinity."""
    assert start().ask("yes", timeout=float("inf")) == "yes"


def test_late_answer_is_dropped(start: StartLab) -> None:
    """After a time-out the message is still handled; its answer goes nowhere, the actor lives."""
    gate, ref, done = Gate(), start(), threading.Event()

    def slow(_: Lab) -> str:
        gate()
        done.set()
        return "late"

    with pytest.raises(CallTimeout):
        ref.ask(Run(slow), timeout=0.001)
    gate.open()
    assert ref.ask("next") == "next"
    assert done.is_set()


def test_failure_answer(start: StartLab) -> None:
    """`Failure` raises in the asker; the actor lives on."""
    ref = start()
    error = KeyError("unknown")
    for _ in range(2):
        with pytest.raises(KeyError) as caught:
            ref.ask(Run(lambda _: Failure(error)))
        assert caught.value is error
    assert ref.is_alive()


def test_stop_with_answer(start: StartLab) -> None:
    """The answer of a `Stop` comes after the actor has ended, its name free."""
    runtime = Runtime()

    def stop(_: Lab) -> None:
        raise Stop(NORMAL, reply="bye")

    ref = start(name="one", runtime=runtime)
    assert ref.ask(Run(stop)) == "bye"
    assert not ref.is_alive()
    assert runtime.registry.names() == {}


@pytest.mark.parametrize("error", [Boom("bug"), SystemExit(2)])
def test_crash_reaches_the_asker_last(error: BaseException, start: StartLab) -> None:
    """Who asks again at once never meets the corpse: the name is free when the error comes."""
    runtime = Runtime()
    for _ in range(50):
        ref = start(name="one", runtime=runtime)
        with pytest.raises(ServerCrashed) as caught:
            ref.ask(crash(error))
        assert caught.value.__cause__ is error
        assert runtime.registry.whereis("one") is None
        assert not ref.is_alive()


def test_waiting_askers_are_refused(start: StartLab) -> None:
    """Questions behind the one that crashes are refused: they were not handled."""
    gate, ref = Gate(), start()
    first = ref.ask(Run(gate), block=False)
    bad = ref.ask(crash(), block=False)
    behind = [ref.ask(number, block=False) for number in range(20)]
    gate.open()
    assert first.get() is None
    for future in behind:
        with pytest.raises(NoProcess):
            future.get()
    with pytest.raises(ServerCrashed):
        bad.get()


def test_later_answer(start: StartLab) -> None:
    """`NOREPLY` now, `reply` later: from another handler, with a value or an error; once."""
    ref = start()
    senders: list[Sender] = []

    def keep(_: Lab, sender: Sender) -> Any:
        senders.append(sender)
        return NOREPLY

    futures = [ref.ask(RunWith(keep), block=False) for _ in range(2)]
    assert ref.ask(Run(lambda me: me.reply(senders[0], "late"))) is True
    assert ref.ask(Run(lambda me: me.reply(senders[0], "twice"))) is False
    assert ref.ask(Run(lambda me: me.reply(senders[1], Failure(Boom("no"))))) is True
    assert futures[0].get() == "late"
    with pytest.raises(Boom, match="no"):
        futures[1].get()
    assert process_of(ref).deferred == set()


def test_answer_before_noreply(start: StartLab) -> None:
    """Another thread may answer before the handler has even returned; nothing is left behind."""
    ref = start()

    def race(me: Lab, sender: Sender) -> Any:
        thread = threading.Thread(target=me.reply, args=(sender, "quick"))
        thread.start()
        thread.join()
        return NOREPLY

    assert ref.ask(RunWith(race)) == "quick"
    ref.ask("sync")
    assert process_of(ref).deferred == set()


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_deferred_askers_are_freed(end: str, start: StartLab) -> None:
    """Who waits for a later answer hears of the end of the actor that owed it."""
    ref = start()
    owed = [ref.ask(RunWith(lambda *_: NOREPLY), block=False) for _ in range(3)]
    ref.ask("sync")
    if end == "stop":
        ref.stop()
    else:
        ref.tell(crash())
    for future in owed:
        with pytest.raises(ServerCrashed):
            future.get()
    assert process_of(ref).deferred == set()


def test_dead_server_cannot_answer(start: StartLab) -> None:
    """An answer after the end counts no more."""
    ref, kept = start(), list[tuple[Lab, Sender]]()

    def keep(me: Lab, sender: Sender) -> Any:
        kept.append((me, sender))
        return NOREPLY

    future = ref.ask(RunWith(keep), block=False)
    ref.stop()
    me, sender = kept[0]
    assert me.reply(sender, "too late") is False
    with pytest.raises(ServerCrashed):
        future.get()


def test_tell_to_nobody(start: StartLab) -> None:
    """Sending to the dead or to a vacant name is no error, as in Erlang; a plain `tell` raises."""
    dead, ref = Lab.start(), start()
    dead.stop()
    assert ref.ask(Run(lambda me: (me.tell(dead, 1), me.tell("nobody", 1)))) == (False, False)
    with pytest.raises(pykka.ActorDeadError):
        dead.tell(1)


def test_ask_by_name_is_resolved_each_time(tree: StartTree) -> None:
    """A name leads to whoever has it now, also after a restart; a kept reference is stale."""
    root: Root = tree([lab("a"), lab("b")])
    before = root.whereis("a")
    assert before is not None
    with pytest.raises(ServerCrashed):
        root.ask("b", Run(lambda me: me.ask("a", crash())))
    wait_until(lambda: root.whereis("b"))
    after = wait_until(lambda: root.whereis("a"))
    assert after is not before
    assert root.ask("b", Run(lambda me: me.ask("a", "hi"))) == "hi"
    with pytest.raises(NoProcess):
        before.ask("hi")
    assert root.tell("a", "hi") is True
    assert root.tell("nobody", "hi") is False


def test_vacant_name_answers_at_once(tree: StartTree) -> None:
    """Asking a name that nobody has does not wait."""
    root = tree([lab("a")])
    with pytest.raises(NoProcess):
        root.ask("nobody", 1, timeout=float("inf"))
    with pytest.raises(ServerCrashed) as caught:
        root.ask("a", Run(lambda me: me.ask("nobody", 1)))
    assert isinstance(caught.value.__cause__, NoProcess)


def test_future_is_pykkas(start: StartLab) -> None:
    """The future does all that pykka's does: many `get`s, map, filter, reduce, join, await."""
    ref = start()
    future = ref.ask((1, 2, 3), block=False)
    assert future.get() == future.get(timeout=1) == (1, 2, 3)
    assert future.map(sum).get() == 6
    assert future.filter(lambda one: one > 1).get() == [2, 3]
    assert future.reduce(lambda one, two: one + two).get() == 6
    assert pykka.get_all([future, ref.ask(1, block=False)]) == [(1, 2, 3), 1]

    async def wait() -> Any:
        return await ref.ask("awaited", block=False)

    assert asyncio.run(wait()) == "awaited"


@pytest.mark.parametrize(
    ("method", "values"), [("set", [1]), ("set_exception", []), ("set_get_hook", [print])]
)
def test_future_is_answered_once(method: str, values: list[Any]) -> None:
    """A second answer through pykka's own methods is an error, as there."""
    future = reply.Reply()
    future.set("first")
    with pytest.raises(queue.Full):
        getattr(future, method)(*values)
    assert future.get() == "first"


def test_error_of_future_without_one() -> None:
    """`set_exception` outside an `except` block gives an error that says so."""
    future = reply.Reply()
    future.set_exception()
    with pytest.raises(RuntimeError, match="no exception is being handled"):
        future.get()


def test_asker_in_terminate(start: StartLab) -> None:
    """An actor may ask others while it terminates."""
    heard: list[object] = []
    other = start("other")

    def ends(me: Lab, _: Reason) -> None:
        heard.append(me.ask(other, "bye"))

    ref = Lab.start("lab", None, Hooks(ends=ends))
    ref.stop()
    gone(ref)
    assert heard == ["bye"]
