"""The life of a GenServer: init, continue, messages, terminate, and each way out."""

import logging
import threading
import weakref
from dataclasses import dataclass

import pykka
import pytest

from oban_actors.actors import (
    IGNORE,
    NORMAL,
    SHUTDOWN,
    AlreadyRegistered,
    Continue,
    Exit,
    GenServer,
    NoProcess,
    Reason,
    Runtime,
    Sender,
    ServerCrashed,
    StartFailed,
    Stop,
    lifecycle,
)
from oban_actors.actors.process import process_of
from tests.actors.conftest import StartLab
from tests.actors.lab import Boom, Gate, Hooks, Journal, Lab, Run, RunWith, crash, gone
from tests.support.waiting import wait_until


def test_start_waits_for_init(start: StartLab, journal: Journal) -> None:
    """When `start` returns, `init` has run, in the actor's own thread, which is a daemon."""
    threads: list[threading.Thread] = []
    ref = start(hooks=Hooks(init=lambda _: threads.append(threading.current_thread())))
    assert journal.lines == [("start", "lab")]
    assert threads == [process_of(ref).thread]
    assert threads[0].daemon
    assert threads[0] is not threading.current_thread()


def test_thread_bears_the_name(start: StartLab) -> None:
    """A thread in a stack dump says which actor it is."""
    ref = start(name=("producer", "mailers"), runtime=Runtime())
    thread = process_of(ref).thread
    assert thread is not None
    assert thread.name == "oban-producer mailers"


def test_name_stands_before_init(start: StartLab) -> None:
    """A name is registered before `init` runs, so that two can't begin as one."""
    runtime = Runtime()
    seen: list[object] = []
    ref = start(
        name="one", runtime=runtime, hooks=Hooks(init=lambda me: seen.append(me.whereis("one")))
    )
    assert seen == [ref]


@pytest.mark.parametrize("error", [Boom("no"), SystemExit(3), KeyboardInterrupt()])
def test_failing_init(error: BaseException, journal: Journal) -> None:
    """Who starts it gets the error; it never terminates; its name is free before that is known."""
    runtime = Runtime()

    def fail(_: Lab) -> None:
        raise error

    with pytest.raises(StartFailed) as caught:
        Lab.start_link(("lab", journal, Hooks(init=fail)), name="one", runtime=runtime)
    assert runtime.registry.names() == {}
    assert caught.value.reason is error
    assert caught.value.__cause__ is error
    assert journal.lines == []
    assert pykka.ActorRegistry.get_all() == []


def test_failing_constructor() -> None:
    """An error in `__init__` is a failed start too."""

    class Bad(GenServer):
        def __init__(self) -> None:
            super().__init__()
            raise Boom("never built")

    with pytest.raises(StartFailed, match=r"Bad failed to start: Boom\('never built'\)"):
        Bad.start()


def test_no_thread_to_be_had() -> None:
    """Where the system gives no more threads, the start has failed, and the name is free."""

    class Bodiless(Lab):
        def _start_actor_loop(self) -> None:
            raise RuntimeError("can't start new thread")

    runtime = Runtime()
    with pytest.raises(StartFailed, match="can't start new thread"):
        Bodiless.start_link(name="one", runtime=runtime)
    assert runtime.registry.whereis("one") is None
    assert pykka.ActorRegistry.get_all() == []


def test_init_that_stops() -> None:
    """`Stop` in `init` is a failed start with that reason."""

    def stop(_: Lab) -> None:
        raise Stop(Reason("shutdown", "not today"))

    with pytest.raises(StartFailed) as caught:
        Lab.start("lab", None, Hooks(init=stop))
    assert caught.value.reason == Reason("shutdown", "not today")


def test_init_that_takes_too_long(journal: Journal) -> None:
    """A start has a time-out; the late actor never serves, and its name is free."""
    runtime, gate = Runtime(), Gate()
    hooks = Hooks(init=gate, killed=gate.open)
    with pytest.raises(StartFailed, match="init took longer than 0 seconds"):
        Lab.start_link(("lab", journal, hooks), name="one", runtime=runtime, timeout=0)
    assert runtime.registry.whereis("one") is None
    assert journal.about("end") == []
    assert runtime.abandoned == 0


def test_ignore() -> None:
    """An actor that does not want to run says so from `init`; started by hand that is a failure."""
    runtime = Runtime()
    with pytest.raises(StartFailed, match="IGNORE"):
        Lab.start_link(("lab", None, Hooks(init=lambda _: IGNORE)), name="one", runtime=runtime)
    assert runtime.registry.names() == {}


