"""Putting jobs into SQLite's table: many of them with one statement."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from oban_actors.engines.inserts import batches, inserted
from oban_actors.engines.sqlite_texts import to_json
from oban_actors.job import Job
from oban_actors.repo.times import NOW, parameter, to_moment, to_text

_CLOCK = text(f"SELECT {NOW['sqlite']}")

_COLUMNS = (
    "state",
    "queue",
    "worker",
    "args",
    "meta",
    "tags",
    "errors",
    "attempt",
    "max_attempts",
    "priority",
    "attempted_by",
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "discarded_at",
    "cancelled_at",
)

_PLACES = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(_COLUMNS)))

_INSERT = text(
    f"INSERT INTO oban_jobs ({', '.join(_COLUMNS)}) "
    f"SELECT {_PLACES} FROM json_each(:jobs) ORDER BY key RETURNING id"
)


class SqliteInserts:
    """Inserts jobs, for `SqliteEngine`."""

    def insert_message(self, *_given: object) -> None:
        """See `JobEngine`: there is no server to save a way to."""

    def unique_insert(self, *_given: object) -> None:
        """See `JobEngine`: as `insert_message`."""

    def insert_jobs(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> list[Job]:
        """See `JobEngine`."""
        at = to_moment(connection.execute(_CLOCK, {"now": parameter("sqlite", now)}).scalar_one())
        done: list[Job] = []
        for batch in batches(jobs):
            times = [_times(job, at) for job in batch]
            values = [_values(job, *both) for job, both in zip(batch, times, strict=True)]
            ids = connection.execute(_INSERT, {"jobs": json.dumps(values)}).scalars()
            # Ids are given in the order of the jobs, which is more than is promised of rows. That
            # there are as many is seen below.
            rows = ((job_id, *both) for job_id, both in zip(sorted(ids), times, strict=False))
            done += inserted(batch, rows)
        return done


def _times(job: Job, at: datetime) -> tuple[datetime, datetime]:
    due = job.scheduled_at or at + timedelta(seconds=job.schedule_in or 0)
    return job.inserted_at or at, due


def _values(job: Job, inserted_at: datetime, scheduled_at: datetime) -> list[Any]:
    return [
        job.state,
        job.queue,
        job.worker,
        to_json(job.args),
        to_json(job.meta),
        to_json(job.tags),
        # Each error is text that holds JSON, as Elixir appends it.
        to_json([to_json(error) for error in job.errors]),
        job.attempt,
        job.max_attempts,
        job.priority,
        to_json(job.attempted_by),
        to_text(inserted_at),
        to_text(scheduled_at),
        *(
            moment and to_text(moment)
            for moment in (job.attempted_at, job.completed_at, job.discarded_at, job.cancelled_at)
        ),
    ]
