"""The job store on PostgreSQL, in Elixir Oban's own tables."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, Text, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import TextClause

from oban_actors.engines.engine import StagedJob, StagedPass
from oban_actors.engines.postgres_beats import PostgresBeats
from oban_actors.engines.postgres_control import PostgresControl
from oban_actors.engines.postgres_cron import PostgresCron
from oban_actors.engines.postgres_insert import PostgresInserts
from oban_actors.engines.postgres_prune import PostgresPrune
from oban_actors.engines.postgres_rescue import PostgresRescue
from oban_actors.engines.postgres_turns import PostgresTurns
from oban_actors.engines.postgres_unique import PostgresUniques
from oban_actors.job import Job
from oban_actors.repo.times import NOW, parameter, to_moment

_NOW = NOW["postgresql"]

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


class PostgresEngine(
    PostgresTurns,
    PostgresBeats,
    PostgresControl,
    PostgresInserts,
    PostgresUniques,
    PostgresCron,
    PostgresPrune,
    PostgresRescue,
):
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
        self.prepare_inserts(quoted)
        self.prepare_uniques(quoted)
        self.prepare_cron(quoted)
        self.prepare_prune(quoted)
        self.prepare_rescue(quoted)
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
