"""Carrying: what others read in the transaction of a beat, so that it costs none of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from oban_actors.actors import Ref
from oban_actors.errors import DatabaseError
from oban_actors.repo.sqlstates import lost_connection, translate

Work = Callable[[Connection, bool], Any]
"""Gets the connection, and whether beats of this node were just written on it."""


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """To the Pulse: do this in the transaction of the next beat, and tell what it gave.

    Once, and the last one of each who asks. A Pulse that crashes forgets it: whoever asks looks by
    himself when nothing comes.

    Attributes:
        work: a few milliseconds of reading; a savepoint keeps what it runs into from the beat.
        ref: who is told `Carried`.

    """

    work: Work
    ref: Ref


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """From the Pulse: what was carried, its transaction over.

    Attributes:
        work: which one it was.
        began: seconds on the boot clock before the transaction.
        ended: likewise after its commit.
        result: what it gave.
        error: why it gave nothing, None if it did.

    """

    work: Work
    began: float
    ended: float
    result: Any = None
    error: Exception | None = None

    def unpack(self) -> Any:
        """Give the result, or raise what was run into instead."""
        if self.error is not None:
            raise self.error
        return self.result


@dataclass(slots=True)
class Cargo:
    """What one beat carries."""

    _works: dict[Ref, Work] = field(default_factory=dict)
    _found: dict[Ref, tuple[Any, Exception | None]] = field(default_factory=dict)

    def add(self, carry: Carry) -> None:
        """Take something along."""
        self._works[carry.ref] = carry.work

    def carry(self, connection: Connection, *, written: bool) -> None:
        """Do all of it on a beat's connection.

        Args:
            connection: in the beat's transaction.
            written: whether that has written beats.

        """
        for ref, work in self._works.items():
            try:
                with connection.begin_nested():
                    self._found[ref] = work(connection, written), None
            except Exception as error:
                if connection.invalidated or lost_connection(error):
                    raise
                # Raised where it was asked for: nobody's bug ends a beat, or the Pulse.
                self._found[ref] = None, _explained(error)

    def unload(
        self, began: float, ended: float, failure: DatabaseError | None = None
    ) -> list[tuple[Ref, Carried]]:
        """Say who is to be told what.

        Args:
            began: seconds on the boot clock before the transaction.
            ended: likewise after it.
            failure: why the transaction failed, if it did.

        """
        told = []
        for ref, work in self._works.items():
            result, error = (None, failure) if failure else self._found[ref]
            told.append((ref, Carried(work, began, ended, result, error)))
        return told


def _explained(error: Exception) -> Exception:
    return translate(error) if isinstance(error, SQLAlchemyError) else error
