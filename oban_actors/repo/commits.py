"""What became of a COMMIT that got no answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

TRACE = "oban_trace"

Fate = Literal["committed", "aborted", "in progress", "unknown"]

_STATUS = text("SELECT pg_xact_status(cast(:id AS xid8))")


@dataclass(frozen=True, slots=True)
class Trace:
    """What a transaction leaves behind by which it can be known again.

    Attributes:
        transaction_id: PostgreSQL's, of 64 bits.
        stands: looks on another connection whether what the transaction wrote is in the tables.

    """

    transaction_id: str
    stands: Callable[[Connection], bool]


UNWRITTEN = Trace("", lambda _: True)
"""Left by a transaction of which nothing is in the tables: what it found stands anyway."""


def leave(connection: Connection, trace: Trace) -> None:
    """Leave the trace of the transaction that a connection is in, in place of an earlier one."""
    connection.info[TRACE] = trace


def leave_beside(connection: Connection, trace: Trace) -> None:
    """Leave the trace of the transaction that a connection is in, unless there is one already."""
    connection.info.setdefault(TRACE, trace)


def take(connection: Connection) -> Trace | None:
    """Take up the trace that was left since the last time."""
    found: Trace | None = connection.info.pop(TRACE, None)
    return found


def fate(connection: Connection, trace: Trace) -> Fate:
    """Find out what became of a transaction.

    Its id alone is no proof of a COMMIT. A server that crashes, or is replaced by a standby, gives
    ids again of which it had written nothing down, and then tells of the one who got it next.

    Raises:
        DatabaseError: the server has given no such id yet, or can't be asked.

    """
    status = connection.execute(_STATUS, {"id": trace.transaction_id}).scalar()
    if status == "committed":
        return "committed" if trace.stands(connection) else "unknown"
    return status if status in ("aborted", "in progress") else "unknown"
