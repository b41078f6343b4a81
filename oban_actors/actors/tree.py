"""A live tree as others see it: read from the process table, so a stuck actor can't hide."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.process import Process


@dataclass(frozen=True, slots=True)
class ChildView:
    """What a supervisor shows of one child; `idle` is its state while it has no actor."""

    id: Hashable
    process: Process | None
    restarts: int
    last_crash: str | None
    idle: str = "stopped"


@dataclass(frozen=True, slots=True)
class Node:
    """One actor in the tree.

    Attributes:
        id: its id under its supervisor.
        actor: its class or registered name.
        state: starting, idle, busy, waiting, exited or abandoned; for a spec that has no
            actor now `stopped`, `starting`, or `restarting` while its supervisor tries again.
        handling: the message in hand, and `busy_for` its age in seconds.
        inbox: messages that wait, and `oldest` the age of the oldest in seconds.
        restarts: how often its supervisor restarted it.
        recent_restarts: a supervisor's restarts within its window.
        last_crash: the error it ended with last.
        children: a supervisor's children, in start order.
        note: what it says of itself: a queue's Producer, how many jobs run and how many are stuck.

    """

    id: Hashable
    actor: str
    state: str
    handling: str | None = None
    busy_for: float | None = None
    inbox: int = 0
    oldest: float | None = None
    restarts: int = 0
    recent_restarts: int | None = None
    last_crash: str | None = None
    children: tuple["Node", ...] = field(default=())
    note: str | None = None

    def walk(self) -> Iterator["Node"]:
        """Give this node and all below it, in start order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, id: Hashable) -> "Node | None":  # noqa: A002 (OTP's name for it)
        """Find the first node with this id, this one or below."""
        return next((node for node in self.walk() if node.id == id), None)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, fit for JSON."""
        return {
            "id": self.id if isinstance(self.id, str) else str(self.id),
            "actor": self.actor,
            "state": self.state,
            "handling": self.handling,
            "busy_for": self.busy_for,
            "inbox": self.inbox,
            "oldest": self.oldest,
            "restarts": self.restarts,
            "recent_restarts": self.recent_restarts,
            "last_crash": self.last_crash,
            "note": self.note,
            "children": [child.to_dict() for child in self.children],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> Iterator[str]:
        yield first + self._line()
        for child in self.children[:-1]:
            yield from child._lines(f"{rest}├─ ", f"{rest}│  ")  # noqa: SLF001 (its own kind)
        for child in self.children[-1:]:
            yield from child._lines(f"{rest}└─ ", f"{rest}   ")  # noqa: SLF001 (its own kind)

    def _line(self) -> str:
        name = self.id if isinstance(self.id, str) else str(self.id)
        parts = [f"{name:<12} {self.state}"]
        if self.handling is not None and self.busy_for is not None:
            parts.append(f"{self.handling} for {self.busy_for:.3f} s")
        if self.inbox:
            parts.append(f"inbox {self.inbox}, oldest {self.oldest or 0.0:.3f} s")
        if self.note:
            parts.append(self.note)
        if self.restarts:
            parts.append(f"restarted {self.restarts}x")
        if self.last_crash:
            parts.append(f"last crash: {self.last_crash}")
        return "  ".join(parts)


def look(process: Process | None, view: ChildView | None = None) -> Node:
    """Read one actor and all below it, sending no message."""
    restarts, crash = (view.restarts, view.last_crash) if view else (0, None)
    if process is None:
        id_ = view.id if view else None
        idle = view.idle if view else "stopped"
        return Node(id_, str(id_), idle, restarts=restarts, last_crash=crash)
    handling, since = process.handling, process.since
    children = process.children() if process.children else ()
    return Node(
        id=view.id if view else process.label,
        actor=process.label,
        state=process.state(),
        handling=handling,
        busy_for=None if handling is None else max(0.0, real_monotonic() - since),
        inbox=len(process.mailbox),
        oldest=process.mailbox.oldest(),
        restarts=restarts,
        recent_restarts=process.recent_restarts() if process.recent_restarts else None,
        last_crash=crash,
        children=tuple(look(one.process, one) for one in children),
        note=process.note() if process.note else None,
    )
