"""Migrating while others go on writing."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from oban_actors.repo import Repo
from oban_actors.repo.migrator import migrate
from tests.migrations.conftest import Admin
from tests.migrations.elixir import install
from tests.support.databases import Database
from tests.support.waiting import wait_until

WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' "
    "AND wait_event_type = 'Lock'"
)


@pytest.mark.parametrize("leftover", [False, True], ids=["none", "invalid"])
def test_writers_do_not_wait_for_the_build(
    repo: Repo, pg: Database, pg_conninfo: str, admin: Admin, *, leftover: bool
) -> None:
    """Nor does it for them, but that it ends after the transactions that are older."""
    install(admin, pg.prefix, 14)
    if leftover:
        migrate(repo)
        admin.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
            [f"{pg.prefix}.oban_actors_staging_index"],
        )
    table = f"{pg.prefix}.oban_jobs"
    insert = f"INSERT INTO {table} (worker) VALUES ('w')"
    admin.execute("SET lock_timeout = '20s'")
    with ThreadPoolExecutor(1) as threads, psycopg.connect(pg_conninfo) as older:
        older.execute(insert)
        migrating = threads.submit(migrate, repo)
        building = f"% INDEX %{pg.prefix}%"
        wait_until(lambda: migrating.done() or admin.execute(WAITING, [building]).fetchone())
        assert not migrating.done()

        admin.execute(insert)

        older.commit()
        assert migrating.result(60) == 14

    assert repo.verify().staging_index is True


def test_a_step_that_waits_lets_writers_pass(
    repo: Repo, pg: Database, pg_conninfo: str, admin: Admin
) -> None:
    """One that needs the whole table gives up its place now and then, or all would wait for it."""
    install(admin, pg.prefix, 11)
    table = f"{pg.prefix}.oban_jobs"
    admin.execute("SET lock_timeout = '60s'")
    with ThreadPoolExecutor(1) as threads, psycopg.connect(pg_conninfo) as older:
        older.execute(f"SELECT count(*) FROM {table}")
        migrating = threads.submit(migrate, repo)
        step = f"ALTER TABLE %{pg.prefix}%"
        wait_until(lambda: migrating.done() or admin.execute(WAITING, [step]).fetchone())
        assert not migrating.done()

        admin.execute(f"INSERT INTO {table} (worker) VALUES ('w')")

        older.commit()
        assert migrating.result(60) == 14
