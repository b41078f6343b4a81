"""How actors are started, ended, killed and abandoned: each way out passes through `finish`."""

import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope

from oban_actors.actors.errors import NoProcess, ServerCrashed, StartFailed
from oban_actors.actors.messages import IGNORE, ChildExit, Down, Exit, Name, Ref, Sentinel, Stop
from oban_actors.actors.process import Process, await_event, process_of
from oban_actors.actors.reasons import KILLED, SHUTDOWN, Reason
from oban_actors.actors.reply import Reply
from oban_actors.actors.runtime import Runtime
from oban_actors.actors.safe_logger import SafeLogger
from oban_actors.actors.waits import waiting_for_child

if TYPE_CHECKING:
    from oban_actors.actors.gen_server import GenServer

logger = SafeLogger("oban_actors.actors")

START_TIMEOUT = 30.0
"""Seconds that `init` may take."""

KILL_GRACE = 1.0
"""Seconds that a killed actor's thread has to end before it is abandoned."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Who starts a child: its supervisor, and what the tree shares.

    Attributes:
        ref: the supervisor.
        runtime: registry, timers and clock of its tree.

    """

    ref: Ref
    runtime: Runtime


def send(ref: Ref, message: object) -> bool:
    """Tell an actor something; that it is dead is no error, as in Erlang.

    Args:
        ref: the actor.
        message: what.

    Returns:
        whether it was alive.

    """
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        return False
    return True


def call(ref: Ref, message: object, timeout: float | None = None) -> Any:
    """Ask an actor and wait for the answer; see `GenServer.ask` for the errors."""
    if not ref.is_alive():
        raise NoProcess(ref, message)
    return ref.ask(message, timeout=timeout)


def spawn(
    cls: "type[GenServer]",
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    parent: Parent | None = None,
    name: Name | None = None,
    runtime: Runtime | None = None,
    timeout: float = START_TIMEOUT,
) -> Ref | Sentinel:
    """Start an actor and wait until its `init` is over; see `GenServer.start_link`."""
    label = _label(name, cls)
    try:
        actor = cls(*args, **kwargs)
    except Exception as error:
        raise StartFailed(label, error) from error
    process = process_of(actor.actor_ref)
    process.label, process.name = label, name
    process.owns_runtime = runtime is None and parent is None
    actor.runtime = process.runtime = runtime or (parent.runtime if parent else Runtime())
    if parent is not None:
        process.parent = process_of(parent.ref)
        _refuse_orphan(process)
    else:
        # pykka's registry holds roots only: whoever stops all its actors stops trees in order.
        pykka.ActorRegistry.register(actor.actor_ref)
    return _await_start(actor, process, timeout)


def start_child(
    cls: "type[GenServer]",
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: Name | None,
    timeout: float,
    parent: Parent,
) -> Ref | Sentinel:
    """Start an actor as its spec describes it."""
    return spawn(cls, args, kwargs, parent=parent, name=name, timeout=timeout)


def linked(started: object, parent: Process) -> Ref:
    """Give what a spec's `start` returned, if it is an actor whose end `parent` will hear of.

    Raises:
        TypeError: it is anything else.

    """
    if isinstance(started, pykka.ActorRef) and process_of(started).parent is parent:
        return started
    msg = (
        "expected start to return IGNORE or a reference to an actor started with the parent "
        f"it was given, got: {started!r}"
    )
    raise TypeError(msg)


def _await_start(actor: "GenServer", process: Process, timeout: float) -> Ref | Sentinel:
    # The wait is marked before the thread runs, so a child that calls its starter from
    # `init` is refused.
    with waiting_for_child(process, process.started):
        try:
            actor._start_actor_loop()  # noqa: SLF001 (pykka's seam)
        except RuntimeError as error:
            finish(process, Reason.crash(error))
            raise StartFailed(process.label, error) from error
        try:
            begun = await_event(process.started, timeout)
        except BaseException:  # an interrupted host gets no reference by which to end it
            send(actor.actor_ref, Exit())
            raise
        if not begun:
            kill(process)
            raise StartFailed(process.label, f"init took longer than {timeout:g} seconds")
    failure = process.start_error
    if failure is not None:
        reason = failure.reason if isinstance(failure, Stop) else failure
        raise StartFailed(process.label, reason) from failure
    try:
        _refuse_orphan(process)
    except StartFailed:
        kill(process)
        raise
    return IGNORE if process.ignored else actor.actor_ref


