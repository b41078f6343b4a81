"""The tables as steps of a host's own migrations, such as Alembic's.

    from alembic import op
    from oban_actors import migrations

    def upgrade() -> None:
        migrations.upgrade(op.get_bind())

    def downgrade() -> None:
        migrations.downgrade(op.get_bind())

Everything happens within the transaction of the given connection. That is why the index for
staging is built while the table is locked against writes: on a large table that Elixir made,
call `oban.migrate()` before, which builds it while others go on.
"""

from sqlalchemy import Connection

from oban_actors.config import Config
from oban_actors.repo import migrator

__all__ = ["downgrade", "upgrade"]


def upgrade(
    connection: Connection,
    prefix: str = "public",
    *,
    version: int | None = None,
    elixir_indexes: bool = False,
) -> None:
    """Create the tables or bring them to a version. Mirrors `Oban.Migration.up/1`.

    Args:
        connection: the host's, in a transaction.
        prefix: PostgreSQL schema of the tables; ignored on SQLite.
        version: Oban's version to stop at, the newest known one by default.
        elixir_indexes: whether Elixir's two GIN indexes are made too.

    Raises:
        ConfigError: the prefix is none, or the version asked for unknown.
        SchemaTooNew: a newer version made the tables; nothing was changed.

    """
    checked = Config.build(prefix=prefix).prefix
    migrator.upgrade(connection, checked, version, elixir_indexes=elixir_indexes)


def downgrade(connection: Connection, prefix: str = "public", *, version: int = 0) -> None:
    """Take the tables back to an older version of Oban's; 0 drops all, with all jobs.

    Args:
        connection: the host's, in a transaction.
        prefix: PostgreSQL schema of the tables; ignored on SQLite.
        version: the one to go back to, so unlike in `Oban.Migration.down/1` not itself undone.

    Raises:
        ConfigError: the prefix is none, or the version asked for unknown.
        SchemaTooNew: a newer version made the tables; nothing was changed.

    """
    migrator.downgrade(connection, Config.build(prefix=prefix).prefix, version)
