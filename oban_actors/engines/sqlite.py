"""The job store on SQLite, in the tables of Elixir Oban's Lite engine."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from oban_actors.engines.sqlite_beats import SqliteBeats
from oban_actors.engines.sqlite_control import SqliteControl
from oban_actors.engines.sqlite_cron import SqliteCron
from oban_actors.engines.sqlite_insert import SqliteInserts
from oban_actors.engines.sqlite_prune import SqlitePrune
from oban_actors.engines.sqlite_rescue import SqliteRescue
from oban_actors.engines.sqlite_turns import SqliteTurns
from oban_actors.engines.sqlite_unique import SqliteUniques
from oban_actors.engines.staging import StagedJob, StagedPass
from oban_actors.job import Job
from oban_actors.repo.times import NOW, parameter, to_moment, to_text

_NOW = NOW["sqlite"]

_GET = text("SELECT * FROM oban_jobs WHERE id = :id")

# The index for staging has the same two expressions, word for word. Times may have been written
# with fewer digits, or with a blank before the time of day: without the `Z`, and with a `T`, text
# sorts as the times do.
_DUE_AT = "rtrim(replace(scheduled_at, ' ', 'T'), 'Z')"
# Left to itself, SQLite may sort all scheduled rows instead.
_INDEXED = "oban_jobs INDEXED BY oban_actors_staging_index"
_STAGEABLE = (
    "state IN ('scheduled', 'retryable') AND queue IS NOT NULL "
    "AND id NOT IN (SELECT value FROM json_each(:aside))"
)

_DUE = text(
    f"SELECT id, queue, state FROM {_INDEXED} WHERE {_STAGEABLE} AND {_DUE_AT} <= rtrim(:now, 'Z') "
    f"ORDER BY {_DUE_AT}, id LIMIT :limit"
)

# By id only: the `+` keeps the condition away from the index on state.
_STAGE = text(
    "UPDATE oban_jobs SET state = 'available' WHERE id IN (SELECT value FROM json_each(:ids)) "
    "AND +state IN ('scheduled', 'retryable')"
)

_NEXT_DUE = text(
    f"SELECT scheduled_at FROM {_INDEXED} WHERE {_STAGEABLE} ORDER BY {_DUE_AT}, id LIMIT 1"
)

# From each queue to the next one, instead of through all available jobs.
_AVAILABLE = text("""
WITH RECURSIVE queues (queue) AS (
  SELECT (SELECT queue FROM oban_jobs WHERE state = 'available' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (
    SELECT queue FROM oban_jobs WHERE state = 'available' AND queue > queues.queue
    ORDER BY queue LIMIT 1
  )
  FROM queues WHERE queues.queue IS NOT NULL
)
SELECT queue FROM queues WHERE queue IS NOT NULL
""")

_CLOCK = text(f"SELECT {_NOW}")


class SqliteEngine(
    SqliteTurns,
    SqliteBeats,
    SqliteControl,
    SqliteInserts,
    SqliteUniques,
    SqliteCron,
    SqlitePrune,
    SqliteRescue,
):
    """Jobs in an SQLite file; those who write have a `BEGIN IMMEDIATE` behind them."""

    # A statement is no round trip here.
    pass_sql: tuple[str, ...] | None = None

    def get_job(self, connection: Connection, job_id: int) -> Job | None:
        """See `JobEngine`."""
        row = connection.execute(_GET, {"id": job_id}).mappings().one_or_none()
        return None if row is None else Job.from_row(dict(row))

    def stage_jobs(
        self, connection: Connection, limit: int, now: datetime | None, aside: Sequence[int]
    ) -> StagedPass:
        """See `JobEngine`."""
        at = self.database_now(connection, now)
        jobs = self._due(connection, limit, at, aside)
        if jobs:
            connection.execute(_STAGE, {"ids": json.dumps([job.id for job in jobs])})
        earliest = connection.execute(_NEXT_DUE, {"aside": json.dumps(list(aside))}).scalar()
        return StagedPass(jobs, _seconds_until(earliest, at), at)

    def first_due(
        self, connection: Connection, now: datetime | None, aside: Sequence[int]
    ) -> int | None:
        """See `JobEngine`."""
        jobs = self._due(connection, 1, self.database_now(connection, now), aside)
        return jobs[0].id if jobs else None

    def check_available(self, connection: Connection) -> list[str]:
        """See `JobEngine`."""
        return list(connection.execute(_AVAILABLE).scalars())

    def database_now(self, connection: Connection, now: datetime | None) -> datetime:
        """See `JobEngine`."""
        return to_moment(connection.execute(_CLOCK, {"now": parameter("sqlite", now)}).scalar_one())

    def _due(
        self, connection: Connection, limit: int, at: datetime, aside: Sequence[int]
    ) -> list[StagedJob]:
        parameters = {"limit": limit, "now": to_text(at), "aside": json.dumps(list(aside))}
        return [StagedJob(*row) for row in connection.execute(_DUE, parameters)]


def _seconds_until(due: str | None, at: datetime) -> float | None:
    try:
        return None if due is None else (to_moment(due) - at).total_seconds()
    except ValueError:
        # A time that nobody can read never comes.
        return None
