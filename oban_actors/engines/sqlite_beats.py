"""Producers' beats on SQLite, and claims that nobody holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, text

from oban_actors.claim import Claimant
from oban_actors.engines.engine import BeatReport, ProducerBeat, TableClaim
from oban_actors.repo.times import NOW, parameter, to_moment

_UUID = "CASE WHEN json_valid(attempted_by) THEN json_extract(attempted_by, '$[1]') END"
_INDEXED = "oban_jobs INDEXED BY oban_jobs_state_queue_priority_scheduled_at_id_index"

_PLACES = ", ".join(
    f"json_extract(value, '$.{name}')"
    for name in ("uuid", "identity", "name", "node", "queue", "limit", "paused", "running")
)

# `WHERE true` tells ON CONFLICT from a join's ON.
_SHOW = text(f"""
INSERT INTO oban_actors_producers (
  uuid, identity, name, node, queue, queue_limit, paused, running, started_at, beat_at
)
SELECT {_PLACES}, {NOW["sqlite"]}, {NOW["sqlite"]} FROM json_each(:beats) WHERE true
ON CONFLICT (uuid) DO UPDATE SET
  identity = excluded.identity, name = excluded.name, node = excluded.node,
  queue = excluded.queue, queue_limit = excluded.queue_limit, paused = excluded.paused,
  running = excluded.running, beat_at = excluded.beat_at
""")

_CLAIMS = text(f"""
SELECT {_UUID} AS uuid, job.id, job.attempted_at
FROM json_each(:beats) AS beat CROSS JOIN {_INDEXED.replace(" ", " AS job ", 1)}
WHERE job.state = 'executing' AND job.queue = json_extract(beat.value, '$.queue')
  AND {_UUID} = json_extract(beat.value, '$.uuid')
""")

_BUSY = text(f"""
SELECT DISTINCT json_extract(beat.value, '$.queue') FROM json_each(:beats) AS beat
WHERE (
  SELECT id FROM {_INDEXED} WHERE state = 'available'
    AND queue = json_extract(beat.value, '$.queue') LIMIT 1
) IS NOT NULL
""")

_RELEASE = text(f"""
UPDATE oban_jobs SET state = 'available', attempt = max(attempt - 1, 0)
WHERE id IN (
  SELECT id FROM {_INDEXED}
  WHERE state = 'executing' AND queue = :queue AND {_UUID} = :uuid
    AND id NOT IN (SELECT value FROM json_each(:held))
)
RETURNING id
""")

_CLAIMED = text(f"""
SELECT id FROM {_INDEXED} WHERE state = 'executing' AND queue = :queue AND {_UUID} = :uuid
""")

_FORGET = text(f"""
DELETE FROM oban_actors_producers
WHERE uuid = :uuid AND NOT EXISTS (
  SELECT 1 FROM {_INDEXED}
  WHERE state = 'executing' AND queue = oban_actors_producers.queue AND {_UUID} = :uuid
)
""")


class SqliteBeats:
    """What producers show and give back, for `SqliteEngine`."""

    def release_jobs(
        self,
        connection: Connection,
        claimant: Claimant,
        queue: str,
        held: Sequence[int],
        now: datetime | None,
    ) -> list[int]:
        """See `JobEngine`."""
        parameters = {"queue": queue, "uuid": claimant.uuid, "held": json.dumps(list(held))}
        return sorted(connection.execute(_RELEASE, parameters).scalars())

    def claimed_ids(self, connection: Connection, claimant: Claimant, queue: str) -> list[int]:
        """See `JobEngine`."""
        parameters = {"queue": queue, "uuid": claimant.uuid}
        return sorted(connection.execute(_CLAIMED, parameters).scalars())

    def beat(
        self, connection: Connection, beats: Sequence[ProducerBeat], now: datetime | None
    ) -> BeatReport:
        """See `JobEngine`."""
        if not beats:
            return BeatReport([], frozenset())
        # The last one of a producer counts, as on PostgreSQL.
        documents = {beat.claimant.uuid: _document(beat) for beat in beats}
        parameters = {"beats": json.dumps(list(documents.values()))}
        connection.execute(_SHOW, parameters | {"now": parameter("sqlite", now)})
        claims = []
        for uuid, job_id, at in connection.execute(_CLAIMS, parameters):
            try:
                claims.append(TableClaim(uuid, job_id, to_moment(at)))
            except (TypeError, ValueError, AttributeError):
                # No claim of ours has such a time.
                continue
        return BeatReport(claims, frozenset(connection.execute(_BUSY, parameters).scalars()))

    def forget_producer(self, connection: Connection, claimant: Claimant) -> None:
        """See `JobEngine`."""
        connection.execute(_FORGET, {"uuid": claimant.uuid})


def _document(beat: ProducerBeat) -> dict[str, object]:
    values = asdict(beat)
    return {**values.pop("claimant"), **values}
