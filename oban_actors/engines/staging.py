"""What a job store can do about jobs that become due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection

from oban_actors.repo.message import Rows
from oban_actors.repo.times import to_moment

LONGEST_QUEUE = 512
"""Bytes of the longest name that a queue can have: Elixir takes up to 128 characters."""

_STATES = {"s": "scheduled", "r": "retryable"}


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
            After a full pass it may be the earliest that is due no sooner than those staged.
        now: the database's time.

    """

    jobs: list[StagedJob]
    next_due_in: float | None
    now: datetime


class StagingEngine(Protocol):
    """Staging, as part of `JobEngine`.

    Attributes:
        pass_sql: what a whole pass does after `lease_gate`, as statements for one message
            (`Repo.message`): stage, tell the queues that have available jobs, beat, and read
            when the next job is due; None where steps cost no more. See `read_pass`.

    """

    pass_sql: tuple[str, ...] | None

    def stage_jobs(
        self, connection: Connection, limit: int, now: datetime | None, aside: Sequence[int]
    ) -> StagedPass:
        """Make due jobs available, the earliest first. Mirrors `Oban.Engine.stage_jobs/3`.

        Rows that others have locked are passed over, and none is staged that a transaction
        committed meanwhile has cancelled or put off.

        Args:
            connection: to run on.
            limit: how many at most; 0: what is done without any is done all the same, and fails
                where it is not a row that the database refuses.
            now: a virtual clock's time.
            aside: ids of jobs to leave out, also of `next_due_in`.

        """

    def first_due(
        self, connection: Connection, now: datetime | None, aside: Sequence[int]
    ) -> int | None:
        """Name the job that `stage_jobs` with a limit of 1 would take, None if none is due."""

    def check_available(self, connection: Connection) -> list[str]:
        """Name the queues that have available jobs, at a cost that only grows with their number.

        What can't be the name of a queue that anybody runs, but stands in a row of somebody
        else's, is left out, or given in other letters. Mirrors `Oban.Engine.check_available/1`.
        """


def read_pass(found: Sequence[Rows]) -> tuple[StagedPass, list[str]]:
    """Read what the statements of `pass_sql` gave.

    Args:
        found: the rows of each.

    Returns:
        what was staged, and the queues that were told.

    """
    (staged,), told, _, ((at, next_due_in),) = found
    done = StagedPass(read_staged(staged), next_due_in, to_moment(at))
    return done, [queue for queue, _ in told]


def read_staged(row: Sequence[Any]) -> list[StagedJob]:
    """Make jobs of what PostgreSQL's statement for staging gives.

    Args:
        row: ids, queues and first letters of states; ids again if not all of them were staged.

    """
    ids, queues, letters, only, *_ = row
    if ids is None:
        return []
    states = [_STATES[letter] for letter in letters]
    jobs = list(map(StagedJob, ids, queues, states))
    if only is None:
        return jobs
    staged = frozenset(only)
    return [job for job in jobs if job.id in staged]
