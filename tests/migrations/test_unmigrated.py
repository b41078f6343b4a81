"""Trees on tables that are as Elixir left them, also with too few rights to change that."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

from oban_actors import Job, Oban, worker
from oban_actors.worker_registry import forget
from tests.migrations.conftest import Admin, run
from tests.migrations.elixir import VERSIONS, install
from tests.support.databases import Database
from tests.support.instances import wait_until_leader
from tests.support.waiting import wait_until

WORKER = "tests.migrations.unmigrated"


@pytest.fixture(autouse=True)
def _worker() -> Iterator[None]:
    @worker(name=WORKER, queue="alpha")
    def perform(_: Job) -> None:
        """Nothing to do."""

    yield
    forget(WORKER)


def runs_jobs(oban: Oban) -> None:
    """See a job staged and run."""
    with oban:
        wait_until_leader(oban)
        job = oban.insert(Job.new(worker=WORKER, queue="alpha", schedule_in=0.1))
        wait_until(lambda: (oban.get_job(job.id or 0) or job).state == "completed")


@pytest.mark.parametrize("version", VERSIONS)
def test_elixirs_tables(pg: Database, admin: Admin, version: int) -> None:
    """Whatever the version, and without a table of ours: only the columns that are used count."""
    install(admin, pg.prefix, version)

    runs_jobs(Oban(pg.url, prefix=pg.prefix, queues={"alpha": 1}))


def test_without_the_right_to_our_indexes(
    pg: Database, pg_conninfo: str, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may not change Elixir's table migrates with a warning, and stages without an index."""
    install(admin, pg.prefix, 14)
    role = f"stranger_{pg.prefix}"
    admin.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
    run(admin, "GRANT USAGE, CREATE ON SCHEMA {} TO {}", pg.prefix, role)
    run(admin, "GRANT ALL ON ALL TABLES IN SCHEMA {} TO {}", pg.prefix, role)
    run(admin, "GRANT ALL ON ALL SEQUENCES IN SCHEMA {} TO {}", pg.prefix, role)
    url = make_url(pg.url).set(username=role)
    oban = Oban(url, prefix=pg.prefix, queues={"alpha": 1})
    try:
        assert oban.migrate() == 14
        assert "without the index" in caplog.text

        runs_jobs(oban)
        assert oban.repo.verify().staging_index is False
    finally:
        oban.repo.close()
        with psycopg.connect(pg_conninfo, autocommit=True) as owner:
            owner.execute(SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(Identifier(role)))
