"""The job store on PostgreSQL, in Elixir Oban's own tables."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Text, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import TextClause

from oban_actors.engines.engine import StagedJob, StagedPass, batches, inserted
from oban_actors.engines.postgres_beats import PostgresBeats
from oban_actors.engines.postgres_control import PostgresControl
from oban_actors.engines.postgres_turns import PostgresTurns
from oban_actors.job import Job
from oban_actors.repo.times import NOW, parameter, to_moment, to_naive
from oban_actors.repo.transactions import TRANSACTION_ID

_NOW = NOW["postgresql"]

_INSERT = f"""
INSERT INTO {{jobs}} (
  state, queue, worker, args, meta, tags, errors, attempt, max_attempts, priority, attempted_by,
  inserted_at, scheduled_at, attempted_at, completed_at, discarded_at, cancelled_at
)
SELECT
  cast(job.state AS {{schema}}.oban_job_state), job.queue, job.worker, job.args, job.meta,
  CASE WHEN job.tags IS NULL THEN cast('{{{{}}}}' AS text[])
       ELSE array(SELECT jsonb_array_elements_text(job.tags)) END,
  CASE WHEN job.errors IS NULL THEN cast('{{{{}}}}' AS jsonb[])
       ELSE array(SELECT jsonb_array_elements(job.errors)) END,
  coalesce(job.attempt, 0), job.max_attempts, job.priority,
  CASE WHEN job.attempted_by IS NOT NULL
       THEN array(SELECT jsonb_array_elements_text(job.attempted_by)) END,
  coalesce(job.inserted_at, moment.now),
  coalesce(job.scheduled_at, moment.now + make_interval(secs => coalesce(job.schedule_in, 0))),
  job.attempted_at, job.completed_at, job.discarded_at, job.cancelled_at
FROM (SELECT {_NOW} AS now) AS moment,
  ROWS FROM (jsonb_to_recordset(cast(:jobs AS jsonb)) AS (
    state text, queue text, worker text, args jsonb, meta jsonb, tags jsonb, errors jsonb,
    attempt integer, max_attempts integer, priority integer, attempted_by jsonb,
    inserted_at timestamp, scheduled_at timestamp, schedule_in double precision,
    attempted_at timestamp, completed_at timestamp, discarded_at timestamp, cancelled_at timestamp
  )) WITH ORDINALITY AS job (
    state, queue, worker, args, meta, tags, errors, attempt, max_attempts, priority, attempted_by,
    inserted_at, scheduled_at, schedule_in, attempted_at, completed_at, discarded_at, cancelled_at,
    position
  )
ORDER BY job.position
RETURNING id, inserted_at, scheduled_at, cast(pg_current_xact_id() AS text)
"""

_GET = """
SELECT id, state, queue, worker, args, errors, attempt, max_attempts, inserted_at, scheduled_at,
  attempted_at, completed_at, attempted_by, discarded_at, priority, tags, meta, cancelled_at
FROM {jobs} WHERE id = :id
"""

# `state IN (...)` as the partial index has it, so that the planner may use that one.
_STAGEABLE = """
state IN ('scheduled', 'retryable') AND queue IS NOT NULL
  AND id <> ALL (cast(:aside AS bigint[]))
