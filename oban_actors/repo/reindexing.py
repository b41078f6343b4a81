"""Building the indexes of the jobs table anew, and dropping what a build that failed has left."""

import contextlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal
from sqlalchemy import Connection, text

from oban_actors.errors import DatabaseError, StatementTimeout, TransientError
from oban_actors.repo.indexes import PATIENCE
from oban_actors.repo.sqlstates import translate

if TYPE_CHECKING:
    from oban_actors.repo.repo import Repo

NO_RIGHT = "42501"
"""insufficient_privilege"""

_GONE = {
    "42704",  # undefined_object
    "42P01",  # undefined_table, as an index that is not there is called too
}

# The primary key grows at its end only, and whatever is deleted leaves whole pages.
_INDEXES = {
    "postgresql": text("""
SELECT index.relname FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS index ON index.oid = i.indexrelid
JOIN pg_catalog.pg_class AS jobs ON jobs.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS space ON space.oid = jobs.relnamespace
WHERE space.nspname = :prefix AND jobs.relname = 'oban_jobs' AND NOT i.indisprimary
  AND index.relname !~ '_cc(new|old)[0-9]*$'
ORDER BY index.relname
"""),
    "sqlite": text(
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'oban_jobs' "
        "AND sql IS NOT NULL AND :prefix IS NOT NULL ORDER BY name"
    ),
}
_LEFTOVERS = text("""
SELECT index.relname FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS index ON index.oid = i.indexrelid
JOIN pg_catalog.pg_class AS owner ON owner.oid = i.indrelid
JOIN pg_catalog.pg_namespace AS space ON space.oid = owner.relnamespace
WHERE space.nspname = :prefix AND owner.relname LIKE 'oban\\_%' AND NOT i.indisvalid
  AND index.relname ~ '_cc(new|old)[0-9]*$'
ORDER BY index.relname
""")


def indexes(repo: "Repo") -> list[str]:
    """Name the indexes of the jobs table, without its primary key and what builds left behind."""
    statement = _INDEXES[repo.dialect]
    return _names(repo, statement)


def leftovers(repo: "Repo") -> list[str]:
    """Name what builds that failed have left on our tables; invalid, and kept up to date in vain.

    One that is being built looks the same: to drop it waits until that is over.
    """
    return _names(repo, _LEFTOVERS) if repo.dialect == "postgresql" else []


def reindex(repo: "Repo", name: str, timeout: float) -> None:
    """Build an index anew: on PostgreSQL while others go on writing, on SQLite they wait.

    Args:
        repo: the way to the database.
        name: of the index.
        timeout: seconds that it may take.

    Raises:
        StatementTimeout: it took longer.
        TransientError: transactions that are older did not end in time.
        DatabaseError: the role has not the right to, which the message says how to give; or the
            database failed.

    """
    if repo.dialect == "sqlite":
        quoted = '"' + name.replace('"', '""') + '"'

        def rebuild(connection: Connection) -> None:
            connection.exec_driver_sql(f"REINDEX {quoted}")

        repo.transaction(rebuild, statement_timeout=timeout, attempts=1)
        return
    index = Identifier(repo.config.prefix, name)
    _execute(repo, SQL("REINDEX INDEX CONCURRENTLY {}").format(index), name, timeout)


def drop(repo: "Repo", name: str, timeout: float) -> None:
    """Drop what `leftovers` named; see `reindex`."""
    index = Identifier(repo.config.prefix, name)
    _execute(repo, SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index), name, timeout)


def may_pass(error: DatabaseError) -> bool:
    """Whether only this index, this time, could not be built."""
    return isinstance(error, StatementTimeout | TransientError) or error.sqlstate in _GONE


def _names(repo: "Repo", statement: Any) -> list[str]:
    def look(connection: Connection) -> Sequence[str]:
        return connection.execute(statement, {"prefix": repo.config.prefix}).scalars().all()

    return list(repo.transaction(look, read_only=True))


def _execute(repo: "Repo", statement: Composed, name: str, timeout: float) -> None:
    with repo.lone_connection(timeout) as connection:
        try:
            for setting, seconds in (
                ("statement_timeout", timeout),
                ("lock_timeout", min(timeout, PATIENCE)),
            ):
                milliseconds = Literal(math.ceil(seconds * 1000))
                connection.execute(SQL("SET {} = {}").format(Identifier(setting), milliseconds))
            connection.execute(statement)
        except psycopg.Error as error:
            raise _explained(error, repo, name) from error
        finally:
            # Through a transaction pooler the session is somebody else's next.
            with contextlib.suppress(psycopg.Error):
                connection.execute("RESET statement_timeout")
                connection.execute("RESET lock_timeout")


def _explained(error: psycopg.Error, repo: "Repo", name: str) -> DatabaseError:
    found = translate(error)
    if found.sqlstate != NO_RIGHT:
        return found
    table = f"{repo.config.prefix}.oban_jobs"
    return DatabaseError(
        f"the role of this connection may not rebuild the index {name}: {found}. It has to own "
        f"{table} (GRANT the owner's role to it) or, from PostgreSQL 17 on, GRANT MAINTAIN ON "
        f"{table} to it; or leave the Reindexer to a node that may",
        sqlstate=NO_RIGHT,
    )
