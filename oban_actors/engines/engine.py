"""JobEngine: what every job store can do."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from oban_actors.job import Job

MOST_AT_ONCE = 20_000
"""Jobs in one INSERT; more are split, so that the statement stays far below PostgreSQL's limits."""


@dataclass(frozen=True, slots=True)
class StagedJob:
    """A job that was made available.

    Attributes:
        id: the job's.
        queue: where it will run.
        state: the one it had before, `scheduled` or `retryable`.

    """

    id: int
    queue: str
    state: str


@dataclass(frozen=True, slots=True)
class StagedPass:
    """What one pass of staging did.

    Attributes:
        jobs: made available, the earliest due first.
        next_due_in: seconds until the earliest job left is due, by the database's clock and
            whether locked or not; zero or less if it is due already, None if there is none.
        now: the database's time.

    """

    jobs: list[StagedJob]
    next_due_in: float | None
    now: datetime


class JobEngine(Protocol):
    """A job store. Every method runs within the transaction of the connection it is given.

    `now` is a virtual clock's time; with None the database's clock decides.
    """

    def insert_jobs(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> list[Job]:
        """Insert jobs, thousands with one statement. Mirrors `Oban.Engine.insert_all_jobs/3`.

        `schedule_in` counts from the database's time; ids that jobs have already are ignored.

        Returns:
            Copies in the order given, with `id`, `inserted_at` and `scheduled_at`.

        """

    def get_job(self, connection: Connection, job_id: int) -> Job | None:
        """Read a job, None if there is none.

        Raises:
            InvalidJob: the row holds what no job can hold.

        """

    def stage_jobs(
        self, connection: Connection, limit: int, now: datetime | None, aside: Sequence[int]
    ) -> StagedPass:
        """Make due jobs available, the earliest first. Mirrors `Oban.Engine.stage_jobs/3`.

        Rows that others have locked are passed over, and none is staged that a transaction
        committed meanwhile has cancelled or put off.

        Args:
            connection: to run on.
            limit: how many at most.
            now: a virtual clock's time.
            aside: ids of jobs to leave out, also of `next_due_in`.

        """

    def first_due(
        self, connection: Connection, now: datetime | None, aside: Sequence[int]
    ) -> int | None:
        """Name the job that `stage_jobs` with a limit of 1 would take, None if none is due."""

    def check_available(self, connection: Connection) -> list[str]:
        """Name the queues that have available jobs, at a cost that only grows with their number.

        Mirrors `Oban.Engine.check_available/1`.
        """

    def database_now(self, connection: Connection, now: datetime | None) -> datetime:
        """Read the database's clock, aware and in UTC; `now` stands in for it if given."""


def inserted(jobs: Iterable[Job], rows: Iterable[tuple[int, datetime, datetime]]) -> Iterator[Job]:
    """Complete copies of jobs with the id and the times that their rows were given."""
    for job, (job_id, inserted_at, scheduled_at) in zip(jobs, rows, strict=True):
        done = copy(job)
        done.id = job_id
        done.inserted_at = inserted_at
        done.scheduled_at = scheduled_at
        done.schedule_in = None
        yield done


def batches(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """Split jobs into as many as one statement takes."""
    for start in range(0, len(jobs), MOST_AT_ONCE):
        yield jobs[start : start + MOST_AT_ONCE]
