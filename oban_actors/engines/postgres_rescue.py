"""Rescuing on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from oban_actors.engines.rescue import (
    ClaimGroup,
    ProducerReport,
    Rescued,
    RescueState,
    sort_rescued,
)
from oban_actors.repo.times import NOW, parameter

_MOMENT = f"moment AS MATERIALIZED (SELECT {NOW['postgresql']} AS now)"

# Ordered as the index has it, so that no other one serves.
_OF_QUEUE = "ORDER BY priority, scheduled_at, id"

_PLACE = """
INSERT INTO {producers} (uuid, identity, name, node, queue, queue_limit)
VALUES (cast(:uuid AS text), '', '', '', '', 0)
ON CONFLICT (uuid) DO NOTHING RETURNING uuid
"""

_REMOVE = "DELETE FROM {producers} WHERE uuid = cast(:uuid AS text)"

# One row at least, that says which server it is.
_BEATS = """
SELECT cast(extract(epoch FROM pg_postmaster_start_time()) AS text), uuid, cast(beat_at AS text)
FROM (SELECT 1) AS server
LEFT JOIN {producers} ON uuid IS DISTINCT FROM cast(:uuid AS text)
"""

_CLAIMS = f"""
WITH {_MOMENT}
SELECT uuid, queue, coalesce(bool_or(aged), false) FROM (
  SELECT attempted_by[2] AS uuid, queue, coalesce(attempted_at, inserted_at) < (
    SELECT now - make_interval(secs => cast(:age AS double precision)) FROM moment
  ) AS aged
  FROM {{jobs}} WHERE state = 'executing' ORDER BY queue, priority, scheduled_at, id
) AS claim
GROUP BY uuid, queue
"""

_HOLD = """
SELECT uuid FROM {producers}
WHERE uuid = cast(:uuid AS text) AND cast(beat_at AS text) = cast(:beat AS text)
FOR UPDATE SKIP LOCKED
"""

_ORPHANS = f"""
WITH {_MOMENT}
SELECT id FROM {{jobs}}
WHERE state = 'executing' AND queue = cast(:queue AS text)
  AND attempted_by[2] IS NOT DISTINCT FROM cast(:uuid AS text)
  AND (cast(:age AS double precision) IS NULL OR coalesce(attempted_at, inserted_at) < (
    SELECT now - make_interval(secs => cast(:age AS double precision)) FROM moment
  ))
  AND id <> ALL (cast(:aside AS bigint[]))
{_OF_QUEUE}
LIMIT :limit
FOR UPDATE SKIP LOCKED
"""

# Only those that are meant are locked: a fetch passes over what it finds locked.
_USED_UP = f"""
SELECT id FROM {{jobs}}
WHERE id = ANY (ARRAY(
    SELECT id FROM (
      SELECT id, attempt >= max_attempts AS used_up FROM {{jobs}}
      WHERE state = 'available' AND queue = cast(:queue AS text)
        AND id <> ALL (cast(:aside AS bigint[]))
      {_OF_QUEUE}
      LIMIT :limit
    ) AS head
    WHERE used_up
  ))
  AND cast(state AS text) = 'available' AND attempt >= max_attempts
