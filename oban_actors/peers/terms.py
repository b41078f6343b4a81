"""What the decisions about the lease are made of: rules, rows, plans and effects."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

MARGIN = 1.0
"""Seconds before its end, at most, that a lease is no longer trusted."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What one Peer was told.

    Args:
        node: its row identity, without the lock's mark.
        lease: seconds that the lease lasts.
        renew: seconds between renewals.
        yields: whether it leaves leadership to Elixir nodes.
        fast: whether advisory locks are to be had.

    """

    node: str
    lease: float
    renew: float
    yields: bool = True
    fast: bool = False

    @property
    def trust(self) -> float:
        """Seconds for which its lease is trusted, from before it was written."""
        return self.lease - min(MARGIN, self.lease / 10)


@dataclass(frozen=True, slots=True)
class Row:
    """The lease's row as the database gave it.

    Attributes:
        node: who holds it.
        started_at: the term, by the database's clock and in its type.
        expires_at: likewise.
        left: seconds until then, by the database's clock; zero or less when expired.

    """

    node: str
    started_at: datetime | str
    expires_at: datetime | str
    left: float

    def is_as(self, other: "Row | None") -> bool:
        """Whether nobody has written to it between this look and another one."""
        return other is not None and (
            (self.node, self.started_at, self.expires_at)
            == (other.node, other.started_at, other.expires_at)
        )


@dataclass(frozen=True, slots=True)
class Held:
    """The lease as its holder has it.

    Attributes:
        term: `started_at` as the database gave it.
        written: `expires_at` as it was written last.
        trusted_until: when this process stops to believe in it, unless renewed.
        marked: whether the row says that a lock backs it.

    """

    term: datetime | str
    written: datetime | str
    trusted_until: float
    marked: bool


class Plan(Enum):
    """What to do now."""

    WAIT = "wait"
    LOOK = "look"
    LOCK = "lock"
    CLAIM = "claim"
    RENEW = "renew"


@dataclass(frozen=True, slots=True)
class Gained:
    """Leadership began."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Leadership ended."""

    why: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Remove the own row, if there is one, and tell `down`."""


@dataclass(frozen=True, slots=True)
class Unlock:
    """Give the advisory lock back."""


@dataclass(frozen=True, slots=True)
class Rivalry:
    """An Elixir node was found with which this one competes."""

    node: str


@dataclass(frozen=True, slots=True)
class Stranded:
    """A row was found that ends later than any lease lasts."""

    node: str
    left: float


Effect = Gained | Lost | Withdraw | Unlock | Rivalry | Stranded
