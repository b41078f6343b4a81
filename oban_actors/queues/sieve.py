"""A turn among rows that the database refuses to change: they are found, and stop no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import sqlalchemy as sa

from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.errors import DatabaseError
from oban_actors.job import JobState
from oban_actors.sifting import Refused, halve, in_savepoint, refuses_a_row

Take = Callable[[Sequence[Ack], int], Turn]

T = TypeVar("T")
Alone = Callable[[Callable[[], Turn]], Turn]

_NOBODYS = Ack(-1, datetime(1970, 1, 1, tzinfo=UTC), JobState.COMPLETED)


@dataclass
class Sieve:
    """Takes a turn without those acknowledgements and claims that are refused.

    Args:
        take: takes a turn, given acknowledgements and how many jobs to claim.
        alone: does something that can be undone without anything else: in a savepoint, or in a
            transaction of its own; raises `Refused` where the database may have refused a row.

    Attributes:
        refused: why, by the ids of jobs whose acknowledgement was refused.
        unclaimable: why the next job of the queue can't be claimed, None if it can.

    """

    take: Take
    alone: Alone
    refused: dict[int, Exception] = field(default_factory=dict)
    unclaimable: Exception | None = None

    def look(self) -> None:
        """Take one without any row first: what fails then, too, is of none.

        Raises:
            sqlalchemy.exc.DBAPIError: the database can't work.

        """
        self.take([_NOBODYS], 0)

    def turn(self, acks: Sequence[Ack], limit: int) -> Turn:
        """Take it; refused acknowledgements are among the blocked ones.

        Raises:
            sqlalchemy.exc.DBAPIError: the database can't work.

        """
        written = halve(acks, lambda some: self.alone(partial(self.take, some, 0)))
        self.refused = {ack.job_id: why for ack, why in written.refused}

        def every(name: str) -> frozenset[int]:
            return frozenset[int]().union(*(getattr(turn, name) for turn in written.done))

        return replace(
            self._claim(limit),
            settled=every("settled"),
            stale=every("stale"),
            blocked=every("blocked") | frozenset(self.refused),
            completed=every("completed"),
            recounted=every("recounted"),
            left=frozenset(ack.job_id for ack in written.left),
        )

    def _claim(self, limit: int) -> Turn:
        while True:
            try:
                return self.alone(partial(self.take, (), limit))
            except Refused as refused:
                if limit < 1:
                    raise refused.why from None
                if limit == 1:
                    self.unclaimable = refused.why
                limit //= 2


def by_savepoints(connection: sa.Connection) -> Alone:
    """Undo what is refused within a transaction, which goes on."""
    return lambda work: in_savepoint(connection, work)


def by_transactions(work: Callable[[], T]) -> T:
    """Take it that the work is a transaction of its own."""
    try:
        return work()
    except DatabaseError as error:
        if not refuses_a_row(error):
            raise
        raise Refused(error) from error
