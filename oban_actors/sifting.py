"""Many rows at once among some that the database refuses: those are found, and stop no others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import sqlalchemy as sa

from oban_actors.staging import may_be_of_a_row

MOST_REFUSED = 20
"""Refused rows of a kind that one transaction looks for; those not tried by then are the next's."""

_LOOK_AT_CONSTRAINTS = sa.text("SET CONSTRAINTS ALL IMMEDIATE")

T = TypeVar("T")
R = TypeVar("R")


class Refused(Exception):
    """The database refused something, and what it was part of goes on without it.

    Args:
        why: how it said so.

    """

    def __init__(self, why: Exception) -> None:
        super().__init__(why)
        self.why = why


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
    *,
    look: Callable[[], object] | None = None,
) -> Sifted[T, R]:
    """Take many by halves, each in a savepoint, until those are alone that are refused.

    Of these no more than `MOST_REFUSED` are looked for.

    Args:
        connection: in a transaction.
        items: what to take.
        take: takes some of them on it.
        look: does the same without any row, once one was refused: what fails then, too, is of
            none. None: that was done before.

    Raises:
        sqlalchemy.exc.DBAPIError: the database can't work.

    """
    return halve(items, lambda some: in_savepoint(connection, partial(take, some)), look=look)


def halve(
    items: Sequence[T],
    attempt: Callable[[Sequence[T]], R],
    *,
    look: Callable[[], object] | None = None,
) -> Sifted[T, R]:
    """Take many by halves, until those are alone that are refused; see `sift`.

    Args:
        items: what to take.
        attempt: takes some of them, all or none; raises `Refused`.
        look: as for `sift`.

    """
    found: Sifted[T, R] = Sifted()
    parts = [items] if items else []
    while parts:
        some = parts.pop()
        if len(found.refused) >= MOST_REFUSED:
            found.left += some
            continue
        try:
            found.done.append(attempt(some))
        except Refused as refused:
            if look is not None:
                look()
                look = None
            if len(some) > 1:
                half = len(some) // 2
                parts += [some[half:], some[:half]]
            else:
                found.refused.append((some[0], refused.why))
    return found


def refuses_a_row(error: BaseException) -> bool:
    """Whether an error of ours says that the database may have refused a row."""
    return may_be_of_a_row(error) or may_be_of_a_row(error.__cause__)


def in_savepoint(connection: sa.Connection, work: Callable[[], R]) -> R:
    """Do it in a savepoint, its deferred constraints too.

    Args:
        connection: in a transaction.
        work: what to do.

    Raises:
        Refused: the database may have refused a row of it; it is undone, and nothing else.
        sqlalchemy.exc.DBAPIError: the database can't work.

    """
    try:
        with connection.begin_nested():
            done = work()
            if connection.dialect.name == "postgresql":
                # At the COMMIT nobody would know whose they are. Undone, so that those of what
                # follows are deferred as before.
                with connection.begin_nested() as look:
                    connection.execute(_LOOK_AT_CONSTRAINTS)
                    look.rollback()
            return done
    except sa.exc.DBAPIError as error:
        if not may_be_of_a_row(error) or _is_undone(connection):
            raise
        raise Refused(error) from error


def _is_undone(connection: sa.Connection) -> bool:
    # A trigger of SQLite can end the transaction, and not only what its row is part of.
    return not getattr(connection.connection.driver_connection, "in_transaction", True)
