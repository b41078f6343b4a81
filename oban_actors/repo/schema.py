"""Which tables a database has, and of which version."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields

from sqlalchemy import Connection, text

from oban_actors.errors import DatabaseError, SchemaMissing
from oban_actors.job import Job

EXTERNAL = sys.maxsize
"""Version of jobs tables that somebody else looks after; the comment says `∞`."""

COLUMNS = frozenset(each.name for each in fields(Job)) - {
    "schedule_in",
    "conflict",
    "unique",
    "replace",
    "running",
}
"""Columns of `oban_jobs` that are used, whatever the version that made them."""

OWN_TABLE = "oban_actors_producers"
STAGING_INDEX = "oban_actors_staging_index"
UNIQUE_INDEX = "oban_actors_unique_index"
"""SQLite's, for unique jobs; it is read by name there, like that for staging."""

_PG_TABLES = """
SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = :prefix AND c.relkind IN ('r', 'p')
  AND c.relname IN ('oban_jobs', 'oban_peers', 'oban_actors_producers')
"""
_PG_INDEXES = """
SELECT c.relname, i.indisvalid
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :prefix AND c.relname LIKE 'oban\\_actors\\_%'
"""
_SQLITE_INDEXES = """
SELECT name, true FROM sqlite_schema
WHERE type = 'index' AND name LIKE 'oban\\_actors\\_%' ESCAPE '\\'
"""
_SQLITE_TABLES = """
SELECT m.name, NULL, c.name
FROM sqlite_schema m JOIN pragma_table_info(m.name) c
WHERE m.type = 'table'
  AND m.name IN ('oban_jobs', 'oban_peers', 'oban_actors_producers', 'oban_actors_meta')
"""


@dataclass(frozen=True)
class Facts:
    """What was found in a database.

    Attributes:
        version: of the jobs tables: 0 if there are none, `EXTERNAL` if somebody else looks
            after them.
        own_version: of the tables that only this library uses; 0 if there are none.
        peers: whether there is a table for leadership.
        producers: whether there is a table for producers' beats.
        indexes: by the names of those of our own that are there, whether they are valid.
        columns: of `oban_jobs`.

    """

    version: int
    own_version: int
    peers: bool
    producers: bool
    indexes: Mapping[str, bool]
    columns: frozenset[str]

    @property
    def staging_index(self) -> bool | None:
        """Whether staging has its index; None: there is one, but an invalid one."""
        return self.indexes[STAGING_INDEX] or None if STAGING_INDEX in self.indexes else False


def inspect(connection: Connection, prefix: str) -> Facts:
    """Look which tables there are.

    Raises:
        DatabaseError: a version is none, or the database failed.

    """
    postgres = connection.dialect.name == "postgresql"
    columns: dict[str, set[str]] = {}
    comments: dict[str, str | None] = {}
    tables = text(_PG_TABLES if postgres else _SQLITE_TABLES)
    for table, comment, column in connection.execute(
        tables, {"prefix": prefix} if postgres else {}
    ):
        columns.setdefault(table, set()).add(column)
        comments[table] = comment
    if not postgres:
        comments = _sqlite_versions(connection, columns)
    return Facts(
        version=_version(comments.get("oban_jobs")),
        own_version=_version(comments.get(OWN_TABLE)),
        peers="oban_peers" in columns,
        producers=OWN_TABLE in columns,
        indexes=_indexes(connection, prefix, postgres=postgres),
        columns=frozenset(columns.get("oban_jobs", ())),
    )


def verify(connection: Connection, prefix: str) -> Facts:
    """Check that the jobs table is there with all that is used of it.

    Raises:
        SchemaMissing: it is not.

    """
    facts = inspect(connection, prefix)
    where = f" in schema {prefix!r}" if connection.dialect.name == "postgresql" else ""
    if not facts.columns:
        raise SchemaMissing(f"there is no table oban_jobs{where}: call oban.migrate() first")
    if missing := COLUMNS - facts.columns:
        raise SchemaMissing(
            f"the table oban_jobs{where} has no column {', '.join(sorted(missing))}: "
            "call oban.migrate() first"
        )
    if connection.dialect.name == "sqlite":
        for name in (STAGING_INDEX, UNIQUE_INDEX):
            if name not in facts.indexes:
                raise SchemaMissing(f"there is no index {name}: call oban.migrate() first")
    return facts


def _sqlite_versions(connection: Connection, columns: dict[str, set[str]]) -> dict[str, str | None]:
    # There is only one version of Elixir's, so that it writes none.
    versions: dict[str, str | None] = {"oban_jobs": "1" if "oban_jobs" in columns else None}
    if "oban_actors_meta" in columns:
        own = text("SELECT value FROM oban_actors_meta WHERE key = 'version'")
        versions[OWN_TABLE] = connection.execute(own).scalar()
    return versions


def _indexes(connection: Connection, prefix: str, *, postgres: bool) -> dict[str, bool]:
    query = text(_PG_INDEXES if postgres else _SQLITE_INDEXES)
    rows = connection.execute(query, {"prefix": prefix} if postgres else {})
    return {name: bool(valid) for name, valid in rows}


def _version(comment: str | None) -> int:
    if comment is None:
        return 0
    if comment == "∞":
        return EXTERNAL
    # Somebody's own comment says nothing about what is there.
    if not comment.isdecimal():
        raise DatabaseError(f"the comment of a table is not its version: {comment!r}")
    return int(comment)
