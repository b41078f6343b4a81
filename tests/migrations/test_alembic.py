"""The tables as a step of a host's own Alembic migrations."""

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from oban_actors import migrations
from oban_actors.errors import ConfigError
from tests.repo.opening import opened_on
from tests.support.databases import Database


@pytest.fixture
def host(database: Database) -> Iterator[Connection]:
    """A connection of the host's, as Alembic has one."""
    engine = create_engine(database.url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def migrated(connection: Connection, step: Any) -> None:
    """Run a step as a migration script of Alembic's."""
    context = MigrationContext.configure(connection)
    with context.begin_transaction(), Operations.context(context) as operations:
        step(operations.get_bind())
    connection.commit()


def test_upgrade_and_downgrade(database: Database, host: Connection) -> None:
    """One line each way is all that a migration script needs."""
    with opened_on(database) as repo:
        migrated(host, lambda bind: migrations.upgrade(bind, database.prefix))
        facts = repo.verify()
        assert facts.staging_index
        assert facts.producers

        migrated(host, lambda bind: migrations.downgrade(bind, database.prefix))
        assert repo.transaction(lambda c: c.execute(text("SELECT 1")).scalar()) == 1
        with pytest.raises(Exception, match="oban_jobs"):
            repo.verify()


def test_rolled_back_with_the_host(pg: Database) -> None:
    """A migration of the host's that fails takes the tables with it."""
    engine = create_engine(pg.url)
    with engine.connect() as connection:
        migrations.upgrade(connection, pg.prefix)
        connection.rollback()
        found = connection.execute(text("SELECT to_regnamespace(:name)"), {"name": pg.prefix})
        assert found.scalar() is None
    engine.dispose()


def test_prefix_is_checked(host: Connection) -> None:
    """A prefix that is no identifier never reaches the database."""
    with pytest.raises(ConfigError, match="prefix"):
        migrations.upgrade(host, 'x"; DROP SCHEMA public')
