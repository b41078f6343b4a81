"""Pruning on PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text
from sqlalchemy.sql.elements import TextClause

from oban_actors.engines.prune import (
    ENDED,
    Ended,
    EndedGroup,
    Position,
    PruneLook,
    PruneLooked,
)
from oban_actors.repo.times import NOW, parameter

# Elixir's and older rows may lack the time. A cancelled job may not even have been due.
_ENDED_AT: dict[Ended, str] = {
    "completed": "coalesce(completed_at, greatest(attempted_at, scheduled_at, inserted_at))",
    "cancelled": "coalesce(cancelled_at, greatest(attempted_at, inserted_at))",
    "discarded": "coalesce(discarded_at, greatest(attempted_at, scheduled_at, inserted_at))",
}

# From each group to the next one, instead of through all rows.
_GROUPS = """
WITH RECURSIVE groups (queue, priority) AS (
  (
    SELECT queue, priority FROM {{jobs}} WHERE state = '{state}' ORDER BY queue, priority LIMIT 1
  )
  UNION ALL
  SELECT following.queue, following.priority FROM groups, LATERAL (
    SELECT queue, priority FROM {{jobs}}
    WHERE state = '{state}' AND (queue, priority) > (groups.queue, groups.priority)
    ORDER BY queue, priority LIMIT 1
  ) AS following
)
SELECT '{state}', queue, priority FROM groups
"""

# The rows are found again by their ids, and the state is compared as text: no other condition may
# look like one that an index could serve.
_PRUNE = """
WITH moment AS MATERIALIZED (
  SELECT {now} - make_interval(secs => cast(:age AS double precision)) AS until
),
seen AS MATERIALIZED (
  SELECT id, scheduled_at, {ended_at} <= (SELECT until FROM moment) AS due FROM {{jobs}}
  WHERE state = '{state}' AND queue = cast(:queue AS text) AND priority = cast(:priority AS integer)
    AND (scheduled_at, id) > (cast(:at AS timestamp), cast(:id AS bigint))
  ORDER BY priority, scheduled_at, id
  LIMIT :rows
),
locked AS MATERIALIZED (
  SELECT id FROM {{jobs}}
  WHERE id = ANY (ARRAY(SELECT id FROM seen WHERE due)) AND id <> ALL (cast(:aside AS bigint[]))
    AND cast(state AS text) = '{state}' AND {ended_at} <= (SELECT until FROM moment)
  FOR UPDATE SKIP LOCKED
),
pruned AS (
  DELETE FROM {{jobs}} WHERE id = ANY (ARRAY(SELECT id FROM locked)) RETURNING id
)
SELECT (SELECT count(*) FROM seen), last.at, last.id, ARRAY(SELECT id FROM pruned)
FROM (VALUES (1)) AS one LEFT JOIN (
  SELECT cast(scheduled_at AS text) AS at, id FROM seen
  ORDER BY scheduled_at DESC, seen.id DESC LIMIT 1
) AS last ON true
"""

_FIRST = Position("-infinity", -(2**63))


class PostgresPrune:
    """What has ended and is old goes, for `PostgresEngine`."""

    def prepare_prune(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: the quoted name of the tables' schema.

        """

        def prepared(statement: str, state: Ended) -> TextClause:
            named = statement.format(state=state, ended_at=_ENDED_AT[state], now=NOW["postgresql"])
            return text(named.format(jobs=f"{schema}.oban_jobs"))

        self._groups = [prepared(_GROUPS, state) for state in ENDED]
        self._prune = {state: prepared(_PRUNE, state) for state in ENDED}

    def ended_groups(self, connection: Connection) -> list[EndedGroup]:
        """See `PruneEngine`."""
        return [
            EndedGroup(*row) for statement in self._groups for row in connection.execute(statement)
        ]

    def prune_jobs(
        self,
        connection: Connection,
        look: PruneLook,
        age: float | None,
        aside: Sequence[int],
        now: datetime | None,
    ) -> PruneLooked:
        """See `PruneEngine`."""
        state, queue, priority = look.group
        after = look.after or _FIRST
        parameters = {
            "now": parameter("postgresql", now),
            # With NULL nothing is old enough.
            "age": age,
            "queue": queue,
            "priority": priority,
            "at": after.at,
            "id": after.job_id,
            "rows": look.rows,
            "aside": list(aside),
        }
        seen, at, job_id, pruned = connection.execute(self._prune[state], parameters).one()
        last = None if job_id is None else Position(at, job_id)
        return PruneLooked(seen, last, tuple(sorted(pruned)))
