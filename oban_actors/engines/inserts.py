"""What inserting jobs has in common, whatever the store."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from oban_actors.errors import DatabaseError
from oban_actors.job import Job
from oban_actors.repo.commits import Trace
from oban_actors.repo.message import Send

MOST_AT_ONCE = 20_000
"""Jobs in one INSERT; more are split, so that the statement stays far below PostgreSQL's limits."""

RowTimes = tuple[int, datetime, datetime]
"""What a row was given: its id, `inserted_at` and `scheduled_at`."""


@dataclass(frozen=True, slots=True)
class InsertMessage:
    """An insert to be made by `Repo.message`.

    Attributes:
        statement: all of it.
        write: gives its parameters, from the jobs and a virtual clock's time.
        trace: finds the transaction's trace in its rows.
        read: gives the jobs as `insert_jobs` does, from those given and its rows.

    """

    statement: str
    write: Callable[[Sequence[Job], datetime | None], dict[str, Any]]
    trace: Callable[[Sequence[Any]], Trace]
    read: Callable[[Sequence[Job], Sequence[Any]], list[Job]]


UniqueInsert = Callable[[Connection, Send, Job, datetime | None, Mapping[str, Any]], Job | int]
"""Inserts a unique job in `Repo.opened`, or gives the id of one that is the same.

It gets the connection, what sends, the job, a virtual clock's time, and the parameters of
`notify_statement` for what is to be notified if the job is inserted.
"""


def inserted(jobs: Sequence[Job], rows: Iterable[RowTimes]) -> Iterator[Job]:
    """Complete copies of jobs with the id and the times that their rows were given.

    Raises:
        DatabaseError: there are fewer rows than jobs.

    """
    found = list(rows)
    if len(found) != len(jobs):
        raise DatabaseError(
            f"of {len(jobs)} jobs the table took {len(found)}: does a trigger keep rows away?"
        )
    for job, (job_id, inserted_at, scheduled_at) in zip(jobs, found, strict=True):
        done = job.copy()
        done.id = job_id
        done.inserted_at = inserted_at
        done.scheduled_at = scheduled_at
        done.schedule_in = done.unique = None
        done.replace = {}
        yield done


def batches(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """Split jobs into as many as one statement takes."""
    for start in range(0, len(jobs), MOST_AT_ONCE):
        yield jobs[start : start + MOST_AT_ONCE]
