"""A turn among rows that the database refuses to change: they are found, and stop no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import sqlalchemy as sa

from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.job import JobState
from oban_actors.sifting import Refused, in_savepoint, sift

Take = Callable[[Sequence[Ack], int], Turn]

_NOBODYS = Ack(-1, datetime(1970, 1, 1, tzinfo=UTC), JobState.COMPLETED)


@dataclass
class Sieve:
    """Takes a turn without those acknowledgements and claims that are refused.

    Args:
        connection: in a transaction.
        take: takes a turn on it, given acknowledgements and how many jobs to claim.

    Attributes:
        refused: why, by the ids of jobs whose acknowledgement was refused.
        unclaimable: why the next job of the queue can't be claimed, None if it can.

    """

    connection: sa.Connection
    take: Take
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
        written = sift(self.connection, acks, lambda some: self.take(some, 0))
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
                return in_savepoint(self.connection, partial(self.take, (), limit))
            except Refused as refused:
                if limit < 1:
                    raise refused.why from None
                if limit == 1:
                    self.unclaimable = refused.why
                limit //= 2
