"""A producer's turns on PostgreSQL: acknowledgements and the next claims in one statement."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from oban_actors.claim import Ack, Claimant
from oban_actors.engines.claimed_rows import CLAIMED, NOTHING, ClaimedRows, Row
from oban_actors.engines.turn import Turn, TurnMessage
from oban_actors.engines.turns import (
    Shown,
    delay_of,
    error_json,
    fence_text,
    judge,
    raw_rows,
    turn_of,
)
from oban_actors.job import JobState
from oban_actors.repo.times import NOW, READABLE, parameter

# By the primary key only: `state = 'executing'` or a join on more than the id would let the
# planner take the index on states, and walk through all that is or was executing.
_EXECUTING = "cast(state AS text) = 'executing'"

_MOMENT = f"moment AS MATERIALIZED (SELECT {NOW['postgresql']} AS now)".replace(":now", "%(now)s")

# `coalesce` keeps the pairs out of the planner's hands, which would join them in its own way.
_COMPLETE = f"""
acked AS (
  UPDATE {{jobs}} SET state = 'completed', completed_at = (SELECT now FROM moment)
  WHERE id = ANY (cast(%(ids)s AS bigint[])) AND {_EXECUTING}
    AND attempted_by[2] = cast(%(uuid)s AS text)
    AND coalesce((id, attempted_at) IN (
      SELECT pair.id, pair.fence
      FROM unnest(cast(%(ids)s AS bigint[]), cast(%(fences)s AS timestamp[])) AS pair (id, fence)
    ), false)
  RETURNING true AS told
)
"""

# Only when a row was found locked: locking them first costs as much as an update.
_FREE = """
free AS MATERIALIZED (
  SELECT id FROM {jobs} WHERE id = ANY (cast(%(ids)s AS bigint[])) FOR UPDATE SKIP LOCKED
)
"""

# Looked up by id in one JSON object: given a join, the planner may compare all with all.
_ACK = "cast(%(acks)s AS jsonb) -> cast(job.id AS text)"

# Whether it has an attempt left is the row's to say: that may have been changed while it ran.
_FATE = """
SELECT error, delay, CASE WHEN state NOT IN ('retryable', 'discarded') THEN state
  WHEN job.attempt < job.max_attempts THEN 'retryable' ELSE 'discarded' END AS state
