"""The process table: what is known of an actor beside its own state, alive or dead.

Every reference to an actor holds its inbox, so the inbox leads to the entry. All that others
may look at while the actor is busy, or stuck, stands here.
"""

import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.messages import Monitor, Name, Ref
from oban_actors.actors.reasons import FORKED, Reason

if TYPE_CHECKING:
    from pykka._envelope import Envelope

    from oban_actors.actors.gen_server import GenServer
    from oban_actors.actors.mailbox import Mailbox
    from oban_actors.actors.reply import Reply
    from oban_actors.actors.runtime import Runtime
    from oban_actors.actors.tree import ChildView
    from oban_actors.actors.waits import Awaited

_LIVE: "weakref.WeakSet[Process]" = weakref.WeakSet()


class Process:
    """An actor's entry in the process table.

    Attributes:
        label: the class name, or the registered name once there is one.
        name: the registered name, or None.
        exit_reason: why it ended; None while it lives.
        exited: set when it has ended, its names freed.
        started: set when `init` is over, well or not.
        killed: it was told to end at once: it handles nothing more.
        overdue: it was, because the time that its supervisor gave it was over.
        abandoned: it was killed, and its thread would not end.
        waiting: what it waits for, and so on whom.
        handling: the type of the message in hand, and `since` when.
        envelope: the message in hand; `deferred`: those to be answered later.
        stopping: it ended itself, and `farewell` is the answer to the message in hand.
        children: gives a supervisor's children, to any thread.
        note: likewise, what an actor has to say of itself in the tree.
        exit_time: seconds that it and all below it may take to end in order, where that has to be
            granted when the interpreter exits.
        work_here: names what the calling thread does that the actor's end waits for, or None.

    """

    def __init__(self, mailbox: "Mailbox") -> None:
        self.mailbox = mailbox
        self.actor: GenServer | None = None
        self.runtime: Runtime | None = None
        self.owns_runtime = False
        self.ref: Ref | None = None
        self.parent: Process | None = None
        self.thread: threading.Thread | None = None
        self.label = "actor"
        self.name: Name | None = None
        self.lock = threading.Lock()
        self.started = threading.Event()
        self.start_error: BaseException | None = None
        self.ignored = False
        self.exit_reason: Reason | None = None
        self.exited = threading.Event()
        self.killed = False
        self.overdue = False
        self.abandoned = False
        self.waiting: Awaited | None = None
        self.handling: str | None = None
        self.envelope: Envelope[Any] | None = None
        self.deferred: set[Reply] = set()
        self.stopping = False
        self.farewell: object = None
        self.since = real_monotonic()
        self.monitors: list[Monitor] = []
        self.watchers: list[Callable[[Reason], None]] = []
        self.children: Callable[[], tuple[ChildView, ...]] | None = None
        self.recent_restarts: Callable[[], int] | None = None
        self.note: Callable[[], str] | None = None
        self.exit_time = 0.0
        self.work_here: Callable[[], str | None] | None = None
        _LIVE.add(self)

    def __str__(self) -> str:
        return self.label

    def __repr__(self) -> str:
        return f"<Process {self.label}>"

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.exit_reason is None

    def watch(self, monitor: Monitor) -> bool:
        """Let an actor hear of the end; False if that is past."""
        with self.lock:
            if self.exited.is_set():
                return False
            # Watches end with their owners, or those of a crashing one would pile up here.
            living = [one for one in self.monitors if one.owner.is_alive()]
            self.monitors = [*living, monitor]
            return True

    def unwatch(self, monitor: Monitor) -> None:
        """Take a watch back."""
        with self.lock:
            self.monitors = [one for one in self.monitors if one is not monitor]

    def state(self) -> str:
        """Say in one word what it does now."""
        if self.abandoned:
            return "abandoned"
        if self.exit_reason is not None:
            return "exited"
        if not self.started.is_set():
            return "starting"
        if self.waiting is not None:
            return "waiting"
        return "idle" if self.handling is None else "busy"


class _Current(threading.local):
    process: Process | None = None


CURRENT = _Current()


def await_event(event: threading.Event, seconds: float | None) -> bool:
    """Wait for an event; None and infinity are without limit."""
    return event.wait(None if seconds is None else min(max(seconds, 0.0), threading.TIMEOUT_MAX))


def process_of(ref: Ref) -> Process:
    """Give the entry of an actor of ours.

    Raises:
        TypeError: the reference is to a plain pykka actor.

    """
    process = getattr(ref.actor_inbox, "process", None)
    if not isinstance(process, Process):
        msg = f"expected a reference to a GenServer, got: {ref!r}"
        raise TypeError(msg)
    return process


def _forget_after_fork() -> None:
    # Threads don't survive a fork: whoever asks one of these must hear so at once. The locks
    # are new, since any of the old may have been held at that moment.
    for process in list(_LIVE):
        process.lock = threading.Lock()
        process.started = _set_event()
        process.exited = _set_event()
        process.mailbox.closed = True
        if process.exit_reason is None:
            process.exit_reason = FORKED
        if process.ref is not None:
            process.ref.actor_stopped = _set_event()


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


os.register_at_fork(after_in_child=_forget_after_fork)
