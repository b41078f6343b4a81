"""The indexes of our own on the jobs table, built while others go on writing."""

import contextlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql

from oban_actors.repo import schema
from oban_actors.repo.key_indexes import KeyIndex
from oban_actors.repo.sqlstates import translate

if TYPE_CHECKING:
    from oban_actors.repo.repo import Repo

logger = logging.getLogger("oban_actors")

PATIENCE = 60.0
"""Seconds to wait for transactions that are older than the index."""

_DEFINITIONS = {
    schema.STAGING_INDEX: "(scheduled_at, id) WHERE state IN ('scheduled', 'retryable')",
    # For unique jobs. A row has an entry in one of the first two, and none while it is executing:
    # what every job pays for at each step of its life had better be little.
    "oban_actors_unfinished_index": (
        "(worker, jsonb_hash_extended(args, 0), inserted_at) "
        "WHERE state NOT IN ('executing', 'completed', 'discarded', 'cancelled')"
    ),
    "oban_actors_finished_index": (
        "(worker, jsonb_hash_extended(args, 0), inserted_at) "
        "WHERE state NOT IN ('executing', 'available', 'scheduled', 'retryable')"
    ),
}
_BEARABLE = {
    "0A000",  # feature_not_supported: the table is partitioned
    "40P01",  # deadlock_detected
    "42501",  # insufficient_privilege
    "55P03",  # lock_not_available
}
_LOCK = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('oban_actors indexes ' || :prefix, 0))"
)


def create(connection: Connection, prefix: str) -> None:
    """Build those that are not there within a transaction, for which writers have to wait."""
    table = _quoted(prefix)
    for name, definition in _DEFINITIONS.items():
        connection.exec_driver_sql(
            f"CREATE INDEX IF NOT EXISTS {name} ON {table}.oban_jobs {definition}",
            execution_options={"no_parameters": True},
        )


def ensure(repo: "Repo", prefix: str, key_indexes: Sequence[KeyIndex] = ()) -> None:
    """Build those on PostgreSQL that are not there; an invalid leftover is replaced.

    Without the right to, or when old transactions don't end, a warning is logged: everything
    works without them, only slower. If another process builds them now, that one is left to it.

    Args:
        repo: the way to the database.
        prefix: schema of the tables.
        key_indexes: those for jobs that are unique by keys.

    Raises:
        DatabaseError: the database failed in another way.

    """
    wanted = _DEFINITIONS | {each.name: each.definition for each in key_indexes}

    def build(guard: Connection) -> None:
        # The lock lives in an idle transaction, which the build does not wait for: it has no
        # snapshot. A session's lock would be left behind by a transaction pooler.
        if not guard.execute(_LOCK, {"prefix": prefix}).scalar():
            logger.info("another process builds the indexes of our own")
            return
        found = schema.inspect(guard, prefix)
        missing = [name for name in wanted if not found.indexes.get(name)]
        if missing and found.version != schema.EXTERNAL:
            # A query without parameters ends the one before, and with it its snapshot.
            guard.exec_driver_sql("SELECT 1", execution_options={"no_parameters": True})
            with repo.raw_connection() as connection:
                leftovers = {name for name in missing if name in found.indexes}
                _build(connection, prefix, {name: wanted[name] for name in missing}, leftovers)

    repo.transaction(build, statement_timeout=0)


def _build(
    connection: "psycopg.Connection[Any]",
    prefix: str,
    missing: Mapping[str, str],
    leftovers: Collection[str],
) -> None:
    try:
        connection.execute("SET statement_timeout = 0")
        patience = Literal(math.ceil(PATIENCE * 1000))
        connection.execute(SQL("SET lock_timeout = {}").format(patience))
        for name, definition in missing.items():
            if name in leftovers:
                drop = SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
                connection.execute(drop.format(Identifier(prefix, name)))
            table = Identifier(prefix, "oban_jobs")
            build = SQL("CREATE INDEX CONCURRENTLY {} ON {} ").format(Identifier(name), table)
            # Made of our own words and of keys that are quoted already.
            connection.execute(build + SQL(definition))
    except psycopg.Error as error:
        if error.sqlstate not in _BEARABLE:
            raise translate(error) from error
        logger.warning(
            "work goes on without the index %s, so slower on large tables; oban.migrate() "
            "tries again: %s",
            ", ".join(missing),
            translate(error),
        )
    finally:
        # Through a transaction pooler the session is somebody else's next.
        with contextlib.suppress(psycopg.Error):
            connection.execute("RESET statement_timeout")
            connection.execute("RESET lock_timeout")


def _quoted(prefix: str) -> str:
    return postgresql.dialect().identifier_preparer.quote_identifier(prefix)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
