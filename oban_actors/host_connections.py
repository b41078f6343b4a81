"""The host's own transactions, whatever it holds them with."""

import json
import sqlite3
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import dialect as postgresql_dialect
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.compiler import SQLCompiler

from oban_actors.errors import ConfigError, UnfitTransaction
from oban_actors.repo.times import Dialect

T = TypeVar("T")
Execute = Callable[[str, Mapping[str, Any]], tuple[list[str], list[Any]]]

_KNOWN = (
    "a Session, Connection, AsyncSession or AsyncConnection of SQLAlchemy, a Connection or "
    "AsyncConnection of psycopg, a Connection of sqlite3, or Django's connection"
)


class HostConnection:
    """A host's connection of no SQLAlchemy, with as much of an SQLAlchemy Connection as is used.

    It begins nothing, and neither commits nor rolls back.

    Args:
        dialect: how statements are written for it.
        execute: runs one and gives the names of its columns and its rows.

    Attributes:
        info: for those who work on it.

    """

    def __init__(self, dialect: sa.engine.Dialect, execute: Execute) -> None:
        self.dialect = dialect
        self.info: dict[str, Any] = {}
        self._execute = execute

    def execute(
        self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None
    ) -> sa.Result[Any]:
        """Execute a statement; values are given to the driver as their types write them."""
        element = cast("sa.ClauseElement", statement)
        compiled = cast("SQLCompiler", element.compile(dialect=self.dialect))
        expanded = compiled.construct_expanded_state(dict(parameters or {}))
        writers = {**self._writers(compiled), **expanded.processors}
        values = {
            name: writers[name](value) if name in writers else value
            for name, value in dict(expanded.parameters or {}).items()
        }
        names, rows = self._execute(expanded.statement, values)
        return IteratorResult(SimpleResultMetaData(names), iter(rows))

    def _writers(self, compiled: SQLCompiler) -> dict[str, Callable[[Any], Any]]:
        kinds = {
            name: bind.type.dialect_impl(self.dialect) for name, bind in compiled.binds.items()
        }
        writers = {name: kind.bind_processor(self.dialect) for name, kind in kinds.items()}
        return {name: write for name, write in writers.items() if callable(write)}

    def get_transaction(self) -> "HostConnection":
        """Give what stands for the transaction that it is in."""
        return self


def adopt(handle: Any, option: str, dialect: Dialect) -> sa.Connection:
    """Give what a host's transaction is used by.

    Args:
        handle: the host's.
        option: its name, for messages.
        dialect: which kind of database it has to be.

    Raises:
        ConfigError: it is nothing that is known, async, or of another database.
        UnfitTransaction: it is in none, and commits each statement by itself.

    """
    if is_async(handle):
        raise ConfigError(
            f"invalid value for '{option}': {_kind(handle)} is async: use the async twin of this "
            "call, such as ainsert"
        )
    connection = _adopted(handle, option)
    if connection.dialect.name != dialect:
        raise _unfit(option, f"one to {dialect}", connection.dialect.name)
    return connection


def refuse_both(session: Any, connection: Any) -> None:
    """Refuse a session beside a connection.

    Raises:
        ConfigError: both are given.

    """
    if session is not None and connection is not None:
        got = f"{_kind(session)} and {_kind(connection)}"
        raise ConfigError(f"expected either session or connection, got both: {got}")


def is_async(handle: Any) -> bool:
    """Tell whether a host's handle is one that has to be awaited."""
    return isinstance(handle, (psycopg.AsyncConnection, *_async_kinds()))


async def run_on(
    handle: Any, option: str, dialect: Dialect, work: Callable[[sa.Connection], T]
) -> T:
    """Do what works on an adopted connection on one that has to be awaited.

    Args:
        handle: the host's, an async one.
        option: its name, for messages.
        dialect: which kind of database it has to be.
        work: gets the connection.

    Raises:
        ConfigError: it is of another database.
        UnfitTransaction: as in `adopt`.

    """
    if isinstance(handle, psycopg.AsyncConnection):
        from sqlalchemy.util import greenlet_spawn  # noqa: PLC0415 (it may not be installed)

        if dialect != "postgresql":
            raise _unfit(option, f"one to {dialect}", "postgresql")
        found: T = await greenlet_spawn(work, _psycopg_async(handle))
        return found
    if isinstance(handle, sys.modules["sqlalchemy.ext.asyncio"].async_scoped_session):
        # It stands for the session of the task that it is used in, but not in all.
        handle = handle()
    return cast("T", await handle.run_sync(lambda host: work(adopt(host, option, dialect))))


# Helpers


def _adopted(handle: Any, option: str) -> sa.Connection:
    # Nobody has a session who has not imported it, and importing it takes as long as all the rest.
    orm = sys.modules.get("sqlalchemy.orm")
    if orm is not None:
        if isinstance(handle, orm.scoped_session):
            handle = handle()
        if isinstance(handle, orm.Session):
            handle = handle.connection()
    if isinstance(handle, sa.Connection):
        if handle._is_autocommit_isolation():  # noqa: SLF001 (there is no public word for it)
            raise _no_transaction("begin() does nothing with isolation level AUTOCOMMIT")
        return handle
    made: HostConnection
    if isinstance(handle, HostConnection):
        made = handle
    elif isinstance(handle, psycopg.Connection):
        made = _psycopg(handle)
    elif isinstance(handle, sqlite3.Connection):
        made = _sqlite(handle)
    elif _is_django(handle):
        made = _django(handle)
    else:
        raise _unfit(option, _KNOWN, _kind(handle))
    return cast("sa.Connection", made)