"""

_RECORD = f"""
acked AS (
  UPDATE {{jobs}} AS job SET (
    state, errors, attempt, meta, scheduled_at, completed_at, discarded_at, cancelled_at
  ) = (
    SELECT cast(ack.state AS {{schema}}.oban_job_state),
      CASE WHEN ack.error IS NULL OR job.errors[cardinality(job.errors)] = ack.error
           THEN job.errors ELSE array_append(job.errors, ack.error) END,
      CASE WHEN ack.state = 'scheduled' THEN greatest(job.attempt - 1, 0) ELSE job.attempt END,
      CASE WHEN ack.state = 'scheduled' AND coalesce(jsonb_typeof(job.meta), 'object') = 'object'
           THEN coalesce(job.meta, '{{{{}}}}') || jsonb_build_object('snoozed', 1 +
             CASE WHEN jsonb_typeof(job.meta -> 'snoozed') = 'number'
                  THEN cast(job.meta ->> 'snoozed' AS numeric) ELSE 0 END)
           ELSE job.meta END,
      CASE WHEN ack.state IN ('scheduled', 'retryable')
           THEN now + make_interval(secs => ack.delay) ELSE job.scheduled_at END,
      CASE WHEN ack.state = 'completed' THEN now ELSE job.completed_at END,
      CASE WHEN ack.state = 'discarded' THEN now ELSE job.discarded_at END,
      CASE WHEN ack.state <> 'cancelled' THEN job.cancelled_at
           WHEN {_EXECUTING.replace("state", "job.state")} THEN now
           ELSE coalesce(job.cancelled_at, now) END
    FROM moment, ({_FATE}
      FROM jsonb_to_record({_ACK}) AS ack (state text, error jsonb, delay double precision)
    ) AS ack
  )
  WHERE id = ANY ({{ids}}) AND attempted_by[2] = cast(%(uuid)s AS text)
    AND attempted_at = cast({_ACK} ->> 'fence' AS timestamp)
    AND CASE cast(state AS text)
          WHEN 'executing' THEN true
          WHEN 'cancelled' THEN {_ACK} -> 'killed' = 'true'
            AND (errors[cardinality(errors)] = {_ACK} -> 'error') IS NOT TRUE
          ELSE false END
  RETURNING cast(state AS text) = {_ACK} ->> 'state' AS told
)
"""

# Rows that have used up their attempts are passed over where they stand.
_CLAIM = """
picked AS MATERIALIZED (
  SELECT id FROM {jobs}
  WHERE state = 'available' AND queue = cast(%(queue)s AS text) AND attempt < max_attempts
  ORDER BY priority, scheduled_at, id
  LIMIT %(limit)s
  FOR UPDATE SKIP LOCKED
),
claimed AS (
  UPDATE {jobs} SET state = 'executing', attempt = attempt + 1,
    attempted_at = (SELECT now FROM moment),
    attempted_by = cast(ARRAY[%(node)s, %(uuid)s] AS text[])
  WHERE id = ANY (ARRAY(SELECT id FROM picked))
  RETURNING {columns}
)
"""


def _readable(column: str) -> str:
    return f"CASE WHEN {column} BETWEEN {READABLE} THEN {column} END"


_COLUMNS = CLAIMED.format(
    scheduled_at=f"{_readable('scheduled_at')} AS due_at",
    inserted_at=f"{_readable('inserted_at')} AS put_at",
    args="cast(args AS text) AS args",
    meta="cast(meta AS text) AS meta",
    tags="CASE WHEN cardinality(tags) > 0 THEN cast(to_jsonb(tags) AS text) END AS tags",
    errors="CASE WHEN cardinality(errors) > 0 THEN cast(to_jsonb(errors) AS text) END AS errors",
)

_SHOWN = f"""
SELECT id, cast(state AS text), {_readable("attempted_at")}, attempted_by[2],
  cast(errors[cardinality(errors)] AS text)
FROM {{jobs}} WHERE id = ANY (cast(%(ids)s AS bigint[]))
"""

_CLAIM_OF_ONE = f"""
WHERE id = :id AND {_EXECUTING} AND attempted_at = cast(:fence AS timestamp)
  AND attempted_by[2] = cast(:uuid AS text)
"""

_COMPLETE_ONE = f"""
UPDATE {{jobs}} SET state = 'completed', completed_at = {NOW["postgresql"]} {_CLAIM_OF_ONE}
RETURNING id
"""

_RECORD_ERROR = f"""
UPDATE {{jobs}} SET errors = CASE
  WHEN errors[cardinality(errors)] = cast(:error AS jsonb) THEN errors
  ELSE array_append(errors, cast(:error AS jsonb)) END {_CLAIM_OF_ONE}
