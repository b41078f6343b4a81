"""The index that makes staging cheap, built while others go on writing."""

import logging
import math
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import Connection, text

from oban_actors.repo import schema
from oban_actors.repo.sqlstates import translate

if TYPE_CHECKING:
    from oban_actors.repo.repo import Repo

logger = logging.getLogger("oban_actors")

PATIENCE = 60.0
"""Seconds to wait for transactions that are older than the index."""

_BEARABLE = {
    "0A000",  # feature_not_supported: the table is partitioned
    "40P01",  # deadlock_detected
    "42501",  # insufficient_privilege
    "55P03",  # lock_not_available
}
_LOCK = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('oban_actors staging index ' || :prefix, 0))"
)


def ensure(repo: "Repo", prefix: str) -> None:
    """Build the index on PostgreSQL unless it is there; an invalid leftover is replaced.

    Without the right to, or when old transactions don't end, a warning is logged: everything
    works without it, only slower. If another process builds it now, that one is left to it.

    Raises:
        DatabaseError: the database failed in another way.

    """

    def build(guard: Connection) -> None:
        # The lock lives in an idle transaction, which the build does not wait for: it has no
        # snapshot. A session's lock would be left behind by a transaction pooler.
        if not guard.execute(_LOCK, {"prefix": prefix}).scalar():
            logger.info("another process builds the index %s", schema.STAGING_INDEX)
            return
        found = schema.inspect(guard, prefix)
        if found.staging_index is not True and found.version != schema.EXTERNAL:
            # A query without parameters ends the one before, and with it its snapshot.
            guard.exec_driver_sql("SELECT 1", execution_options={"no_parameters": True})
            with repo.raw_connection() as connection:
                _build(connection, prefix, leftover=found.staging_index is None)

    repo.transaction(build, statement_timeout=0)


def _build(connection: "psycopg.Connection[Any]", prefix: str, *, leftover: bool) -> None:
    table = Identifier(prefix, "oban_jobs")
    index = Identifier(schema.STAGING_INDEX)
    try:
        connection.execute("SET statement_timeout = 0")
        patience = Literal(math.ceil(PATIENCE * 1000))
        connection.execute(SQL("SET lock_timeout = {}").format(patience))
        if leftover:
            connection.execute(
                SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(
                    Identifier(prefix, schema.STAGING_INDEX)
                )
            )
        connection.execute(
            SQL(
                "CREATE INDEX CONCURRENTLY {} ON {} (scheduled_at, id) "
                "WHERE state IN ('scheduled', 'retryable')"
            ).format(index, table)
        )
    except psycopg.Error as error:
        if error.sqlstate not in _BEARABLE:
            raise translate(error) from error
        logger.warning(
            "staging goes on without the index %s, so slower on large tables; oban.migrate() "
            "tries again: %s",
            schema.STAGING_INDEX,
            translate(error),
        )
