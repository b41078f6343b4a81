"""Supervisor: starts its children in order, restarts them by rule, ends them in reverse."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from oban_actors.actors.clock import Clock
from oban_actors.actors.errors import StartFailed
from oban_actors.actors.gen_server import GenServer, Sender
from oban_actors.actors.lifecycle import Parent, kill, linked, send, shut_down
from oban_actors.actors.messages import IGNORE, ChildExit, Failure, Name, Ref, Stop
from oban_actors.actors.process import process_of
from oban_actors.actors.reasons import SHUTDOWN, Reason, shown
from oban_actors.actors.requests import (
    DeleteChild,
    RestartChild,
    StartChild,
    TerminateChild,
    UnknownChild,
    WhichChildren,
)
from oban_actors.actors.restarts import Intensity, affected, keeps_spec, wants_restart
from oban_actors.actors.root import Root
from oban_actors.actors.runtime import Runtime
from oban_actors.actors.safe_logger import SafeLogger
from oban_actors.actors.spec import STRATEGIES, ChildSpec, Restart, Strategy
from oban_actors.actors.tree import ChildView

logger = SafeLogger("oban_actors.actors")

START_TIMEOUT = 300.0
"""Seconds that a supervisor's children may take, together, to start."""


@dataclass(frozen=True, slots=True)
class _TryAgain:
    id: Hashable


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    ref: Ref | None = None
    restarting: bool = False
    starting: bool = False
    restarts: int = 0
    last_crash: str | None = None

    @property
    def idle(self) -> str:
        if self.starting:
            return "starting"
        return "restarting" if self.restarting else "stopped"


