"""Producers' beats on PostgreSQL, and claims that nobody holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from oban_actors.claim import Claimant
from oban_actors.engines.engine import BeatReport, ProducerBeat, TableClaim
from oban_actors.repo.times import NOW, READABLE, parameter

# `ORDER BY` as the index has it, so that no other one serves: without it, and without statistics,
# a planner may take one that leads through all rows of the state.
_OF_QUEUE = "ORDER BY priority, scheduled_at, id"

_BEAT = f"""
WITH beats AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(cast(:beats AS jsonb)) AS beat (
    uuid text, identity text, name text, node text, queue text, "limit" integer, paused boolean,
    running integer
  )
),
shown AS (
  INSERT INTO {{producers}} (
    uuid, identity, name, node, queue, queue_limit, paused, running, started_at, beat_at
  )
  SELECT uuid, identity, name, node, queue, "limit", paused, running, now, now
  FROM beats, (SELECT {NOW["postgresql"]} AS now) AS moment
  ON CONFLICT (uuid) DO UPDATE SET
    identity = excluded.identity, name = excluded.name, node = excluded.node,
    queue = excluded.queue, queue_limit = excluded.queue_limit, paused = excluded.paused,
    running = excluded.running, beat_at = excluded.beat_at
)
SELECT beats.uuid, claim.id, claim.attempted_at, NULL AS busy
FROM beats, LATERAL (
  SELECT id, attempted_at FROM {{jobs}}
  WHERE state = 'executing' AND queue = beats.queue AND attempted_by[2] = beats.uuid
    AND attempted_at BETWEEN {READABLE}
  {_OF_QUEUE} LIMIT 1000000
) AS claim
UNION ALL
SELECT NULL, NULL, NULL, beats.queue FROM beats
WHERE (
  SELECT id FROM {{jobs}} WHERE state = 'available' AND queue = beats.queue {_OF_QUEUE} LIMIT 1
) IS NOT NULL
"""

_RELEASE = f"""
UPDATE {{jobs}} SET state = 'available', attempt = greatest(attempt - 1, 0)
WHERE id = ANY (ARRAY(
    SELECT id FROM {{jobs}}
    WHERE state = 'executing' AND queue = cast(:queue AS text)
      AND attempted_by[2] = cast(:uuid AS text) AND id <> ALL (cast(:held AS bigint[]))
    {_OF_QUEUE}
    FOR UPDATE SKIP LOCKED
  ))
RETURNING id
"""

_CLAIMED = f"""
SELECT id FROM {{jobs}}
WHERE state = 'executing' AND queue = cast(:queue AS text) AND attempted_by[2] = cast(:uuid AS text)
{_OF_QUEUE}
"""

_FORGET = f"""
DELETE FROM {{producers}} AS producer
WHERE uuid = cast(:uuid AS text) AND (
    SELECT id FROM {{jobs}}
    WHERE state = 'executing' AND queue = producer.queue
      AND attempted_by[2] = cast(:uuid AS text)
    {_OF_QUEUE}
    LIMIT 1
  ) IS NULL
"""


class PostgresBeats:
    """What producers show and give back, for `PostgresEngine`."""

    def prepare_beats(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: the quoted name of the tables' schema.

        """
        names = {"jobs": f"{schema}.oban_jobs", "producers": f"{schema}.oban_actors_producers"}
        self._beat = text(_BEAT.format(**names))
        self._release = text(_RELEASE.format(**names))
        self._claimed = text(_CLAIMED.format(**names))
        self._forget = text(_FORGET.format(**names))

    def release_jobs(
        self,
        connection: Connection,
        claimant: Claimant,
        queue: str,
        held: Sequence[int],
        now: datetime | None,
    ) -> list[int]:
        """See `JobEngine`; a row that somebody has locked stays, to be released another time."""
        parameters = {"queue": queue, "uuid": claimant.uuid, "held": list(held)}
        return sorted(connection.execute(self._release, parameters).scalars())

    def claimed_ids(self, connection: Connection, claimant: Claimant, queue: str) -> list[int]:
        """See `JobEngine`."""
        parameters = {"queue": queue, "uuid": claimant.uuid}
        return sorted(connection.execute(self._claimed, parameters).scalars())

    def beat(
        self, connection: Connection, beats: Sequence[ProducerBeat], now: datetime | None
    ) -> BeatReport:
        """See `JobEngine`."""
        if not beats:
            return BeatReport([], frozenset())
        # The last one of a producer counts: a statement can't write a row twice.
        documents = {beat.claimant.uuid: _document(beat) for beat in beats}
        document = json.dumps(list(documents.values()))
        parameters = {"beats": document, "now": parameter("postgresql", now)}
        rows = connection.execute(self._beat, parameters).all()
        claims = [
            TableClaim(uuid, job_id, at.replace(tzinfo=UTC))
            for uuid, job_id, at, busy in rows
            if busy is None
        ]
        return BeatReport(claims, frozenset(row.busy for row in rows if row.busy is not None))

    def forget_producer(self, connection: Connection, claimant: Claimant) -> None:
        """See `JobEngine`."""
        connection.execute(self._forget, {"uuid": claimant.uuid})


def _document(beat: ProducerBeat) -> dict[str, object]:
    values = asdict(beat)
    return {**values.pop("claimant"), **values}
