"""A turn among rows that the database refuses to change: they are found, and stop no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.staging import is_of_a_row

MOST_REFUSED = 20
"""Rows refused in one turn, with which it is no longer a matter of rows if nothing was written."""

Take = Callable[[Sequence[Ack], int], Turn]


@dataclass
class Sieve:
    """Takes a turn by halves, each in a savepoint, until those are alone that are refused.

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
    _written: list[Turn] = field(default_factory=list)

    def turn(self, acks: Sequence[Ack], limit: int) -> Turn:
        """Take it; refused acknowledgements are among the blocked ones.

        Raises:
            sqlalchemy.exc.DBAPIError: the database refuses all, or can't work.

        """
        if acks:
            self._write(acks)
        claimed = self._claim(limit)
        return replace(
            claimed,
            settled=self._all("settled"),
            stale=self._all("stale"),
            blocked=self._all("blocked") | frozenset(self.refused),
            completed=self._all("completed"),
        )

    def _write(self, acks: Sequence[Ack]) -> None:
        turn = self._attempt(acks, 0)
        if isinstance(turn, Turn):
            self._written.append(turn)
        elif len(acks) > 1:
            half = len(acks) // 2
            self._write(acks[:half])
            self._write(acks[half:])
        else:
            self.refused[acks[0].job_id] = turn
            if len(self.refused) >= MOST_REFUSED and not self._written:
                raise turn

    def _claim(self, limit: int) -> Turn:
        while True:
            turn = self._attempt((), limit)
            if isinstance(turn, Turn):
                return turn
            if limit == 1:
                self.unclaimable = turn
            limit //= 2

    def _attempt(self, acks: Sequence[Ack], limit: int) -> Turn | Exception:
        try:
            with self.connection.begin_nested():
                return self.take(acks, limit)
        except sa.exc.DBAPIError as error:
            if not is_of_a_row(error):
                raise
            return error

    def _all(self, name: str) -> frozenset[int]:
        return frozenset[int]().union(*(getattr(turn, name) for turn in self._written))


def refuses_a_row(error: BaseException) -> bool:
    """Whether an error of ours says that the database refused a row."""
    return is_of_a_row(error) or is_of_a_row(error.__cause__)
