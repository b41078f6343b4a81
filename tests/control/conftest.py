"""Fixtures for control: an instance without a tree, and rows in every state."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from oban_actors import Job, JobState, Oban
from tests.support.instances import Starter, Tables
from tests.support.waiting import wait_until


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance with its tables, whose tree does not run."""
    return start_oban.make()


@pytest.fixture
def tables(start_oban: Starter) -> Tables:
    """Its tables, as another program sees them."""
    return start_oban.tables


@pytest.fixture
def aside() -> Iterator[Callable[..., Future[Any]]]:
    """Runs a function in a thread."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def job_in(state: JobState | str, **options: Any) -> Job:
    """Make a job in a state, tried once of twice."""
    job = Job.new(worker=options.pop("worker", "tests.Worker"), state=state, **options)
    job.attempt, job.max_attempts = 1, 2
    return job


def insert_each_state(oban: Oban) -> dict[JobState, int]:
    """Insert a job in each state, and give their ids."""
    jobs = oban.insert_all(job_in(state) for state in JobState)
    return {job.state: job.id or 0 for job in jobs}


def waits_for_lock(tables: Tables, count: int = 1) -> None:
    """Wait until so many sessions on this PostgreSQL server wait for a lock of somebody's."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    wait_until(lambda: tables.execute(query)[0][0] >= count, message="a session that waits")