"""

# In the UPDATE no condition but the ids may look like one that an index could serve: with
# `state = ...` or a join the planner scans all rows of a state, or the whole table.
_STAGE = f"""
WITH moment AS MATERIALIZED (
  SELECT {_NOW} AS now
),
due AS MATERIALIZED (
  SELECT id, queue, state FROM {{jobs}}
  WHERE {_STAGEABLE} AND scheduled_at <= (SELECT now FROM moment)
  ORDER BY scheduled_at, id
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
),
staged AS (
  UPDATE {{jobs}} SET state = 'available'
  WHERE id = ANY (ARRAY(SELECT id FROM due))
    AND cast(state AS text) IN ('scheduled', 'retryable')
  RETURNING id
)
SELECT id, queue, cast(state AS text), id IN (SELECT id FROM staged) FROM due
"""

_NEXT_DUE = f"""
SELECT moment.now, (
  SELECT cast(extract(epoch FROM scheduled_at) AS double precision)
    - cast(extract(epoch FROM moment.now) AS double precision)
  FROM {{jobs}} WHERE {_STAGEABLE} ORDER BY scheduled_at, id LIMIT 1
)
FROM (SELECT {_NOW} AS now) AS moment
"""

_FIRST_DUE = f"""
SELECT id FROM {{jobs}}
WHERE {_STAGEABLE} AND scheduled_at <= (SELECT {_NOW})
ORDER BY scheduled_at, id
LIMIT 1
FOR UPDATE SKIP LOCKED
"""

# From each queue to the next one, instead of through all available jobs.
_AVAILABLE = """
WITH RECURSIVE queues (queue) AS (
  (SELECT queue FROM {jobs} WHERE state = 'available' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (
    SELECT queue FROM {jobs} WHERE state = 'available' AND queue > queues.queue
    ORDER BY queue LIMIT 1
  )
  FROM queues WHERE queues.queue IS NOT NULL
)
SELECT queue FROM queues WHERE queue IS NOT NULL
"""

_MOMENTS = ("inserted_at", "attempted_at", "completed_at", "discarded_at", "cancelled_at")
_SELDOM = ("tags", "errors", "attempt", "attempted_by", "schedule_in")


class PostgresEngine(PostgresTurns, PostgresBeats, PostgresControl):
    """Jobs in a schema of a PostgreSQL database.

    Args:
        prefix: the schema's name.

    """

    def __init__(self, prefix: str) -> None:
        quoted = postgresql.dialect().identifier_preparer.quote_identifier(prefix)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

        def prepared(statement: str) -> TextClause:
            return text(statement.format(jobs=f"{quoted}.oban_jobs", schema=quoted))

        self.prepare_turns(quoted)
        self.prepare_beats(quoted)
        self.prepare_control(prefix)
        self._insert = prepared(_INSERT)
        self._get = prepared(_GET).columns(
            args=JSONB,
            meta=JSONB,
            errors=ARRAY(JSONB),
            tags=ARRAY(Text),
            attempted_by=ARRAY(Text),
        )
        self._stage = prepared(_STAGE)
        self._next_due = prepared(_NEXT_DUE)
        self._first_due = prepared(_FIRST_DUE)
        self._available = prepared(_AVAILABLE)

    def insert_jobs(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> list[Job]:
        """See `JobEngine`; leaves the transaction's id for `Repo.transaction`."""
        done: list[Job] = []
        for batch in batches(jobs):
            document = json.dumps([_values(job) for job in batch], ensure_ascii=False)
            parameters = {"jobs": document, "now": parameter("postgresql", now)}
            rows = connection.execute(self._insert, parameters).all()
            # Ids are given in the order of the jobs, which is more than is promised of rows.
            rows = sorted(rows, key=lambda row: row[0])
            connection.info[TRANSACTION_ID] = rows[0][3]
            times = (
                (row[0], row[1].replace(tzinfo=UTC), row[2].replace(tzinfo=UTC)) for row in rows
            )
            done += inserted(batch, times)
        return done

    def get_job(self, connection: Connection, job_id: int) -> Job | None:
        """See `JobEngine`."""
        row = connection.execute(self._get, {"id": job_id}).mappings().one_or_none()
        return None if row is None else Job.from_row(dict(row))

    def stage_jobs(
        self, connection: Connection, limit: int, now: datetime | None, aside: Sequence[int]
    ) -> StagedPass:
        """See `JobEngine`."""
        common = {"now": parameter("postgresql", now), "aside": list(aside)}
        due = connection.execute(self._stage, {"limit": limit, **common}).all()
        at, next_due_in = connection.execute(self._next_due, common).one()
        jobs = [StagedJob(*row) for *row, staged in due if staged]
        return StagedPass(jobs, next_due_in, to_moment(at))

    def first_due(
        self, connection: Connection, now: datetime | None, aside: Sequence[int]
    ) -> int | None:
        """See `JobEngine`."""
        parameters = {"now": parameter("postgresql", now), "aside": list(aside)}
        found: int | None = connection.execute(self._first_due, parameters).scalar()
        return found

    def check_available(self, connection: Connection) -> list[str]:
        """See `JobEngine`."""
        return list(connection.execute(self._available).scalars())

    def database_now(self, connection: Connection, now: datetime | None) -> datetime:
        """See `JobEngine`."""
        clock = text(f"SELECT {_NOW}")
        return to_moment(
            connection.execute(clock, {"now": parameter("postgresql", now)}).scalar_one()
        )


def _values(job: Job) -> dict[str, Any]:
    values = {
        "state": job.state,
        "queue": job.queue,
        "worker": job.worker,
        "args": job.args,
        "meta": job.meta,
        "max_attempts": job.max_attempts,
        "priority": job.priority,
    }
    values.update(_seldom(job))
    return values


def _seldom(job: Job) -> Iterator[tuple[str, Any]]:
    for name in _SELDOM:
        if value := getattr(job, name):
            yield name, value
    for name in (*_MOMENTS, "scheduled_at"):
        if (moment := getattr(job, name)) is not None:
            yield name, to_naive(moment).isoformat()
