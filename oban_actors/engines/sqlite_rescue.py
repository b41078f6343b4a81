"""Rescuing on SQLite, where whoever writes is alone."""

import json
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

# Other writers may leave anything in a row, and what is no JSON must not fail a statement.
_UUID = "CASE WHEN json_valid(attempted_by) THEN json_extract(attempted_by, '$[1]') END"
_ERRORS = """CASE WHEN json_valid(errors) THEN
  CASE json_type(errors) WHEN 'array' THEN errors ELSE '[]' END ELSE '[]' END"""
_INDEXED = "oban_jobs INDEXED BY oban_jobs_state_queue_priority_scheduled_at_id_index"
_AGED = (
    "coalesce(julianday(attempted_at), julianday(inserted_at)) "
    f"< julianday({NOW['sqlite']}) - :age / 86400.0"
)

_PLACE = text("""
INSERT INTO oban_actors_producers (uuid, identity, name, node, queue, queue_limit)
VALUES (:uuid, '', '', '', '', 0) ON CONFLICT (uuid) DO NOTHING
""")

_REMOVE = text("DELETE FROM oban_actors_producers WHERE uuid = :uuid")

_BEATS = text(
    "SELECT uuid, cast(beat_at AS TEXT) FROM oban_actors_producers WHERE uuid IS NOT :uuid"
)

_CLAIMS = text(f"""
SELECT {_UUID} AS uuid, queue, coalesce(max({_AGED}), 0)
FROM {_INDEXED} WHERE state = 'executing' AND typeof(queue) = 'text' GROUP BY queue, 1
""")

_BEAT = text("SELECT cast(beat_at AS TEXT) FROM oban_actors_producers WHERE uuid = :uuid")

_ORPHANS = text(f"""
SELECT id FROM {_INDEXED}
WHERE state = 'executing' AND queue = :queue AND {_UUID} IS :uuid
  AND (:age IS NULL OR {_AGED}) AND id NOT IN (SELECT value FROM json_each(:aside))
ORDER BY priority, scheduled_at, id LIMIT :limit
""")

_USED_UP = text(f"""
SELECT id FROM (
  SELECT id, attempt >= max_attempts AS used_up FROM {_INDEXED}
  WHERE state = 'available' AND queue = :queue AND id NOT IN (SELECT value FROM json_each(:aside))
  ORDER BY priority, scheduled_at, id LIMIT :limit
) WHERE used_up
""")

# An element of the errors is text that holds JSON, as Elixir's Lite engine writes it.
_RESCUE = text(f"""
UPDATE oban_jobs SET
  state = CASE WHEN attempt < max_attempts THEN 'available' ELSE 'discarded' END,
  discarded_at = CASE WHEN attempt < max_attempts THEN discarded_at ELSE {NOW["sqlite"]} END,
  errors = CASE WHEN attempt < max_attempts THEN errors ELSE json_insert({_ERRORS}, '$[#]',
    json_object('at', {NOW["sqlite"]}, 'attempt', attempt, 'error', :error) || '') END
WHERE id IN (SELECT value FROM json_each(:ids)) AND +state = :state
  AND (:state = 'executing' OR attempt >= max_attempts)
RETURNING id, queue, state
""")

_LEFT = text(f"""
SELECT id FROM {_INDEXED} WHERE state = 'executing' AND queue = :queue AND {_UUID} = :uuid LIMIT 1
""")


class SqliteRescue:
    """What dead producers have left, for `SqliteEngine`."""

    def report_producers(
        self, connection: Connection, mark: str | None, age: float, now: datetime | None
    ) -> ProducerReport:
        """See `RescueEngine`; a file has no server that could restart."""
        if mark is not None:
            connection.execute(_PLACE, {"uuid": mark})
        beats = connection.execute(_BEATS, {"uuid": mark}).all()
        claims = connection.execute(_CLAIMS, {"age": age, "now": parameter("sqlite", now)}).all()
        if mark is not None:
            connection.execute(_REMOVE, {"uuid": mark})
        # Text that is no UTF-8 is no queue's name, and comes as bytes.
        groups = [
            ClaimGroup(uuid, queue, bool(aged))
            for uuid, queue, aged in claims
            if isinstance(queue, str)
        ]
        return ProducerReport("", {row[0]: row[1] for row in beats}, groups)

    def hold_producer(self, connection: Connection, uuid: str, beat: str | None) -> bool:
        """See `RescueEngine`."""
        return bool(connection.execute(_BEAT, {"uuid": uuid}).scalar() == beat)

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
            "aside": json.dumps(list(aside)),
            "age": age,
            "now": parameter("sqlite", now),
        }
        return list(connection.execute(_ORPHANS, parameters).scalars())

    def find_used_up(
        self, connection: Connection, queue: str, limit: int, aside: Sequence[int]
    ) -> list[int]:
        """See `RescueEngine`."""
        parameters = {"queue": queue, "limit": limit, "aside": json.dumps(list(aside))}
        return list(connection.execute(_USED_UP, parameters).scalars())

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
            "ids": json.dumps(list(ids)),
            "state": state,
            "error": error,
            "now": parameter("sqlite", now),
        }
        rows = connection.execute(_RESCUE, parameters).all()
        return sort_rescued([(row[0], row[1], row[2]) for row in rows], state)

    def settle_producer(
        self, connection: Connection, uuid: str, beat: str | None, queues: Sequence[str]
    ) -> bool:
        """See `RescueEngine`."""
        left = any(
            connection.execute(_LEFT, {"uuid": uuid, "queue": queue}).first() is not None
            for queue in queues
        )
        if beat is not None and not left:
            connection.execute(_REMOVE, {"uuid": uuid})
        return not left
