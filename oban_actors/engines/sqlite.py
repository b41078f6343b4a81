"""The job store on SQLite, in the tables of Elixir Oban's Lite engine."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import OperationalError

from oban_actors.engines.sqlite_beats import SqliteBeats
from oban_actors.engines.sqlite_control import SqliteControl
from oban_actors.engines.sqlite_cron import SqliteCron
from oban_actors.engines.sqlite_insert import SqliteInserts
from oban_actors.engines.sqlite_prune import SqlitePrune
from oban_actors.engines.sqlite_rescue import SqliteRescue
from oban_actors.engines.sqlite_turns import SqliteTurns
from oban_actors.engines.sqlite_unique import SqliteUniques
from oban_actors.engines.staging import LONGEST_QUEUE, StagedJob, StagedPass
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
# Columns hold values of any type, and what is no text is no queue.
_STAGEABLE = (
    "state IN ('scheduled', 'retryable') AND typeof(queue) = 'text' "
    "AND id NOT IN (SELECT value FROM json_each(:aside))"
)

_DUE = (
    f"SELECT id, {{}}, state FROM {_INDEXED} WHERE {_STAGEABLE} AND {_DUE_AT} <= rtrim(:now, 'Z') "
    f"ORDER BY {_DUE_AT}, id LIMIT :limit"
)

# By id only: the `+` keeps the condition away from the index on state.
_STAGE = text(
    "UPDATE oban_jobs SET state = 'available' WHERE id IN (SELECT value FROM json_each(:ids)) "
    "AND +state IN ('scheduled', 'retryable')"
)

_NEXT_DUE = f"SELECT {{}} FROM {_INDEXED} WHERE {_STAGEABLE} ORDER BY {_DUE_AT}, id LIMIT 1"

# From each queue to the next one, instead of through all available jobs.
_AVAILABLE = f"""
WITH RECURSIVE queues (queue) AS (
  SELECT (SELECT queue FROM oban_jobs WHERE state = 'available' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (
    SELECT queue FROM oban_jobs WHERE state = 'available' AND queue > queues.queue
    ORDER BY queue LIMIT 1
  )
  FROM queues WHERE typeof(queues.queue) = 'text'
)
SELECT {{}} FROM queues
WHERE typeof(queue) = 'text' AND length(cast(queue AS BLOB)) <= {LONGEST_QUEUE}
"""

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
        if jobs or not limit:
            connection.execute(_STAGE, {"ids": json.dumps([job.id for job in jobs])})
        earliest = _read(connection, _NEXT_DUE, "scheduled_at", {"aside": json.dumps(list(aside))})
        return StagedPass(jobs, _seconds_until(earliest[0][0], at) if earliest else None, at)

    def first_due(
        self, connection: Connection, now: datetime | None, aside: Sequence[int]
    ) -> int | None:
        """See `JobEngine`."""
        jobs = self._due(connection, 1, self.database_now(connection, now), aside)
        return jobs[0].id if jobs else None

    def check_available(self, connection: Connection) -> list[str]:
        """See `JobEngine`."""
        return [queue for (queue,) in _read(connection, _AVAILABLE, "queue", {})]

    def database_now(self, connection: Connection, now: datetime | None) -> datetime:
        """See `JobEngine`."""
        return to_moment(connection.execute(_CLOCK, {"now": parameter("sqlite", now)}).scalar_one())

    def _due(
        self, connection: Connection, limit: int, at: datetime, aside: Sequence[int]
    ) -> list[StagedJob]:
        parameters = {"limit": limit, "now": to_text(at), "aside": json.dumps(list(aside))}
        return [StagedJob(*row) for row in _read(connection, _DUE, "queue", parameters)]


def _read(
    connection: Connection, statement: str, column: str, parameters: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    try:
        rows = connection.execute(_query(statement, column), parameters).all()
    except OperationalError as error:
        if "decode to UTF-8" not in str(error.orig):
            raise
        rows = connection.execute(_query(statement, f"cast({column} AS BLOB)"), parameters).all()
    # Of a lenient transaction they are bytes at once.
    return [tuple(map(_decoded, row)) for row in rows]


@cache
def _query(statement: str, column: str) -> TextClause:
    return text(statement.format(column))


def _decoded(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _seconds_until(due: object, at: datetime) -> float | None:
    try:
        return (to_moment(due) - at).total_seconds() if isinstance(due, str) else None
    except (OverflowError, ValueError):
        # A time that nobody can read never comes.
        return None