class Supervisor(GenServer):
    """Starts children in order, each after the one before is ready; restarts those that end.

    Mirrors Elixir's `Supervisor`: 3 restarts within 5 seconds by default, the next one makes it
    give up: it ends its children in reverse order and itself with reason `shutdown`.

    Args:
        children: specs in start order, their ids unique.
        strategy: `one_for_one` (only the one that ended), `rest_for_one` (and those started
            after it) or `one_for_all`.
        max_restarts: restarts allowed within the window.
        max_seconds: the window, in seconds.

    Raises:
        ValueError: an argument is wrong, or two children have one id.

    """

    def __init__(
        self,
        children: Sequence[ChildSpec] = (),
        *,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
    ) -> None:
        super().__init__()
        _check(children, strategy, max_restarts, max_seconds)
        self._strategy: Strategy = strategy
        self._intensity = Intensity(max_restarts, max_seconds)
        self._children: dict[Hashable, _Child] = {spec.id: _Child(spec) for spec in children}
        self._process.children = self._views
        self._process.recent_restarts = self._recent_restarts

    @classmethod
    def start(  # type: ignore[override]  # a root gives its host more than a reference
        cls,
        children: Sequence[ChildSpec] = (),
        *args: Any,
        name: Name | None = None,
        clock: Clock | None = None,
        runtime: Runtime | None = None,
        on_exit: Callable[[Reason], None] | None = None,
        **kwargs: Any,
    ) -> Root:
        """Start a tree, with this supervisor as its root.

        Args:
            children: the children's specs, in start order.
            *args: more arguments for a subclass.
            name: what to register the root as, in the tree's own registry.
            clock: the tree's time; the system's by default.
            runtime: a runtime made before, instead of one for this tree alone.
            on_exit: called with the reason when the root has ended, for whatever reason.
            **kwargs: `strategy`, `max_restarts`, `max_seconds`.

        Returns:
            the handle: a context manager with `stop`, `wait` and `tree`.

        Raises:
            StartFailed: a child did not start; those before it were ended again.

        """
        owned = runtime is None
        shared = runtime or (Runtime(clock) if clock else Runtime())
        try:
            ref = cls.start_link(
                (children, *args), kwargs, name=name, runtime=shared, timeout=START_TIMEOUT
            )
        except BaseException:
            if owned:
                shared.close()
            raise
        return Root(ref, shared, on_exit, owns_runtime=owned)

    @classmethod
    def child_spec(
        cls,
        *args: Any,
        id: Any = None,  # noqa: A002 (OTP's name for it)
        name: Name | None = None,
        restart: Restart = "permanent",
        shutdown: float | None = None,
        start_timeout: float = START_TIMEOUT,
        **kwargs: Any,
    ) -> ChildSpec:
        """Describe it as a child of another supervisor; see `GenServer.child_spec`."""
        spec = super().child_spec(
            *args,
            id=id,
            name=name,
            restart=restart,
            shutdown=shutdown,
            start_timeout=start_timeout,
            **kwargs,
        )
        return spec.override(type="supervisor")

    # Callbacks

    def init(self) -> None:
        """Start the children; when one fails, end those before it and fail too."""
        for child in list(self._children.values()):
            try:
                self._start_child(child)
            except StartFailed:
                self._stop_all(SHUTDOWN)
                raise

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Add, end, restart, delete and list children."""
        answer: Any = None
        try:
            match message:
                case StartChild(spec):
                    answer = self._add(spec)
                case TerminateChild(id_):
                    self._end_child(self._known(id_), SHUTDOWN)
                case RestartChild(id_):
                    answer = self._restart_by_hand(self._idle(id_))
                case DeleteChild(id_):
                    del self._children[self._idle(id_).spec.id]
                case WhichChildren():
                    answer = {id_: child.ref for id_, child in self._children.items()}
                case _:
                    answer = super().handle_call(message, sender)
        except (StartFailed, UnknownChild, TypeError, ValueError) as error:
            answer = Failure(error)
        return answer

    def handle_info(self, message: Any) -> None:
        """Hear of a child's end, and act by rule."""
        match message:
            case ChildExit(ref, reason):
                self._child_ended(ref, reason)
            case _TryAgain(id_):
                child = self._children.get(id_)
                if child is not None and child.restarting and child.ref is None:
                    self._restart(child)
            case _:
                super().handle_info(message)

    def terminate(self, reason: Reason) -> None:
        """End the children in reverse order."""
        self._stop_all(reason if reason.kind == "shutdown" else SHUTDOWN)

    def on_kill(self) -> None:
        """Kill what is below, from the last to the first, one that just starts before all."""
        waiting = self._process.waiting
        starting = waiting.target if waiting is not None else None
        below = [view.process for view in reversed(self._views())]
        for process in [starting, *below]:
            if process is not None and process.parent is self._process and process.alive:
                kill(process)

    # Rules

    def _child_ended(self, ref: Ref, reason: Reason) -> None:
        child = next((one for one in self._children.values() if one.ref is ref), None)
        if child is None:  # it was ended by this supervisor, or has a successor
            return
        child.ref = None
        if reason.abnormal:
            child.last_crash = str(reason)
            logger.error("child %s ended: %s", child.spec.id, reason)
        if wants_restart(child.spec.restart, reason):
            self._restart(child)
        elif not keeps_spec(child.spec.restart):
            del self._children[child.spec.id]

    def _restart(self, child: _Child) -> None:
        self._intensity = self._intensity.add(self.runtime.clock.monotonic())
        if self._intensity.exceeded:
            logger.error(
                "%s gives up: more than %d restarts within %g seconds, the last of child %s",
                self._process.label,
                self._intensity.max_restarts,
                self._intensity.max_seconds,
                child.spec.id,
            )
            raise Stop(SHUTDOWN)
        child.restarts += 1
        ids = affected(self._strategy, list(self._children), child.spec.id)
        for id_ in reversed(ids):
            self._end_child(self._children[id_], SHUTDOWN)
        self._start_again([self._children[id_] for id_ in ids if id_ in self._children])

    def _start_again(self, children: list[_Child]) -> None:
        for child in children:
            try:
                self._start_child(child)
            except StartFailed as error:
                # A message to itself, so that a request to end can get in between.
                logger.error("child %s did not start again: %s", child.spec.id, shown(error.reason))  # noqa: TRY400 (its crash is logged)
                child.last_crash = shown(error.reason)
                child.restarting = True
                send(self.actor_ref, _TryAgain(child.spec.id))
                return

    def _start_child(self, child: _Child) -> None:
        child.restarting, child.starting = False, True
        try:
            started = child.spec.start(Parent(self.actor_ref, self.runtime))
            child.ref = None if started is IGNORE else linked(started, self._process)
        except StartFailed:
            raise
        except BaseException as error:  # SystemExit too: it is the child's own affair
            raise StartFailed(child.spec.id, error) from error
        finally:
            child.starting = False
        if child.ref is None and not keeps_spec(child.spec.restart):
            del self._children[child.spec.id]

    def _end_child(self, child: _Child, reason: Reason) -> None:
        child.restarting = False
        if child.ref is not None:
            process = process_of(child.ref)
            ended = shut_down(process, child.spec.shutdown, reason)
            child.ref = None
            killed = ended.kind == "killed"
            if killed and process.overdue:
                logger.error(
                    "child %s did not end within %g seconds", child.spec.id, child.spec.shutdown
                )
            # Who is killed takes its children along: it is told of, not they.
            elif ended.abnormal and not (
                killed and (child.spec.shutdown == 0 or self._process.killed)
            ):
                logger.error("child %s ended: %s", child.spec.id, ended)
        if not keeps_spec(child.spec.restart):
            del self._children[child.spec.id]

    def _stop_all(self, reason: Reason) -> None:
        for child in reversed(list(self._children.values())):
            self._end_child(child, reason)

    # Requests

    def _known(self, id_: Hashable) -> _Child:
        try:
            return self._children[id_]
        except KeyError:
            msg = f"{self._process.label} has no child {id_!r}"
            raise UnknownChild(msg) from None

    def _add(self, spec: ChildSpec) -> Ref | None:
        if not isinstance(spec, ChildSpec):
            raise TypeError(f"expected a ChildSpec, got: {spec!r}")
        if spec.id in self._children:
            msg = f"{self._process.label} has a child {spec.id!r} already"
            raise ValueError(msg)
        child = self._children[spec.id] = _Child(spec)
        try:
            self._start_child(child)
        except StartFailed:
            del self._children[spec.id]
            raise
        return child.ref

    def _idle(self, id_: Hashable) -> _Child:
        child = self._known(id_)
        if child.ref is not None or child.restarting:
            raise UnknownChild(f"child {id_!r} of {self._process.label} is running")
        return child

    def _restart_by_hand(self, child: _Child) -> Ref | None:
        self._start_child(child)
        return child.ref

    # For the tree

    def _views(self) -> tuple[ChildView, ...]:
        # Other threads read this: the copy is one step, and a reference is read once.
        return tuple(
            ChildView(
                child.spec.id,
                None if (ref := child.ref) is None else process_of(ref),
                child.restarts,
                child.last_crash,
                child.idle,
            )
            for child in list(self._children.values())
        )

    def _recent_restarts(self) -> int:
        return self._intensity.within(self.runtime.clock.monotonic())


def _check(
    children: Sequence[ChildSpec], strategy: str, max_restarts: int, max_seconds: float
) -> None:
    ids = [spec.id for spec in children]
    twice = {id_ for id_ in ids if ids.count(id_) > 1}
    if twice:
        msg = f"expected children with unique ids, got more than one of: {twice!r}"
        raise ValueError(msg)
    if strategy not in STRATEGIES:
        msg = f"expected strategy to be one of {STRATEGIES}, got: {strategy!r}"
        raise ValueError(msg)
    if max_restarts < 0 or not max_seconds > 0:
        msg = (
            "expected max_restarts of zero or more within max_seconds of more than zero, "
            f"got: {max_restarts!r} within {max_seconds!r}"
        )
        raise ValueError(msg)
