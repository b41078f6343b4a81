"""Actors that do what a test tells them, and a journal of what they did."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pykka.messages import ProxyCall

from oban_actors.actors import (
    IGNORE,
    ChildSpec,
    Continue,
    GenServer,
    NoProcess,
    Reason,
    Root,
    Sender,
    ServerCrashed,
    Stop,
    WhichChildren,
)
from oban_actors.actors.process import Process, process_of
from tests.support.waiting import wait_until


class Boom(Exception):
    """A bug in an actor."""


class Journal:
    """What happened, in its order, from any thread."""

    def __init__(self) -> None:
        self._lines: list[tuple[Any, ...]] = []

    def __call__(self, *line: Any) -> None:
        """Write a line."""
        self._lines.append(line)

    @property
    def lines(self) -> list[tuple[Any, ...]]:
        """All lines so far."""
        return list(self._lines)

    def about(self, *starts: str) -> list[tuple[Any, ...]]:
        """The lines that begin with one of these words."""
        return [line for line in self._lines if line[0] in starts]

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()


Do = Callable[["Lab"], Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Lets a Lab run a function; what that returns is the answer."""

    do: Do


@dataclass(frozen=True, slots=True)
class RunWith:
    """As `Run`, for a function that wants the sender too."""

    do: Callable[["Lab", Sender], Any]


@dataclass(frozen=True)
class Hooks:
    """What a Lab does in its callbacks, beside writing its journal."""

    init: Do | None = None
    goes_on: Callable[["Lab", Any], Any] | None = None
    ends: Callable[["Lab", Reason], Any] | None = None
    killed: Do | None = None


@dataclass
class Gate:
    """Holds an actor until it is opened, and says when somebody stands before it."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, *_: Any) -> None:
        """Stand before it."""
        self.reached.set()
        assert self.opened.wait(60), "nobody opened the gate"

    def wait(self) -> None:
        """Wait until somebody stands before it."""
        assert self.reached.wait(30), "nobody came to the gate"

    def open(self, *_: Any) -> None:
        """Let all pass."""
        self.opened.set()


class Lab(GenServer):
    """Runs what it is sent, writes down its callbacks, answers other questions with themselves."""

    def __init__(
        self, tag: str = "lab", journal: Journal | None = None, hooks: Hooks | None = None
    ) -> None:
        super().__init__()
        self.tag = tag
        self.journal = journal or Journal()
        self.hooks = hooks or Hooks()

    def init(self) -> Any:
        """Write `start` when it is going to run."""
        answer = self.hooks.init(self) if self.hooks.init else None
        if answer is not IGNORE:
            self.journal("start", self.tag)
        return answer

    def handle_continue(self, arg: Any) -> Continue | None:
        """Write `continue`."""
        self.journal("continue", self.tag, arg)
        rest: Continue | None = self.hooks.goes_on(self, arg) if self.hooks.goes_on else None
        return rest

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Run what is to be run, else answer with the question."""
        if isinstance(message, Run):
            return message.do(self)
        if isinstance(message, RunWith):
            return message.do(self, sender)
        return message

    def handle_info(self, message: Any) -> Continue | None:
        """Run what is to be run, else write `info`."""
        if isinstance(message, Run):
            rest = message.do(self)
            return rest if isinstance(rest, Continue) else None
        self.journal("info", self.tag, message)
        return None

    def terminate(self, reason: Reason) -> None:
        """Write `end` and the kind of reason."""
        self.journal("end", self.tag, reason.kind)
        if self.hooks.ends:
            self.hooks.ends(self, reason)

    def on_kill(self) -> None:
        """Write `kill`."""
        self.journal("kill", self.tag)
        if self.hooks.killed:
            self.hooks.killed(self)


def crash(error: BaseException | type[BaseException] = Boom) -> Run:
    """A message that makes a Lab raise."""

    def do(_: Lab) -> None:
        raise error

    return Run(do)


def lab(tag: str, journal: Journal | None = None, **options: Any) -> ChildSpec:
    """The spec of a Lab whose tag is its id and its name."""
    return Lab.child_spec(
        tag, journal, options.pop("hooks", None), id=tag, name=options.pop("name", tag), **options
    )


def ids(root: Root) -> list[Hashable]:
    """Ids of the running children, asked once the supervisor has done all it was sent before."""
    return [id_ for id_, ref in root.ref.ask(WhichChildren()).items() if ref is not None]


def known(root: Root) -> list[Hashable]:
    """Ids of all children, running or not."""
    return list(root.ref.ask(WhichChildren()))


def settled(root: Root) -> bool:
    """Wait until a supervisor did all that it was told, retries included; False if it ended."""

    def quiet() -> bool:
        # Asked, and so read between two messages: amidst one the view is in flux.
        views = root.ref.ask(ProxyCall(("_views",), (), {}))
        return not any(view.idle == "restarting" for view in views)

    try:
        return wait_until(quiet)
    except (NoProcess, ServerCrashed):
        return False


def gone(ref: Any) -> Process:
    """Wait for the end of an actor and of its thread, and give its entry."""
    process = process_of(ref)
    assert process.exited.wait(30)
    if process.thread is not None:
        process.thread.join(30)
        assert not process.thread.is_alive()
    return process


def failing(times: int, error: BaseException | None = None) -> Do:
    """An `init` that fails so many times, and writes `fail` each time."""
    left = [times]

    def init(me: Lab) -> None:
        if left[0]:
            left[0] -= 1
            me.journal("fail", me.tag)
            raise error or Boom("init")

    return init


def failing_again(times: int) -> Do:
    """As `failing`, but the first start succeeds."""
    fail, first = failing(times), [True]

    def init(me: Lab) -> None:
        if first:
            first.pop()
        else:
            fail(me)

    return init


def end_child(root: Any, name: str, message: Run) -> None:
    """Let a child end, and wait until its supervisor has done what follows."""
    ref = root.whereis(name)
    ref.tell(message)
    gone(ref)
    settled(root)


def stopping(reason: Reason) -> Run:
    """A message that makes a Lab stop."""

    def do(_: Lab) -> None:
        raise Stop(reason)

    return Run(do)


def spy_on_inbox(
    patch: pytest.MonkeyPatch, ref: Any, kind: type, note: Callable[[], None] = lambda: None
) -> list[Any]:
    """Keep the messages of a kind that come to an actor."""
    put, seen = ref.actor_inbox.put, list[Any]()

    def spy(envelope: Any) -> None:
        if isinstance(envelope.message, kind):
            seen.append(envelope.message)
            note()
        put(envelope)

    patch.setattr(ref.actor_inbox, "put", spy)
    return seen