def _async_kinds() -> tuple[type, ...]:
    # Nobody has one who has not imported it, and importing it needs greenlet.
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    if module is None:
        return ()
    return (module.AsyncSession, module.AsyncConnection, module.async_scoped_session)


def _is_django(handle: Any) -> bool:
    modules = (kind.__module__ for kind in type(handle).__mro__)
    own = any(module.startswith("django.") for module in modules)
    return own and hasattr(handle, "in_atomic_block")


def _psycopg(connection: "psycopg.Connection[Any]") -> HostConnection:
    _check_psycopg(connection)

    def execute(statement: str, values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        # Not the host's own kind of cursor, which may want another style of parameters.
        with psycopg.Cursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
            cursor.execute(statement.encode(), values)
            return _fetched(cursor)

    return HostConnection(_PSYCOPG, execute)


def _psycopg_async(connection: "psycopg.AsyncConnection[Any]") -> sa.Connection:
    from sqlalchemy.util import await_only  # noqa: PLC0415 (it may not be installed)

    _check_psycopg(connection)

    async def run(statement: str, values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        async with psycopg.AsyncCursor(connection, row_factory=psycopg.rows.tuple_row) as cursor:
            await cursor.execute(statement.encode(), values)
            names = [column.name for column in cursor.description or ()]
            return names, await cursor.fetchall() if names else []

    def execute(statement: str, values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        found: tuple[list[str], list[Any]] = await_only(run(statement, values))
        return found

    return cast("sa.Connection", HostConnection(_PSYCOPG, execute))


def _check_psycopg(connection: Any) -> None:
    idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if connection.autocommit and idle:
        raise _no_transaction("it is in autocommit mode: use connection.transaction()")
    if connection.pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF:
        raise UnfitTransaction(
            "the connection given is in pipeline mode, where a statement has no result until later:"
            " do this before or after the pipeline"
        )


def _sqlite(connection: sqlite3.Connection) -> HostConnection:
    plain = getattr(connection, "autocommit", -1) is True or connection.isolation_level is None
    if plain and not connection.in_transaction:
        raise _no_transaction("it is in autocommit mode: begin one")

    def execute(statement: str, values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        cursor = connection.cursor()
        cursor.row_factory = None
        try:
            cursor.execute(statement, values)
            return _fetched(cursor)
        finally:
            cursor.close()

    return HostConnection(_SQLITE, execute)


def _django(connection: Any) -> HostConnection:
    if connection.get_autocommit() and not connection.in_atomic_block:
        raise _no_transaction("it is in autocommit mode: use transaction.atomic()")
    dialects = {"postgresql": _PSYCOPG, "sqlite": _DJANGO_SQLITE}
    dialect = dialects.get(connection.vendor)
    if dialect is None:
        raise ConfigError(
            f"expected Django's connection to PostgreSQL or SQLite, got: {connection.vendor}"
        )

    def execute(statement: str, values: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, _without_wrappers(values))
            names, rows = _fetched(cursor)
            return names, [_with_json(cursor.description, row) for row in rows]

    return HostConnection(dialect, execute)


def _without_wrappers(values: Mapping[str, Any]) -> dict[str, Any]:
    # An older Django's driver is psycopg2, which knows none of psycopg's. The statement says that
    # it is JSON.
    wrappers = (psycopg.types.json.Json, psycopg.types.json.Jsonb)
    return {
        name: json.dumps(value.obj) if isinstance(value, wrappers) else value
        for name, value in values.items()
    }


def _with_json(description: Any, row: Any) -> list[Any]:
    # Django has told the driver to leave jsonb as text, which its own fields read; arrays of it are
    # read either way.
    values = list(row)
    for place, column in enumerate(description):
        if column[1] == _JSONB and isinstance(values[place], str):
            values[place] = json.loads(values[place])
    return values


def _fetched(cursor: Any) -> tuple[list[str], list[Any]]:
    names = [column[0] for column in cursor.description or ()]
    return names, list(cursor.fetchall()) if names else []


def _no_transaction(reason: str) -> UnfitTransaction:
    return UnfitTransaction(f"the connection given is in no transaction, since {reason}")


def _unfit(option: str, expected: str, got: str) -> ConfigError:
    return ConfigError(f"invalid value for '{option}': expected {expected}, got: {got}")


def _kind(handle: object) -> str:
    return f"{type(handle).__module__}.{type(handle).__qualname__}"


_JSONB = 3802
"""What PostgreSQL calls the type, in every version."""

_PSYCOPG = postgresql_dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_SQLITE = sqlite_dialect(paramstyle="named")
_DJANGO_SQLITE = sqlite_dialect(paramstyle="pyformat")
