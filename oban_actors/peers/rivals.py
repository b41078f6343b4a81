"""Elixir nodes of the same name: heard by their pings, and to whom leadership was offered."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

FORGET_AFTER = 120.0
"""Seconds after which a node that was not heard again is forgotten, as in Oban."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """The Elixir nodes around, as far as one Peer heard them.

    A ping of Oban's that comes right behind an announcement of ours, from the same database
    session, is a Python node's. Every other is an Elixir node's.

    Attributes:
        heard: when each was heard last.
        offered: those that could have had the leadership and did not take it.
        announced: session and node of the announcement just heard.

    """

    heard: Mapping[str, float] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    announced: tuple[int, str] | None = None

    @property
    def waiting(self) -> bool:
        """Whether there are some to whom leadership was not offered yet."""
        return any(node not in self.offered for node in self.heard)

    def announce(self, pid: int | None, node: object) -> Self:
        """Hear a message of ours; `node` is who it announces, if it does."""
        announced = (pid, node) if pid is not None and isinstance(node, str) else None
        if pid is None or announced == self.announced:
            return self
        return replace(self, announced=announced)

    def ping(self, pid: int | None, node: object, now: float) -> Self:
        """Hear a ping of Oban's. Without a session to tell by, nobody is taken for a rival."""
        if pid is None:
            return self
        ours = self.announced == (pid, node)
        rest = replace(self, announced=None)
        return rest if ours or not isinstance(node, str) else rest.note(node, now)

    def note(self, node: str, now: float) -> Self:
        """Record that a node lives."""
        return replace(self, heard={**self.heard, node: now})

    def leading(self, node: str, now: float) -> Self:
        """Record that one of them leads: when it ends, the others are offered it anew."""
        return replace(self.note(node, now), offered=frozenset())

    def prune(self, now: float) -> Self:
        """Forget those that fell silent."""
        heard = {one: at for one, at in self.heard.items() if now - at <= FORGET_AFTER}
        if len(heard) == len(self.heard):
            return self
        return replace(self, heard=heard, offered=self.offered & heard.keys())

    def offer(self) -> Self:
        """Record that all of them were offered the leadership."""
        return replace(self, offered=frozenset(self.heard))

    def take_back(self) -> Self:
        """Record that the offer did not reach them."""
        return replace(self, offered=frozenset())