def _refuse_orphan(process: Process) -> None:
    # A supervisor that was killed while it starts its children must leave none behind.
    parent = process.parent
    if parent is not None and (parent.killed or not parent.alive):
        raise StartFailed(process.label, parent.exit_reason or KILLED)


def finish(process: Process, reason: Reason) -> bool:
    """End an actor, once: whoever comes second, its own thread or its killer, does nothing.

    The order is what others rely on: it is dead and its names are free before anybody hears
    of it, and whoever is owed an answer hears last, so that a retry never meets the corpse.

    Returns:
        whether this call ended it.

    """
    with process.lock:
        if process.exit_reason is not None:
            return False
        process.exit_reason = reason
        actor, process.actor = process.actor, None
        watchers, process.watchers = process.watchers, []
    ref, runtime = process.ref, process.runtime
    if ref is None or runtime is None or actor is None:
        return False
    begun = process.started.is_set()
    if not begun and not process.ignored and process.start_error is None:
        # Killed meanwhile: its starter, who will hear of no end, must not take it for running.
        process.start_error = Stop(reason)
    ref.actor_stopped.set()
    runtime.registry.forget(ref)
    if process.parent is None:
        pykka.ActorRegistry.unregister(ref)
    process.exited.set()
    process.started.set()
    process.mailbox.close()
    if begun and process.parent is not None and process.parent.ref is not None:
        send(process.parent.ref, ChildExit(ref, reason))
    with process.lock:
        monitors, process.monitors = process.monitors, []
    for watch in monitors:
        send(watch.owner, Down(watch, ref, reason))
    _settle(process, reason)
    if process.owns_runtime:
        runtime.close()
    for watcher in watchers:
        try:
            watcher(reason)
        except (Exception, SystemExit):
            logger.exception("what was to be called at the end of %s failed", process.label)
    return True


def _settle(process: Process, reason: Reason) -> None:
    envelope, process.envelope = process.envelope, None
    owed = list(process.deferred)
    process.deferred.clear()
    if envelope is not None and isinstance(envelope.reply_to, Reply):
        if process.stopping:
            envelope.reply_to.answer(process.farewell)
        else:
            owed.append(envelope.reply_to)
    for sender in owed:
        error = ServerCrashed(process.label, sender.message, reason)
        if isinstance(reason.detail, BaseException):
            error.__cause__ = reason.detail
        sender.fail(error)


def shut_down(process: Process, seconds: float | None, reason: Reason = SHUTDOWN) -> Reason:
    """End an actor in order, and if it does not end in time, by force.

    Args:
        process: what to end.
        seconds: what it has to finish the messages before the request and `terminate`; None
            is without limit, 0 kills at once.
        reason: what `terminate` is given.

    Returns:
        why it ended.

    """
    if process.ref is not None and seconds != 0:
        send(process.ref, Exit(reason))
    with waiting_for_child(process, process.exited):
        if seconds == 0:
            kill(process)
        elif not await_event(process.exited, seconds):
            process.overdue = True
            kill(process)
    return process.exit_reason or KILLED


def kill(process: Process, grace: float = KILL_GRACE) -> None:
    """Let an actor handle nothing more; free its thread, or abandon it.

    A Python thread can't be killed: its blocking call is cancelled by `on_kill`, and when
    even that does not free it within `grace` seconds it is left to itself. It is dead to all
    others then: names freed, askers refused, nothing that it does later counts.
    """
    process.killed = True
    actor = process.actor
    if actor is not None:
        try:
            actor.on_kill()
        except (Exception, SystemExit):
            logger.exception("%s crashed in on_kill", process.label)
    # Only now: an idle one ends as soon as it wakes, and its thread's number is another's next.
    process.mailbox.put(Envelope(None))
    if process.exited.wait(grace):
        return
    process.abandoned = True
    if finish(process, KILLED):
        runtime = process.runtime
        if runtime is not None:
            runtime.count_abandoned()
        logger.error("%s did not end and is abandoned; it hangs in\n%s", process, stack_of(process))
    else:
        process.abandoned = False


def stack_of(process: Process) -> str:
    """Give the stack of an actor's thread as text."""
    thread = process.thread
    frame = sys._current_frames().get(thread.ident or 0) if thread else None  # noqa: SLF001 (the only way to another thread's stack)
    return "".join(traceback.format_stack(frame)) if frame else "(no stack)"


def _label(name: Name | None, cls: type[Any]) -> str:
    if name is None:
        return cls.__name__
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)