FOR UPDATE SKIP LOCKED
"""

# The state is compared as text, so that only the primary key serves.
_RESCUE = f"""
WITH {_MOMENT}
UPDATE {{jobs}} SET (state, discarded_at, errors) = (
  SELECT
    cast(CASE WHEN left_over THEN 'available' ELSE 'discarded' END
      AS {{schema}}.oban_job_state),
    CASE WHEN left_over THEN discarded_at ELSE now END,
    CASE WHEN left_over THEN errors ELSE array_append(errors, jsonb_build_object(
      'at', to_char(now, 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"Z"'),
      'attempt', attempt,
      'error', cast(:error AS text)
    )) END
  FROM moment, (SELECT attempt < max_attempts AS left_over) AS fate
)
WHERE id = ANY (cast(:ids AS bigint[])) AND cast(state AS text) = cast(:state AS text)
  AND (cast(:state AS text) = 'executing' OR attempt >= max_attempts)
RETURNING id, queue, cast(state AS text)
"""

_LEFT = f"""
SELECT id FROM {{jobs}}
WHERE state = 'executing' AND queue = cast(:queue AS text)
  AND attempted_by[2] = cast(:uuid AS text)
{_OF_QUEUE}
LIMIT 1
"""


class PostgresRescue:
    """What dead producers have left, for `PostgresEngine`."""

    def prepare_rescue(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: the quoted name of the tables' schema.

        """
        names = {
            "jobs": f"{schema}.oban_jobs",
            "producers": f"{schema}.oban_actors_producers",
            "schema": schema,
        }
        self._place_producer = text(_PLACE.format(**names))
        self._remove_producer = text(_REMOVE.format(**names))
        self._producer_beats = text(_BEATS.format(**names))
        self._claims = text(_CLAIMS.format(**names))
        self._hold_producer = text(_HOLD.format(**names))
        self._orphans = text(_ORPHANS.format(**names))
        self._used_up = text(_USED_UP.format(**names))
        self._rescue = text(_RESCUE.format(**names))
        self._left = text(_LEFT.format(**names))

    def report_producers(
        self, connection: Connection, mark: str | None, age: float, now: datetime | None
    ) -> ProducerReport:
        """See `RescueEngine`."""
        if mark is not None:
            connection.execute(self._place_producer, {"uuid": mark})
        beats = connection.execute(self._producer_beats, {"uuid": mark}).all()
        parameters = {"age": age, "now": parameter("postgresql", now)}
        claims = connection.execute(self._claims, parameters).all()
        if mark is not None:
            connection.execute(self._remove_producer, {"uuid": mark})
        return ProducerReport(
            beats[0][0],
            {uuid: beat for _, uuid, beat in beats if uuid is not None},
            [ClaimGroup(*row) for row in claims],
        )

    def hold_producer(self, connection: Connection, uuid: str, beat: str | None) -> bool:
        """See `RescueEngine`; a beat that is under way counts as another one."""
        if beat is None:
            # A row of its own is what a beat would have to wait for.
            return connection.execute(self._place_producer, {"uuid": uuid}).first() is not None
        held = connection.execute(self._hold_producer, {"uuid": uuid, "beat": beat})
        return held.first() is not None

    def find_orphans(
        self,
        connection: Connection,
        uuid: str | None,
        queue: str,
        limit: int,
        aside: Sequence[int],
        *,
        age: float | None = None,
        now: datetime | None = None,
    ) -> list[int]:
        """See `RescueEngine`."""
        parameters = {
            "uuid": uuid,
            "queue": queue,
            "limit": limit,
            "aside": list(aside),
            "age": age,
            "now": parameter("postgresql", now),
        }
        return list(connection.execute(self._orphans, parameters).scalars())

    def find_used_up(
        self, connection: Connection, queue: str, limit: int, aside: Sequence[int]
    ) -> list[int]:
        """See `RescueEngine`."""
        parameters = {"queue": queue, "limit": limit, "aside": list(aside)}
        return list(connection.execute(self._used_up, parameters).scalars())

    def rescue_jobs(
        self,
        connection: Connection,
        ids: Sequence[int],
        state: RescueState,
        error: str,
        now: datetime | None,
    ) -> Rescued:
        """See `RescueEngine`."""
        parameters = {
            "ids": list(ids),
            "state": state,
            "error": error,
            "now": parameter("postgresql", now),
        }
        rows = connection.execute(self._rescue, parameters).all()
        return sort_rescued([(row[0], row[1], row[2]) for row in rows], state)

    def settle_producer(
        self, connection: Connection, uuid: str, beat: str | None, queues: Sequence[str]
    ) -> bool:
        """See `RescueEngine`."""
        left = any(
            connection.execute(self._left, {"uuid": uuid, "queue": queue}).first() is not None
            for queue in queues
        )
        # A row that only stood for a beat goes in any case.
        if beat is None or not left:
            connection.execute(self._remove_producer, {"uuid": uuid})
        return not left