"""


class PostgresTurns:
    """Turns of producers, for `PostgresEngine`."""

    def prepare_turns(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: the quoted name of the tables' schema.

        """
        jobs = f"{schema}.oban_jobs"

        def filled(part: str, ids: str = "") -> str:
            return part.format(jobs=jobs, schema=schema, ids=ids, columns=_COLUMNS)

        given = "cast(%(ids)s AS bigint[])"
        record = [filled(_RECORD, given)]
        careful = [filled(_FREE), filled(_RECORD, "ARRAY(SELECT id FROM free)")]
        acks = {"none": [], "complete": [filled(_COMPLETE)], "record": record, "careful": careful}
        self._turns = {
            (kind, claiming): _statement(parts, filled(_CLAIM) if claiming else None)
            for kind, parts in acks.items()
            for claiming in (False, True)
        }
        self._shown = filled(_SHOWN)
        self._complete_one = text(filled(_COMPLETE_ONE))
        self._record_error = text(filled(_RECORD_ERROR))

    def take_turn(
        self,
        connection: Connection,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
        *,
        careful: bool = False,
    ) -> Turn:
        """See `JobEngine`."""
        if not acks and limit <= 0:
            return turn_of(acks, {}, NOTHING)
        statement, parameters = self._turn(claimant, queue, acks, limit, now, careful=careful)
        rows = raw_rows(connection, statement, parameters)
        written, fetched = _read(rows, claimant, queue)
        verdicts = {}
        if written < len(acks):
            verdicts = judge(acks, self._look(connection, parameters["ids"]), claimant.uuid)
        return turn_of(acks, verdicts, fetched)

    def turn_message(
        self,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
    ) -> TurnMessage | None:
        """See `JobEngine`."""
        if not acks and limit <= 0:
            return None
        statement, parameters = self._turn(claimant, queue, acks, limit, now, careful=False)
        return TurnMessage(statement, parameters, lambda rows: _read(rows, claimant, queue))

    def complete_job(
        self,
        connection: Connection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        now: datetime | None,
    ) -> bool:
        """See `JobEngine`."""
        claim = _claim(claimant, job_id, attempted_at) | {"now": parameter("postgresql", now)}
        return connection.execute(self._complete_one, claim).first() is not None

    def record_error(
        self,
        connection: Connection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        error: dict[str, Any],
    ) -> bool:
        """See `JobEngine`."""
        claim = _claim(claimant, job_id, attempted_at) | {"error": error_json(error)}
        return connection.execute(self._record_error, claim).rowcount == 1

    def _turn(
        self,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
        *,
        careful: bool,
    ) -> tuple[str, dict[str, Any]]:
        kind, parameters = _ack_parameters(acks, careful=careful)
        parameters |= {
            "now": parameter("postgresql", now),
            "node": claimant.node,
            "uuid": claimant.uuid,
            "queue": queue,
            "limit": limit,
        }
        return self._turns[kind, limit > 0], parameters

    def _look(self, connection: Connection, ids: str) -> dict[int, Shown]:
        rows = raw_rows(connection, self._shown, {"ids": ids})
        return {
            job_id: Shown(state, at and at.replace(tzinfo=UTC), uuid, error)
            for job_id, state, at, uuid, error in rows
        }


def _read(rows: list[Row], claimant: Claimant, queue: str) -> tuple[int, ClaimedRows]:
    # Without claims there is one row, of what was written only.
    written, at = rows[0][-2:]
    claimed = rows if rows[0][0] is not None and len(rows[0]) > 2 else []  # noqa: PLR2004 (these two alone)
    return written, ClaimedRows(claimed, claimant, queue, at.replace(tzinfo=UTC))


def _statement(acks: list[str], claim: str | None) -> str:
    """Join the parts into one statement, short enough for the driver to keep it parsed."""
    parts = [_MOMENT, *acks, *([claim] if claim else [])]
    written = "(SELECT count(*) FROM acked WHERE told)" if acks else "0"
    done = f"SELECT {written} AS written, now FROM moment"
    every = "SELECT claimed.*, written, now FROM"
    result = f"{every} ({done}) AS done LEFT JOIN claimed ON true" if claim else done
    return " ".join(f"WITH {', '.join(parts)} {result}".split())


def _ack_parameters(acks: Sequence[Ack], *, careful: bool) -> tuple[str, dict[str, Any]]:
    if not acks:
        return "none", {}
    # Text that is cast costs less than lists, which the driver would look into.
    ids = "{" + ",".join([str(ack.job_id) for ack in acks]) + "}"
    if not careful and all(_plain(ack) for ack in acks):
        fences = "{" + ",".join([fence_text(ack.attempted_at) for ack in acks]) + "}"
        return "complete", {"ids": ids, "fences": fences}
    document = ",".join(map(_document, acks))
    return "careful" if careful else "record", {"ids": ids, "acks": f"{{{document}}}"}


def _plain(ack: Ack) -> bool:
    return ack.state == JobState.COMPLETED and ack.error is None


def _document(ack: Ack) -> str:
    error = "null" if ack.error is None else error_json(ack.error)
    values = {
        "fence": fence_text(ack.attempted_at),
        "state": ack.state,
        "delay": delay_of(ack),
        "killed": ack.killed,
    }
    return f'"{ack.job_id}": {json.dumps(values)[:-1]}, "error": {error}}}'


def _claim(claimant: Claimant, job_id: int, attempted_at: datetime) -> dict[str, Any]:
    fence = parameter("postgresql", attempted_at)
    return {"id": job_id, "fence": fence, "uuid": claimant.uuid}
