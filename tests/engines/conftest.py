"""Fixtures for the job stores: one on each kind of database, with its tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from oban_actors.engines import JobEngine, StagedPass, make_engine
from oban_actors.job import Job
from oban_actors.repo import Repo
from oban_actors.repo.migrator import migrate
from tests.repo.opening import opened_on
from tests.support.databases import Database


@dataclass(frozen=True)
class Store:
    """A job store and the way to its database."""

    repo: Repo
    engine: JobEngine

    @property
    def jobs(self) -> str:
        """The table's name in SQL."""
        return (
            "oban_jobs" if self.repo.dialect == "sqlite" else f"{self.repo.config.prefix}.oban_jobs"
        )

    def insert(self, *jobs: Job, now: datetime | None = None) -> list[Job]:
        """Insert jobs in a transaction."""
        return self.repo.transaction(
            lambda connection: self.engine.insert_jobs(connection, jobs, now), idempotent=False
        )

    def get(self, job: Job | int) -> Job:
        """Read a job that is there."""
        job_id = job if isinstance(job, int) else job.id or 0
        found = self.repo.transaction(lambda c: self.engine.get_job(c, job_id), read_only=True)
        assert found is not None
        return found

    def stage(
        self, limit: int = 100, now: datetime | None = None, aside: tuple[int, ...] = ()
    ) -> StagedPass:
        """Stage in a transaction."""
        return self.repo.transaction(lambda c: self.engine.stage_jobs(c, limit, now, aside))

    def run(self, statement: str, **parameters: Any) -> list[Any]:
        """Execute SQL with `{jobs}` for the table, and give its rows, if it has any."""
        prepared = text(statement.format(jobs=self.jobs))

        def work(connection: Any) -> list[Any]:
            result = connection.execute(prepared, parameters)
            return list(result.all()) if result.returns_rows else []

        return self.repo.transaction(work)


def store_on(database: Database) -> Iterator[Store]:
    """Make the tables and give the store."""
    with opened_on(database) as repo:
        migrate(repo)
        yield Store(repo, make_engine(repo.dialect, repo.config.prefix))


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A store on each kind of database."""
    yield from store_on(database)


@pytest.fixture
def pg_store(pg: Database) -> Iterator[Store]:
    """A store on PostgreSQL."""
    yield from store_on(pg)


@pytest.fixture
def sqlite_store(sqlite: Database) -> Iterator[Store]:
    """A store on SQLite."""
    yield from store_on(sqlite)
