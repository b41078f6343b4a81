"""Bringing the tables of a database from any version to any other."""

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql

from oban_actors.errors import SchemaTooNew
from oban_actors.repo import indexes, schema
from oban_actors.repo.key_indexes import KeyIndex
from oban_actors.validation import OPTIONS

if TYPE_CHECKING:
    from oban_actors.repo.repo import Repo

Direction = Literal["up", "down"]

NEWEST = {"postgresql": 14, "sqlite": 1}
"""The newest version of Oban's tables that is known; SQLite has only ever had one."""

SINCE_ELIXIR_INDEXES = 10
"""The version that brought Elixir's two GIN indexes."""

OWN_VERSION = 3
"""The version of the tables that only this library uses."""

_SQL = resources.files("oban_actors.repo") / "migrations"
_FRAGMENTS = ("trigger_of_1", "trigger_of_8", "wrap_id")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('oban_actors migrate ' || :prefix, 0))")
_SCHEMA_EXISTS = text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :prefix")
_RECORD_SQLITE = text(
    "INSERT INTO oban_actors_meta (key, value) VALUES ('version', :version) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)


def migrate(
    repo: "Repo",
    prefix: str | None = None,
    *,
    elixir_indexes: bool = False,
    key_indexes: Sequence[KeyIndex] = (),
    version: int | None = None,
) -> int:
    """Create the tables or bring them to a version, in one transaction; safe to repeat.

    Several processes may do so at once: one works, the others wait and find it done. Jobs tables
    that somebody else looks after (`∞`) are left as they are. Mirrors `Oban.Migration.up/1`.

    Args:
        repo: the way to the database.
        prefix: schema of the tables, the config's by default; ignored on SQLite.
        elixir_indexes: whether Elixir's two GIN indexes are made too.
        key_indexes: those for jobs that are unique by keys; ignored on SQLite.
        version: Oban's version to stop at, the newest known one by default.

    Returns:
        the version of the jobs tables now; `sys.maxsize` for ones that somebody else looks after.

    Raises:
        ConfigError: the version asked for is unknown.
        SchemaTooNew: a newer version made the tables; nothing was changed.
        DatabaseError: the database refused or failed; nothing was changed.

    """
    name = prefix or repo.config.prefix
    found = repo.transaction(
        lambda connection: _migrate(
            connection, name, version, elixir_indexes=elixir_indexes, own_transaction=True
        ),
        statement_timeout=0,
        lock_timeout=_patience(repo),
    )
    if repo.dialect == "postgresql":
        indexes.ensure(repo, name, key_indexes)
    return found


def rollback(repo: "Repo", prefix: str | None = None, *, version: int = 0) -> int:
    """Take the tables back to an older version of Oban's, in one transaction.

    Version 0 drops all tables with all jobs, and our own. Unlike `Oban.Migration.down/1`, where
    the version is the last one to be undone, it is the one that is left.

    Args:
        repo: the way to the database.
        prefix: schema of the tables, the config's by default; ignored on SQLite.
        version: Oban's version to go back to.

    Returns:
        the version of the jobs tables now.

    Raises:
        ConfigError: the version asked for is unknown.
        SchemaTooNew: a newer version made the tables; nothing was changed.
        DatabaseError: the database refused or failed; nothing was changed.

    """
    name = prefix or repo.config.prefix
    return repo.transaction(
        lambda connection: _downgrade(connection, name, version, own_transaction=True),
        statement_timeout=0,
        lock_timeout=_patience(repo),
    )


def migrated_version(repo: "Repo", prefix: str | None = None) -> int:
    """Read the version of the jobs tables: 0 without any, `sys.maxsize` for `∞`.

    Mirrors `Oban.Migration.migrated_version/1`.
    """
    name = prefix or repo.config.prefix
    return repo.transaction(lambda connection: schema.inspect(connection, name).version)


def upgrade(
    connection: Connection, prefix: str, version: int | None = None, *, elixir_indexes: bool = False
) -> int:
    """Do what `migrate` does, within the connection's transaction and with nothing retried."""
    found = _migrate(connection, prefix, version, elixir_indexes=elixir_indexes)
    if connection.dialect.name == "postgresql" and found != schema.EXTERNAL:
        indexes.create(connection, prefix)
    return found


def downgrade(connection: Connection, prefix: str, version: int = 0) -> int:
    """Do what `rollback` does, within the connection's transaction and with nothing retried."""
    return _downgrade(connection, prefix, version)


def _downgrade(
    connection: Connection, prefix: str, version: int, *, own_transaction: bool = False
) -> int:
    _known(connection, version, lowest=0)
    facts = _locked_facts(connection, prefix)
    if own_transaction:
        _limit_locks(connection)
    if facts.version == schema.EXTERNAL:
        if version == 0:
            _drop_own(connection, prefix, facts)
        return facts.version
    if version == 0:
        _drop_own(connection, prefix, facts)
    for step in range(facts.version, version, -1):
        _run(connection, prefix, f"{step:02}", "down")
    if 0 < version < facts.version:
        _record(connection, prefix, "oban_jobs", version)
    return min(version, facts.version)


def _migrate(
    connection: Connection,
    prefix: str,
    version: int | None,
    *,
    elixir_indexes: bool,
    own_transaction: bool = False,
) -> int:
    postgres = connection.dialect.name == "postgresql"
    newest = NEWEST[connection.dialect.name]
    goal = newest if version is None else _known(connection, version, lowest=1)
    facts = _locked_facts(connection, prefix)
    if own_transaction:
        _limit_locks(connection)
    if postgres and not connection.execute(_SCHEMA_EXISTS, {"prefix": prefix}).scalar():
        connection.exec_driver_sql(f"CREATE SCHEMA {_quoted(prefix)}")
    for step in range(facts.version + 1, goal + 1):
        _run(connection, prefix, f"{step:02}", "up")
    if facts.version < goal:
        _record(connection, prefix, "oban_jobs", goal)
    wanted = elixir_indexes and goal >= SINCE_ELIXIR_INDEXES
    if postgres and wanted and facts.version != schema.EXTERNAL:
        _run(connection, prefix, "elixir_indexes", "up")
    if postgres and facts.version == 0:
        # Nobody has to wait for an index on an empty table that nobody sees yet.
        indexes.create(connection, prefix)
    for step in range(facts.own_version + 1, OWN_VERSION + 1):
        _run(connection, prefix, f"own_{step:02}", "up")
    if facts.own_version < OWN_VERSION:
        _record(connection, prefix, schema.OWN_TABLE, OWN_VERSION)
    return max(goal, facts.version)


def _limit_locks(connection: Connection) -> None:
    """Wait no longer for a table than others can wait behind.

    Only now: the wait for another process that migrates has no end but its own.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")


def _known(connection: Connection, version: int, *, lowest: int) -> int:
    newest = NEWEST[connection.dialect.name]
    return OPTIONS.integer("version", version, low=lowest, high=newest)


def _patience(repo: "Repo") -> float | None:
    # PostgreSQL's wait for another process that migrates ends with that one. SQLite's can't be
    # interrupted, so there it is one of several tries.
    return None if repo.dialect == "sqlite" else 0.0


def _locked_facts(connection: Connection, prefix: str) -> schema.Facts:
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"prefix": prefix})
    facts = schema.inspect(connection, prefix)
    newest = NEWEST[connection.dialect.name]
    for found, known in ((facts.version, newest), (facts.own_version, OWN_VERSION)):
        if known < found != schema.EXTERNAL:
            raise SchemaTooNew(
                f"the tables have version {found}, and {known} is the newest that is known here",
                found=found,
                known=known,
            )
    return facts


def _drop_own(connection: Connection, prefix: str, facts: schema.Facts) -> None:
    for step in range(facts.own_version, 0, -1):
        _run(connection, prefix, f"own_{step:02}", "down")


def _record(connection: Connection, prefix: str, table: str, version: int) -> None:
    if connection.dialect.name == "postgresql":
        comment = f"COMMENT ON TABLE {_quoted(prefix)}.{table} IS '{version}'"
        connection.exec_driver_sql(comment)
    elif table == schema.OWN_TABLE:
        connection.execute(_RECORD_SQLITE, {"version": str(version)})


def _run(connection: Connection, prefix: str, name: str, direction: Direction) -> None:
    for statement in _statements(connection, prefix, name, direction):
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _statements(
    connection: Connection, prefix: str, name: str, direction: Direction
) -> Iterator[str]:
    # One at a time, since not every driver of a host takes several: blank lines part them.
    folder = _SQL / connection.dialect.name
    up, _, down = (folder / f"{name}.sql").read_text("utf-8").partition("-- down\n")
    script = up.removeprefix("-- up\n") if direction == "up" else down
    for fragment in _FRAGMENTS:
        if f"{{{fragment}}}" in script:
            body = (folder / f"{fragment}.sql").read_text("utf-8").strip()
            script = script.replace(f"{{{fragment}}}", body)
    script = script.replace("{schema}", _quoted(prefix))
    for event in ("insert", "update"):
        script = script.replace(f"{{{event}_channel}}", f"'{prefix}.oban_{event}'")
    for statement in script.split("\n\n"):
        if not all(line.startswith("--") for line in statement.splitlines()):
            yield statement


def _quoted(prefix: str) -> str:
    return postgresql.dialect().identifier_preparer.quote_identifier(prefix)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
