"""What cron asks of a job store: up to when each entry was evaluated, and who else lives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class CronMarks:
    """What the table says of entries.

    Attributes:
        now: the database's time, aware and in UTC.
        evaluated: by entry, up to when it was evaluated; those without a row are left out.

    """

    now: datetime
    evaluated: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A node of the same name, as far as its producers show that it lives.

    Attributes:
        identity: the instance's, unique in its process.
        started_at: when the first of its producers began, by the database's clock.
        shown: when it showed last that it lives.

    """

    identity: str
    started_at: datetime
    shown: datetime


class CronEngine(Protocol):
    """The part of a `JobEngine` that cron needs. Our own table: Elixir's Oban knows none of it."""

    def read_crons(
        self, connection: Connection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """Read the rows of some entries, with the database's time.

        Args:
            connection: to run on.
            name: the instance's.
            entries: their keys.
            now: a virtual clock's time.

        """

    def lock_crons(
        self, connection: Connection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """Read the rows, and keep others from doing so until the transaction ends.

        They are locked in the order of their keys. The time is read once they are.
        """

    def plant_crons(self, connection: Connection, name: str, marks: Mapping[str, datetime]) -> None:
        """Make rows for entries that have none; those that have one keep it."""

    def hurry_crons(self, connection: Connection, seconds: float) -> None:
        """Wait for others' locks for so long at most, from here to the end of the transaction."""

    def insert_nothing(self, connection: Connection) -> None:
        """Insert jobs, but none: what fails then is no job's."""

    def mark_crons(self, connection: Connection, name: str, marks: Mapping[str, datetime]) -> None:
        """Write up to when entries, whose rows are locked, were evaluated."""

    def prune_crons(
        self, connection: Connection, name: str, entries: Sequence[str], before: datetime
    ) -> None:
        """Delete rows of other entries than these that were evaluated last before a moment."""

    def find_neighbours(self, connection: Connection, name: str) -> list[Neighbour]:
        """Find the nodes of this name that have producers, this one too if it has some."""
