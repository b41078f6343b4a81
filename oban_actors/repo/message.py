"""A whole transaction as one message to PostgreSQL, where round trips would be most of its time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.rows import tuple_row
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

from oban_actors.repo.sqlstates import lost_connection

if TYPE_CHECKING:
    Driver = psycopg.Connection[Any]

Rows = list[tuple[Any, ...]]


_DIALECT = psycopg_dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


def pyformat(statement: str) -> str:
    """Write a statement with `:name` for its parameters in the style that `send` takes."""
    return " ".join(str(text(statement).compile(dialect=_DIALECT)).split())


def send(connection: Connection, statements: str, parameters: Mapping[str, Any]) -> list[Rows]:
    """Send statements together, and give the rows of each that has any, in their order.

    The values are written into the text, since PostgreSQL takes several statements only so. Each
    is planned and run after the one before, and sees what that did; the first that fails ends
    them all.

    Args:
        connection: of the pool, in the driver's autocommit mode.
        statements: with a semicolon between them, in psycopg's style of parameters.
        parameters: their values.

    Raises:
        psycopg.Error: one of them failed, or the connection did.

    """
    driver = cast("Driver", connection.connection.driver_connection)
    found: list[Rows] = []
    try:
        with psycopg.ClientCursor(driver, row_factory=tuple_row) as cursor:
            cursor.execute(statements, parameters)
            more: bool | None = True
            while more:
                if cursor.description is not None:
                    found.append(cursor.fetchall())
                more = cursor.nextset()
    except psycopg.Error as error:
        # SQLAlchemy did not see it fail, and would use a dead one again.
        if lost_connection(error):
            connection.invalidate(error)
        raise
    return found
