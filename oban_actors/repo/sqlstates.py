"""What a driver's error means to us: our own exceptions, without what rows or passwords held."""

import sqlite3
from collections.abc import Mapping

import psycopg
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from oban_actors.errors import (
    DatabaseError,
    DatabaseUnavailable,
    StatementTimeout,
    TransientError,
    UndefinedTable,
)

LOCK_NOT_AVAILABLE = "55P03"
CONFLICTS = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    LOCK_NOT_AVAILABLE,
}
READ_ONLY = "25006"
"""read_only_sql_transaction: the server is a standby by now."""
UNAVAILABLE = {
    "25P03",  # idle_in_transaction_session_timeout
    "53300",  # too_many_connections
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P05",  # idle_session_timeout
}
QUERY_CANCELED = "57014"
INVALID_PARAMETER = "22023"
ABORTED = "25P02"
UNDEFINED_TABLE = "42P01"

_SQLITE = {
    sqlite3.SQLITE_BUSY: TransientError,
    sqlite3.SQLITE_LOCKED: TransientError,
    sqlite3.SQLITE_INTERRUPT: StatementTimeout,
    sqlite3.SQLITE_CANTOPEN: DatabaseUnavailable,
    sqlite3.SQLITE_IOERR: DatabaseUnavailable,
    sqlite3.SQLITE_FULL: DatabaseUnavailable,
}


def sqlstate(error: BaseException | None) -> str | None:
    """Give the SQLSTATE of an error of any PostgreSQL driver, bare, or wrapped as it comes."""
    found = None if error is None else _of_the_driver(error)
    fields = found.args[0] if found is not None and found.args else None
    if isinstance(fields, Mapping):
        # So pg8000 gives what the server has said.
        code = fields.get("C")
        return code if isinstance(code, str) else None
    return getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)


def _of_the_driver(error: BaseException) -> BaseException:
    # SQLAlchemy wraps it, and so does Django.
    wrapped = type(error).__module__ == "django.db.utils"
    found: BaseException | None = error.__cause__ if wrapped else getattr(error, "orig", None)
    return found or error


def lost_connection(error: Exception) -> bool:
    """Whether the error says that the connection is gone, so that nobody heard the rest."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    code = sqlstate(error)
    if code is not None:
        return code.startswith("08") or code in UNAVAILABLE
    found = _of_the_driver(error)
    return isinstance(found, psycopg.OperationalError | psycopg.InterfaceError)


def translate(error: Exception) -> DatabaseError:
    """Make the error of a driver or of SQLAlchemy one of ours; raise it `from` the given one.

    That one loses what it quotes of rows, as tracebacks show it too.
    """
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("all connections of the pool were in use for too long")
    found = _of_the_driver(error)
    if isinstance(found, sqlite3.Error):
        return _sqlite(found)
    if isinstance(found, psycopg.Error) and getattr(found, "_pgconn", None) is not None:
        # Of a connection that was not made it keeps the password, which its attributes show.
        found._pgconn = None  # noqa: SLF001 (there is no other way)
    code, said = sqlstate(error), _text(found)
    if isinstance(found, psycopg.Error) and found.args:
        found.args = (said, *found.args[1:])
    if isinstance(error, StatementError):
        kind = type(found)
        error.args = (f"({kind.__module__}.{kind.__qualname__}) {said}", *error.args[1:])
    return _kind(error, code)(said, sqlstate=code)


def _kind(error: Exception, code: str | None) -> type[DatabaseError]:
    if code in CONFLICTS:
        return TransientError
    if code == READ_ONLY or lost_connection(error):
        return DatabaseUnavailable
    if code == QUERY_CANCELED:
        return StatementTimeout
    if code == UNDEFINED_TABLE:
        return UndefinedTable
    return DatabaseError


def _sqlite(error: sqlite3.Error) -> DatabaseError:
    # An extended code holds the plain one in its low byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_ERROR and str(error).startswith("no such table"):
        return UndefinedTable(str(error))
    return _SQLITE.get(code, DatabaseError)(str(error))


def _text(error: BaseException) -> str:
    # The detail of a PostgreSQL error may quote a whole row; its primary message does not.
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return primary or " ".join(str(error).split())
