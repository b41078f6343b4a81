"""What transactions on PostgreSQL leave in the jobs table, to be known again by.

It is looked for only where a COMMIT got no answer.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from oban_actors.engines.inserts import RowTimes
from oban_actors.repo.commits import Trace
from oban_actors.repo.times import to_naive

_WRITTEN = "xmin = cast(cast(:transaction AS xid8) AS xid)"


def trace_of_insert(
    jobs: sa.Table, transaction_id: str, rows: Callable[[], Iterable[RowTimes]]
) -> Trace:
    """Give the trace of an insert: any of its jobs, whatever has become of it since.

    Args:
        jobs: the table.
        transaction_id: the transaction's.
        rows: gives what its rows were given.

    """

    def stands(connection: sa.Connection) -> bool:
        ids, moments, _ = zip(*rows(), strict=True)
        # An id alone may have been given again by a server that crashed meanwhile.
        inserted = _any({to_naive(each) for each in moments}, sa.TIMESTAMP())
        return _found(connection, _among(jobs, ids).where(jobs.c.inserted_at == inserted))

    return Trace(transaction_id, stands)


def trace_of_change(
    jobs: sa.Table, transaction_id: str, ids: Sequence[int], *, gone: bool = False
) -> Trace:
    """Give the trace of a change: any of its jobs that nobody has written to since.

    Args:
        jobs: the table.
        transaction_id: the transaction's.
        ids: of the jobs that it changed.
        gone: whether it deleted them.

    """

    def stands(connection: sa.Connection) -> bool:
        there = _among(jobs, ids)
        if gone:
            return not _found(connection, there)
        written = sa.text(_WRITTEN).bindparams(transaction=transaction_id)
        return _found(connection, there.where(written))

    return Trace(transaction_id, stands)


def _among(jobs: sa.Table, ids: Sequence[int]) -> "sa.Select[Any]":
    return sa.select(jobs.c.id).where(jobs.c.id == _any(ids, sa.BigInteger()))


def _any(values: Iterable[Any], kind: "sa.types.TypeEngine[Any]") -> "sa.ColumnElement[Any]":
    return sa.func.any(sa.literal(list(values), ARRAY(kind)))


def _found(connection: sa.Connection, query: "sa.Select[Any]") -> bool:
    return bool(connection.execute(sa.select(sa.exists(query))).scalar())