def test_taken_name(start: StartLab) -> None:
    """A second actor of one name is refused and told of the first; that one keeps the name."""
    runtime = Runtime()
    first = start(name="one", runtime=runtime)
    with pytest.raises(StartFailed) as caught:
        start(name="one", runtime=runtime)
    assert isinstance(caught.value.reason, AlreadyRegistered)
    assert caught.value.reason.ref is first
    assert runtime.registry.whereis("one") is first


def test_interrupted_starter(monkeypatch: pytest.MonkeyPatch, journal: Journal) -> None:
    """A host interrupted while it waits for a start leaves no actor that nobody can end."""

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(lifecycle, "await_event", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Lab.start("lab", journal)
    wait_until(lambda: pykka.ActorRegistry.get_all() == [])
    assert journal.lines == [("start", "lab"), ("end", "lab", "shutdown")]


def test_continue_comes_first(start: StartLab, journal: Journal) -> None:
    """What `init` put off runs before any message, and the starter does not wait for it."""
    gate = Gate()
    ref = start(hooks=Hooks(init=lambda _: Continue("db"), goes_on=gate))
    ref.tell("early")
    gate.wait()
    assert journal.lines == [("start", "lab"), ("continue", "lab", "db")]
    gate.open()
    ref.ask("sync")
    assert journal.lines[-1] == ("info", "lab", "early")


def test_continue_from_handlers(start: StartLab, journal: Journal) -> None:
    """A told handler may put work off too, and so may that work: all before the next message."""
    hooks = Hooks(goes_on=lambda _, arg: Continue(arg - 1) if arg else None)
    ref = start(hooks=hooks)
    gate = Gate()
    ref.tell(Run(gate))
    ref.tell(Run(lambda _: Continue(2)))
    ref.tell("next")
    gate.open()
    ref.ask("sync")
    assert journal.lines[1:] == [
        *(("continue", "lab", left) for left in (2, 1, 0)),
        ("info", "lab", "next"),
    ]


def test_continue_from_an_ask(start: StartLab, journal: Journal) -> None:
    """An asked handler may put its work off too: before the next message, and answered later."""
    gate, owed = Gate(), list[Sender]()

    def goes_on(me: Lab, arg: str) -> None:
        if arg == "bug":
            raise Boom
        me.reply(owed.pop(), arg)

    def put_off(arg: str) -> RunWith:
        return RunWith(lambda _, sender: (owed.append(sender), Continue(arg))[1])

    ref = start(hooks=Hooks(goes_on=goes_on))
    ref.tell(Run(gate))
    answer = ref.ask(put_off("done"), block=False)
    ref.tell("next")
    gate.open()
    assert answer.get() == "done"
    ref.ask("sync")
    assert journal.lines[1:] == [("continue", "lab", "done"), ("info", "lab", "next")]
    assert process_of(ref).deferred == set()
    with pytest.raises(ServerCrashed):
        ref.ask(put_off("bug"))


def test_crash_in_continue(journal: Journal) -> None:
    """A failing `handle_continue` is a crash, not a failed start: `terminate` runs."""

    def fail(*_: object) -> None:
        raise Boom

    ref = Lab.start("lab", journal, Hooks(init=lambda _: Continue(), goes_on=fail))
    reason = gone(ref).exit_reason
    assert reason is not None
    assert reason.kind == "crashed"
    assert journal.lines[-1] == ("end", "lab", "crashed")


@dataclass(frozen=True)
class Frozen(Exception):
    """An error of which nothing can be set."""


@pytest.mark.parametrize(
    "error", [Boom(), SystemExit(), KeyboardInterrupt(), GeneratorExit(), Frozen()]
)
@pytest.mark.parametrize("asked", [True, False])
def test_crash(error: BaseException, asked: object, journal: Journal) -> None:
    """Asked or told, whatever leaves a handler ends the actor, with `terminate`, and no other."""
    other = Lab.start("other")
    ref = Lab.start("lab", journal)
    if asked:
        with pytest.raises(ServerCrashed):
            ref.ask(crash(error))
    else:
        ref.tell(crash(error))
    reason = gone(ref).exit_reason
    assert reason is not None
    assert reason.kind == "crashed"
    assert reason.detail is error
    assert type(error).__name__ in reason.trace
    assert journal.lines[-1] == ("end", "lab", "crashed")
    assert other.ask("there?") == "there?"
    other.stop()


def test_crash_keeps_no_frames() -> None:
    """References outlive actors, so a stored reason holds no frame; the trace is there as text."""

    def do(_: Lab) -> None:
        try:
            raise ValueError("first")  # noqa: TRY301 (its context is what is tested)
        except ValueError as error:
            raise Boom("second") from error

    ref = Lab.start()
    ref.tell(Run(do))
    reason = gone(ref).exit_reason
    assert reason is not None
    assert isinstance(reason.detail, Boom)
    assert reason.detail.__traceback__ is None
    assert reason.detail.__cause__ is not None
    assert reason.detail.__cause__.__traceback__ is None
    assert "ValueError: first" in reason.trace
    assert "in do" in reason.trace


def test_crash_of_many_keeps_no_frames() -> None:
    """Nor do the errors in a group hold any."""

    def do(_: Lab) -> None:
        errors = []
        for word in ("one", "two"):
            try:
                raise Boom(word)  # noqa: TRY301 (its frame is what is tested)
            except Boom as error:
                errors.append(error)
        raise ExceptionGroup("both", errors)

    ref = Lab.start()
    ref.tell(Run(do))
    reason = gone(ref).exit_reason
    assert reason is not None
    assert isinstance(reason.detail, ExceptionGroup)
    assert [error.__traceback__ for error in reason.detail.exceptions] == [None, None]
    assert "Boom: two" in reason.trace


@pytest.mark.parametrize(
    ("reason", "kind"), [(NORMAL, "normal"), (Reason("shutdown", "done"), "shutdown")]
)
def test_stop(reason: Reason, kind: str, journal: Journal) -> None:
    """`Stop` ends the actor with its reason."""

    def stop(_: Lab) -> None:
        raise Stop(reason)

    ref = Lab.start("lab", journal)
    ref.tell(Run(stop))
    assert gone(ref).exit_reason == reason
    assert journal.lines[-1] == ("end", "lab", kind)


def test_exit_is_handled_in_order(journal: Journal) -> None:
    """A request to end comes after what is in the inbox already; what comes later is lost."""
    gate = Gate()
    ref = Lab.start("lab", journal)
    ref.tell(Run(gate))
    ref.tell("before")
    ref.tell(Exit(SHUTDOWN))
    ref.tell("after")
    late = ref.ask("after", block=False)
    gate.open()
    with pytest.raises(NoProcess):
        late.get()
    gone(ref)
    assert journal.lines == [
        ("start", "lab"),
        ("info", "lab", "before"),
        ("end", "lab", "shutdown"),
    ]


@pytest.mark.parametrize("error", [Boom("late"), SystemExit(1)])
def test_failing_terminate(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """An error in `terminate` is logged, and why it ended; it ends all the same, its name free."""

    def fail(*_: object) -> None:
        raise error

    runtime = Runtime()
    ref = Lab.start_link(("lab", None, Hooks(ends=fail)), name="one", runtime=runtime)
    assert ref.stop() is True
    reason = gone(ref).exit_reason
    assert reason is not None
    assert reason.detail is error
    assert runtime.registry.names() == {}
    assert "one crashed in terminate" in caplog.messages


def test_unexpected_messages(start: StartLab, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody expects is a warning when told, and a crash when asked."""
    ref = GenServer.start()
    with caplog.at_level(logging.WARNING, "oban_actors.actors"):
        ref.tell("what")
        future = ref.ask("what", block=False)
        with pytest.raises(ServerCrashed, match="does not understand 'what'"):
            future.get()
    assert "GenServer dropped an unexpected message: 'what'" in caplog.messages
    assert not ref.is_alive()


def test_crash_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A crash is logged once, by our logger, with its traceback and the message in hand."""
    ref = Lab.start()
    with pytest.raises(ServerCrashed):
        ref.ask(crash())
    (record,) = [one for one in caplog.records if one.name == "oban_actors.actors"]
    assert record.getMessage() == "Lab crashed over Run"
    assert record.exc_info is not None


def test_idle_actor_keeps_no_message(start: StartLab, journal: Journal) -> None:
    """Once handled, a message can be freed although the actor lives on, waiting for the next."""

    class Big:
        pass

    ref, big = start(), Big()
    seen = weakref.ref(big)
    ref.tell(big)
    wait_until(lambda: journal.about("info"))
    journal.clear()
    del big
    wait_until(lambda: seen() is None)
