"""Migrating, and starting, with fewer rights than an owner has."""

from collections.abc import Iterator

import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

from oban_actors.errors import DatabaseError
from oban_actors.repo import Repo
from oban_actors.repo.migrator import migrate, rollback
from tests.migrations.conftest import Admin, run
from tests.migrations.elixir import install
from tests.repo.opening import opened_on
from tests.support.databases import Database


@pytest.fixture
def stranger(pg: Database, admin: Admin) -> Iterator[str]:
    """A role that may use the tables but not change them, and the address it has."""
    name = f"stranger_{pg.prefix}"
    admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
    yield make_url(pg.url).set(username=name).render_as_string(hide_password=False)
    admin.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(Identifier(name)))


def grant(admin: Admin, pg: Database, *, create: bool) -> None:
    """Let the stranger use the schema's tables, and perhaps make own ones."""
    rights = "USAGE, CREATE" if create else "USAGE"
    role = f"stranger_{pg.prefix}"
    run(admin, f"GRANT {rights} ON SCHEMA {{}} TO {{}}", pg.prefix, role)
    run(admin, "GRANT ALL ON ALL TABLES IN SCHEMA {} TO {}", pg.prefix, role)
    run(admin, "GRANT ALL ON ALL SEQUENCES IN SCHEMA {} TO {}", pg.prefix, role)


def test_without_the_right_to_the_index(
    pg: Database, admin: Admin, stranger: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who does not own Elixir's table runs without the index, with a warning."""
    install(admin, pg.prefix, 14)
    grant(admin, pg, create=True)

    with opened_on(Database(pg.kind, stranger, pg.prefix)) as repo:
        assert migrate(repo) == 14
        facts = repo.verify()

    assert "without the index" in caplog.text
    assert facts.producers
    assert facts.staging_index is False


def test_without_any_right(
    pg: Database, repo: Repo, admin: Admin, stranger: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where all is there, no right to change anything is needed; where not, that is said."""
    migrate(repo)
    grant(admin, pg, create=False)
    database = Database(pg.kind, stranger, pg.prefix)

    with opened_on(database) as own:
        assert migrate(own) == 14
        rollback(repo, version=13)
        with pytest.raises(DatabaseError) as caught:
            migrate(own)

    assert caught.value.sqlstate == "42501"
    assert caplog.text == ""
