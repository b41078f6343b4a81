"""Pruning on SQLite."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from oban_actors.engines.prune import (
    ENDED,
    Ended,
    EndedGroup,
    Position,
    PruneLook,
    PruneLooked,
)
from oban_actors.repo.times import NOW, parameter, to_moment, to_text

_INDEXED = "oban_jobs INDEXED BY oban_jobs_state_queue_priority_scheduled_at_id_index"


def _read(column: str) -> str:
    # Written in any of the ways that text sorts by, once made alike; NULL if it is no time.
    alike = f"rtrim(replace({column}, ' ', 'T'), 'Z')"
    return f"CASE WHEN typeof({column}) = 'text' AND julianday({column}) NOT NULL THEN {alike} END"


def _latest(*columns: str) -> str:
    # Of several values with a NULL among them, the largest is NULL.
    return f"max({', '.join(f'''coalesce({_read(column)}, '')''' for column in columns)})"


# Rows of others may lack the time. A cancelled job may not even have been due.
_ENDED_AT: dict[Ended, str] = {
    "completed": _latest("attempted_at", "scheduled_at", "inserted_at"),
    "cancelled": _latest("attempted_at", "inserted_at"),
    "discarded": _latest("attempted_at", "scheduled_at", "inserted_at"),
}

# From each group to the next one, instead of through all rows: of two columns compared as one, the
# index would only be asked for the first.
_GROUPS = text(f"""
WITH RECURSIVE groups (queue, priority) AS (
  SELECT * FROM (
    SELECT queue, priority FROM {_INDEXED} WHERE state = :state ORDER BY queue, priority LIMIT 1
  )
  UNION ALL
  SELECT job.queue, job.priority FROM groups CROSS JOIN oban_jobs AS job ON job.id = coalesce(
    (
      SELECT id FROM {_INDEXED}
      WHERE state = :state AND queue = groups.queue AND priority > groups.priority
      ORDER BY priority LIMIT 1
    ),
    (
      SELECT id FROM {_INDEXED} WHERE state = :state AND queue > groups.queue
      ORDER BY queue, priority LIMIT 1
    )
  )
)
SELECT queue, priority FROM groups WHERE typeof(queue) = 'text' AND typeof(priority) = 'integer'
""")

_SEEN = {
    state: text(
        f"SELECT id, scheduled_at, "
        f"coalesce({_read(f'{state}_at')}, {fallback}) <= rtrim(:until, 'Z') "
        f"FROM {_INDEXED} WHERE state = '{state}' AND queue = :queue AND priority = :priority "
        "AND (scheduled_at, id) > (:at, :id) ORDER BY scheduled_at, id LIMIT :rows"
    )
    for state, fallback in _ENDED_AT.items()
}

_DELETE = text("DELETE FROM oban_jobs WHERE id IN (SELECT value FROM json_each(:ids)) RETURNING id")
_CLOCK = text(f"SELECT {NOW['sqlite']}")

_FIRST = Position("", -(2**63))


class SqlitePrune:
    """What has ended and is old goes, for `SqliteEngine`."""

    def ended_groups(self, connection: Connection) -> list[EndedGroup]:
        """See `PruneEngine`."""
        return [
            EndedGroup(state, queue, priority)
            for state in ENDED
            for queue, priority in connection.execute(_GROUPS, {"state": state})
            # Text that is no UTF-8 comes as bytes.
            if isinstance(queue, str)
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
            "until": None if age is None else _before(connection, age, now),
            "queue": queue,
            "priority": priority,
            "at": after.at,
            "id": after.job_id,
            "rows": look.rows,
        }
        rows = connection.execute(_SEEN[state], parameters).all()
        due = [job_id for job_id, _, old in rows if old and job_id not in aside]
        pruned: list[int] = []
        if due or age is None:
            pruned = sorted(connection.execute(_DELETE, {"ids": json.dumps(due)}).scalars())
        last = Position(rows[-1][1], rows[-1][0]) if rows else None
        return PruneLooked(len(rows), last, tuple(pruned))


def _before(connection: Connection, age: float, now: datetime | None) -> str:
    moment = connection.execute(_CLOCK, {"now": parameter("sqlite", now)}).scalar_one()
    return to_text(to_moment(moment) - timedelta(seconds=age))
