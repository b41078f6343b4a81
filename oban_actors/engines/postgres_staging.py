"""Making due jobs available on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from oban_actors.engines.staging import LONGEST_QUEUE, StagedPass, read_staged
from oban_actors.repo.message import pyformat
from oban_actors.repo.times import NOW, parameter, to_moment

_NOW = NOW["postgresql"]

# `state IN (...)` as the partial index has it, so that the planner may use that one. Of a subquery
# it makes a table of hashes, while an array is searched for each row; as `IS NOT TRUE` it joins
# nothing. An array, taken apart, it thinks small enough for that, whatever it thinks of the table.
_STAGEABLE = """
state IN ('scheduled', 'retryable') AND queue IS NOT NULL
  AND (id IN (SELECT unnest(cast(:aside AS bigint[])))) IS NOT TRUE
"""

# In the UPDATE no condition but the places may look like one that an index could serve: with
# `state = ...` or a join the planner scans all rows of a state, or the whole table. Rows that are
# locked stay in their places; one that somebody changed right before that is not where the
# statement looks, and is left for the next pass, as is one that a trigger keeps: those are not in
# `staged`. Each partition of a table has rows of its own in the same places, hence the ids. One row
# of arrays costs a fraction of a row for each job. Where a full pass ended, the look for the next
# job begins: it need not walk over what was staged.
_STAGE = f"""
WITH moment AS MATERIALIZED (
  SELECT {_NOW} AS now
),
due AS MATERIALIZED (
  SELECT id, queue, state, scheduled_at, ctid AS place FROM {{jobs}}
  WHERE {{gate}} AND {_STAGEABLE} AND scheduled_at <= (SELECT now FROM moment)
  ORDER BY scheduled_at, id
  LIMIT :limit
  FOR UPDATE SKIP LOCKED
),
staged AS (
  UPDATE {{jobs}} SET state = 'available'
  WHERE ctid = ANY (ARRAY(SELECT place FROM due))
    AND cast(state AS text) IN ('scheduled', 'retryable')
    AND (id IN (SELECT unnest(ARRAY(SELECT id FROM due)))) IS TRUE
  RETURNING id
)
SELECT array_agg(id), array_agg(queue), string_agg(left(cast(state AS text), 1), ''),
  CASE WHEN (SELECT count(*) FROM staged) < count(*)
       THEN ARRAY(SELECT id FROM staged) END,
  set_config('oban_actors.staged_to', coalesce(CASE WHEN count(*) >= :limit
             THEN cast(max(scheduled_at) AS text) END, '-infinity'), true)
FROM due
"""

_NEXT_DUE = f"""
SELECT moment.now, (
  SELECT cast(extract(epoch FROM scheduled_at) AS double precision)
    - cast(extract(epoch FROM moment.now) AS double precision)
  FROM {{jobs}}
  WHERE {_STAGEABLE}
    AND scheduled_at >= cast(current_setting('oban_actors.staged_to') AS timestamp)
  ORDER BY scheduled_at, id LIMIT 1
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
_QUEUES = """
WITH RECURSIVE queues (queue) AS (
  (SELECT queue FROM {jobs} WHERE state = 'available' ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (
    SELECT queue FROM {jobs} WHERE state = 'available' AND queue > queues.queue
    ORDER BY queue LIMIT 1
  )
  FROM queues WHERE queues.queue IS NOT NULL
)
"""

# The table may lack its check. A longer name would not go into a notification either.
_NAMED = f"octet_length(queue) <= {LONGEST_QUEUE}"

_AVAILABLE = f"{_QUEUES} SELECT queue FROM queues WHERE {_NAMED}"

# A whole pass in one message: what the lease said before decides, and the lock on it holds.
_LEADS = "current_setting('oban_actors.leads') = 'yes'"

# As the publisher would write them.
_TELL = f"""
{_QUEUES}
SELECT queue, pg_notify(cast(:insert_channel AS text), '{{{{"queue":' || to_json(queue) || '}}}}')
FROM queues WHERE {{gate}} AND {_NAMED}
"""

_BEAT = """
SELECT pg_notify(cast(:beat_channel AS text), cast(:beat AS text))
WHERE {gate} AND cast(:beat AS text) IS NOT NULL
"""


class PostgresStaging:
    """Staging, for `PostgresEngine`."""

    def prepare_staging(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: the quoted name of the tables' schema.

        """
        jobs = f"{schema}.oban_jobs"

        def filled(statement: str, gate: str = "true") -> str:
            return statement.format(jobs=jobs, gate=gate)

        self._stage = text(filled(_STAGE))
        self._next_due = text(filled(_NEXT_DUE))
        self._first_due = text(filled(_FIRST_DUE))
        self._available = text(filled(_AVAILABLE))
        # The clock is read last, so that little time goes by until its reader has it.
        parts = (_STAGE, _TELL, _BEAT, _NEXT_DUE)
        self.pass_sql: tuple[str, ...] | None = tuple(
            pyformat(filled(part, _LEADS)) for part in parts
        )

    def stage_jobs(
        self, connection: Connection, limit: int, now: datetime | None, aside: Sequence[int]
    ) -> StagedPass:
        """See `JobEngine`."""
        common = {"now": parameter("postgresql", now), "aside": list(aside)}
        row = connection.execute(self._stage, {"limit": limit, **common}).one()
        at, next_due_in = connection.execute(self._next_due, common).one()
        return StagedPass(read_staged(row), next_due_in, to_moment(at))

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
