"""A turn among rows that the database refuses to change: they are found, and stop no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Generic, TypeVar

import sqlalchemy as sa

from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.job import JobState
from oban_actors.staging import may_be_of_a_row

MOST_REFUSED = 20
"""Refused rows of a kind that one turn looks for; those not tried by then are the next one's."""

Take = Callable[[Sequence[Ack], int], Turn]

_NOBODYS = Ack(-1, datetime(1970, 1, 1, tzinfo=UTC), JobState.COMPLETED)
_LOOK_AT_CONSTRAINTS = sa.text("SET CONSTRAINTS ALL IMMEDIATE")

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Sifted(Generic[T, R]):
    """What became of many.

    Attributes:
        done: what came of those that were not refused.
        refused: each that was, and why.
        left: those that were not tried.

    """

    done: list[R] = field(default_factory=list)
    refused: list[tuple[T, Exception]] = field(default_factory=list)
    left: list[T] = field(default_factory=list)


def sift(
    connection: sa.Connection,
    items: Sequence[T],
    take: Callable[[Sequence[T]], R],
    most: int | None = None,
) -> Sifted[T, R]:
    """Take many by halves, each in a savepoint, until those are alone that are refused.

    Args:
        connection: in a transaction.
        items: what to take.
        take: takes some of them on it.
        most: how many refused ones to look for, default all.

    Raises:
        sqlalchemy.exc.DBAPIError: the database can't work.

    """
    found: Sifted[T, R] = Sifted()
    parts = [items] if items else []
    while parts:
        some = parts.pop()
        if most is not None and len(found.refused) >= most:
            found.left += some
            continue
        try:
            found.done.append(_in_savepoint(connection, partial(take, some)))
        except _Refused as refused:
            if len(some) > 1:
                half = len(some) // 2
                parts += [some[half:], some[:half]]
            else:
                found.refused.append((some[0], refused.why))
    return found


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
        written = sift(self.connection, acks, lambda some: self.take(some, 0), MOST_REFUSED)
        self.refused = {ack.job_id: why for ack, why in written.refused}

        def every(name: str) -> frozenset[int]:
            return frozenset[int]().union(*(getattr(turn, name) for turn in written.done))

        return replace(
            self._claim(limit),
            settled=every("settled"),
            stale=every("stale"),
            blocked=every("blocked") | frozenset(self.refused),
            completed=every("completed"),
            left=frozenset(ack.job_id for ack in written.left),
        )

    def _claim(self, limit: int) -> Turn:
        while True:
            try:
                return _in_savepoint(self.connection, partial(self.take, (), limit))
            except _Refused as refused:
                if limit < 1:
                    raise refused.why from None
                if limit == 1:
                    self.unclaimable = refused.why
                limit //= 2


def refuses_a_row(error: BaseException) -> bool:
    """Whether an error of ours says that the database may have refused a row."""
    return may_be_of_a_row(error) or may_be_of_a_row(error.__cause__)


class _Refused(Exception):
    def __init__(self, why: Exception) -> None:
        self.why = why


def _in_savepoint(connection: sa.Connection, work: Callable[[], R]) -> R:
    try:
        with connection.begin_nested():
            done = work()
            if connection.dialect.name == "postgresql":
                # At the COMMIT nobody would know whose they are.
                connection.execute(_LOOK_AT_CONSTRAINTS)
            return done
    except sa.exc.DBAPIError as error:
        if not may_be_of_a_row(error) or _is_undone(connection):
            raise
        raise _Refused(error) from error


def _is_undone(connection: sa.Connection) -> bool:
    # A trigger of SQLite can end the transaction, and not only what its row is part of.
    return not getattr(connection.connection.driver_connection, "in_transaction", True)
