"""GenServer: an actor that lives and dies as OTP's does, on pykka's thread, inbox and refs."""

import threading
from functools import partial
from typing import Any, ClassVar, Self, cast

import pykka
from pykka._envelope import Envelope
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.errors import NoProcess, StartFailed, UnexpectedMessage
from oban_actors.actors.lifecycle import (
    START_TIMEOUT,
    Parent,
    call,
    finish,
    send,
    spawn,
    start_child,
)
from oban_actors.actors.mailbox import Mailbox
from oban_actors.actors.messages import (
    IGNORE,
    NOREPLY,
    Continue,
    Down,
    Exit,
    Failure,
    Monitor,
    Name,
    Ref,
    Sentinel,
    Stop,
)
from oban_actors.actors.process import CURRENT, Process, process_of
from oban_actors.actors.reasons import KILLED, NOPROC, NORMAL, Reason
from oban_actors.actors.reply import Reply
from oban_actors.actors.runtime import Runtime
from oban_actors.actors.safe_logger import SafeLogger
from oban_actors.actors.spec import ChildSpec, Restart
from oban_actors.actors.timers import Timer

logger = SafeLogger("oban_actors.actors")

Sender = Reply


class GenServer(pykka.ThreadingActor):
    """An actor with OTP's life cycle.

    Subclasses take their arguments in `__init__` (which runs in the starter's thread and only
    keeps them) and override the callbacks, all of which run in the actor's own thread. An
    exception in any of them ends the actor: `terminate` runs, its names are freed, those who
    wait for an answer are refused, its supervisor is told, and then whoever asked gets
    `ServerCrashed`. Mirrors Elixir's `GenServer`.
    """

    use_daemon_thread: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._process: Process = cast("Mailbox", self.actor_inbox).process
        self._process.ref = self.actor_ref
        self._process.actor = self
        self._process.label = type(self).__name__

    runtime: Runtime

    # Callbacks

    def init(self) -> None | Continue | Sentinel:
        """Make the actor ready; its starter waits for this, so it should be quick.

        Returns:
            None; `Continue(arg)` for work before the first message; `IGNORE` not to run.

        """
        return None

    def handle_continue(self, arg: Any) -> None | Continue:
        """Do what `init` or a handler put off, before any message."""
        return None

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Answer what was asked.

        Args:
            message: what was asked.
            sender: to be given to `reply`, where the answer is `NOREPLY` for now.

        Returns:
            the answer; `Failure(error)` to raise an error in the asker; `NOREPLY`, or
            `Continue(arg)` for work before the next message: both answer by `reply`.

        """
        raise UnexpectedMessage(self._process.label, message)

    def handle_info(self, message: Any) -> None | Continue:
        """Handle what was told.

        Returns:
            None, or `Continue(arg)` for more work before the next message.

        """
        logger.warning("%s dropped an unexpected message: %r", self._process.label, message)
        return None

    def terminate(self, reason: Reason) -> None:
        """Clean up; does not run after a failed `init`, nor when the actor is killed."""

    def on_kill(self) -> None:
        """Free the actor's thread, from its supervisor's, when its time to end is over."""

    # For use inside

    @property
    def name(self) -> Name | None:
        """The registered name."""
        return self._process.name

    def reply(self, sender: Sender, value: object) -> bool:
        """Answer a question for which `handle_call` gave `NOREPLY`.

        Args:
            sender: what `handle_call` was given.
            value: the answer, or `Failure(error)`.

        Returns:
            whether it was the first answer.

        """
        first = sender.fail(value.error) if isinstance(value, Failure) else sender.answer(value)
        self._process.deferred.discard(sender)
        return first

    def send_after(self, message: object, seconds: float) -> Timer:
        """Tell this actor something later; the timer dies with it.

        Args:
            message: what.
            seconds: the delay; below zero is zero.

        """
        return self.runtime.timers.send_after(self.actor_ref, message, seconds)

    def whereis(self, name: Name) -> Ref | None:
        """Find a living actor of this instance."""
        return self.runtime.registry.whereis(name)

    def ask(self, target: Ref | Name, message: object, timeout: float | None = None) -> Any:
        """Ask an actor, or who has a name now, and wait for the answer.

        Args:
            target: a reference or a name.
            message: what to ask.
            timeout: seconds; 5 by default.

        Raises:
            NoProcess: it was dead, or nobody has the name.
            ServerCrashed: it died over the question.
            CallTimeout: no answer came in time.
            Deadlock: it waits for this actor.

        """
        ref = target if isinstance(target, pykka.ActorRef) else self.whereis(target)
        if ref is None or not self._process.alive:
            raise NoProcess(target, message)
        return call(ref, message, timeout)

    def tell(self, target: Ref | Name, message: object) -> bool:
        """Send a message; a dead actor or vacant name is no error.

        Args:
            target: a reference or a name.
            message: what.

        Returns:
            whether somebody was there.

        """
        ref = target if isinstance(target, pykka.ActorRef) else self.whereis(target)
        return ref is not None and self._process.alive and send(ref, message)

    def monitor(self, ref: Ref) -> Monitor:
        """Watch an actor: a `Down` comes when it ends, at once if it has."""
        watch = Monitor(ref, self.actor_ref)
        if not process_of(ref).watch(watch):
            send(self.actor_ref, Down(watch, ref, NOPROC))
        return watch

    def demonitor(self, watch: Monitor) -> None:
        """End a watch; a `Down` that is on its way is dropped."""
        process_of(watch.ref).unwatch(watch)
        watch.owner = watch.ref

    # Starting

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> pykka.ActorRef[Self]:
        """Start it on its own, under no supervisor, as pykka does; waits for `init`.

        Raises:
            StartFailed: `init` failed.

        """
        return cls.start_link(args, kwargs)

    @classmethod
    def start_link(
        cls,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        parent: Parent | None = None,
        name: Name | None = None,
        runtime: Runtime | None = None,
        timeout: float = START_TIMEOUT,
    ) -> pykka.ActorRef[Self]:
        """Start it and wait until `init` is over.

        Args:
            args: for `__init__`.
            kwargs: for `__init__`.
            parent: the supervisor that will be told of its end.
            name: what to register it as.
            runtime: the registry, timers and clock to use; the parent's by default.
            timeout: seconds that `init` may take.

        Raises:
            StartFailed: `__init__` or `init` failed or took too long, or the name is taken.

        """
        ref = spawn(
            cls, args, kwargs or {}, parent=parent, name=name, runtime=runtime, timeout=timeout
        )
        if isinstance(ref, Sentinel):
            raise StartFailed(name or cls.__name__, "init returned IGNORE")
        return ref

    @classmethod
    def child_spec(
        cls,
        *args: Any,
        id: Any = None,  # noqa: A002 (OTP's name for it)
        name: Name | None = None,
        restart: Restart = "permanent",
        shutdown: float | None = 5.0,
        start_timeout: float = START_TIMEOUT,
        **kwargs: Any,
    ) -> ChildSpec:
        """Describe it as a supervisor's child.

        Args:
            *args: for `__init__`.
            id: unique among its siblings; the name, or the class name, by default.
            name: what to register it as.
            restart: when it is started again: `permanent` always, `transient` after an
                abnormal end, `temporary` never.
            shutdown: seconds to end in when asked to, None for without limit.
            start_timeout: seconds that `init` may take.
            **kwargs: for `__init__`.

        """
        begin = partial(start_child, cls, args, kwargs, name, start_timeout)
        return ChildSpec(
            id=id if id is not None else (name if name is not None else cls.__name__),
            start=begin,
            restart=restart,
            shutdown=shutdown,
        )

    # The seam to pykka

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> Reply:
        return Reply()

    def _start_actor_loop(self) -> None:
        thread = threading.Thread(
            target=self._actor_loop, name=f"oban-{self._process.label}", daemon=True
        )
        self._process.thread = thread
        thread.start()

    def _actor_loop(self) -> None:
        process = CURRENT.process = self._process
        try:
            begun, first = self._begin()
            if begun:
                process.started.set()
                reason = self._serve(first)
                if not process.killed:
                    reason = self._clean_up(reason)
                finish(process, KILLED if process.killed else reason)
        except BaseException as error:
            # Nobody would ever hear of its end.
            logger.exception("%s ended by a fault in what runs it", process.label)
            finish(process, Reason.crash(error))

    # The life of an actor

    def _begin(self) -> tuple[bool, object]:
        process = self._process
        if process.killed:  # its starter did not wait for its thread
            finish(process, KILLED)
            return False, None
        try:
            # The name stands before `init` runs, so that two can't begin as one.
            if process.name is not None:
                self.runtime.registry.register(process.name, self.actor_ref)
            first = self.init()
        except BaseException as error:  # noqa: BLE001 (SystemExit too ends this actor only)
            process.start_error = error
            crash = Reason.crash(error)
            finish(process, error.reason if isinstance(error, Stop) else crash)
            return False, None
        if first is IGNORE:
            process.ignored = True
            finish(process, NORMAL)
        elif process.killed:
            finish(process, KILLED)
        return process.alive, first

    def _serve(self, first: object) -> Reason:
        process, inbox = self._process, self._process.mailbox
        try:
            self._go_on(first)
            while not process.killed:
                process.envelope = envelope = inbox.get()
                if process.killed:  # looked at last: whoever kills it sees the message, or it this
                    inbox.refuse(envelope)
                    break
                process.handling = type(envelope.message).__name__
                process.since = real_monotonic()
                rest = self._dispatch(envelope)
                del envelope  # an idle actor must not keep it
                process.envelope = process.handling = None
                if rest is not None:
                    self._go_on(rest)
        except Stop as stop:
            process.farewell = stop.reply
            process.stopping = True
            return stop.reason
        except BaseException as error:
            if process.alive:
                logger.exception("%s crashed over %s", process.label, process.handling)
            return Reason.crash(error)
        return KILLED

    def _go_on(self, rest: object) -> None:
        process = self._process
        while isinstance(rest, Continue) and not process.killed:
            process.handling = "Continue"
            process.since = real_monotonic()
            rest = self.handle_continue(rest.arg)
            process.handling = None

    def _dispatch(self, envelope: Envelope[Any]) -> object:
        message, sender = envelope.message, envelope.reply_to
        if type(message) in _SYSTEM:
            result = self._handle_system(message)
        elif sender is None:
            return self.handle_info(message)
        else:
            result = self.handle_call(message, cast("Reply", sender))
            if isinstance(result, Continue):
                self._respond(cast("Reply", sender), NOREPLY)
                return result
        if sender is None:
            return result
        self._respond(cast("Reply", sender), result)
        return None

    def _respond(self, sender: Reply, result: object) -> None:
        if result is NOREPLY:
            deferred = self._process.deferred
            deferred.add(sender)
            if sender.over():  # another thread was quicker
                deferred.discard(sender)
        elif isinstance(result, Failure):
            sender.fail(result.error)
        else:
            sender.answer(result)

    def _handle_system(self, message: Any) -> Any:
        if isinstance(message, Exit):
            raise Stop(message.reason)
        if isinstance(message, _ActorStop):
            raise Stop(NORMAL)
        if isinstance(message, Down):
            own = message.monitor.owner is self.actor_ref
            return self.handle_info(message) if own else None
        return self._handle_receive(message)

    def _clean_up(self, reason: Reason) -> Reason:
        self._process.handling = "terminate"
        self._process.since = real_monotonic()
        try:
            self.terminate(reason)
        except BaseException as error:
            logger.exception("%s crashed in terminate", self._process.label)
            return Reason.crash(error)
        return reason


_SYSTEM = frozenset({Exit, _ActorStop, Down, ProxyCall, ProxyGetAttr, ProxySetAttr})
