"""Cron's marks on PostgreSQL."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from oban_actors.engines.cron import CronMarks, Neighbour
from oban_actors.repo.times import NOW, parameter, to_moment, to_naive

_READ = f"""
SELECT clock.now, cron.entry, cron.evaluated_at
FROM (SELECT {NOW["postgresql"]} AS now) AS clock
LEFT JOIN {{crons}} AS cron
  ON cron.name = cast(:name AS text) AND cron.entry = ANY (cast(:entries AS text[]))
"""

_LOCK = """
SELECT entry FROM {crons}
WHERE name = cast(:name AS text) AND entry = ANY (cast(:entries AS text[]))
ORDER BY name, entry
FOR UPDATE
"""

_MARKS = "jsonb_to_recordset(cast(:marks AS jsonb)) AS mark (entry text, at timestamp)"

_PLANT = f"""
INSERT INTO {{crons}} (name, entry, evaluated_at)
SELECT cast(:name AS text), entry, at FROM {_MARKS}
ON CONFLICT (name, entry) DO NOTHING
"""

_MARK = f"""
UPDATE {{crons}} AS cron SET evaluated_at = mark.at FROM {_MARKS}
WHERE cron.name = cast(:name AS text) AND cron.entry = mark.entry
"""

_NOTHING = """
INSERT INTO {jobs} (queue, worker, args) SELECT queue, worker, args FROM {jobs} WHERE false
"""

_HURRY = text("SELECT set_config('lock_timeout', cast(:timeout AS text), true)")

_PRUNE = """
DELETE FROM {crons}
WHERE name = cast(:name AS text) AND entry <> ALL (cast(:entries AS text[]))
  AND evaluated_at < cast(:before AS timestamp)
"""

_NEIGHBOURS = """
SELECT identity, min(started_at), max(beat_at) FROM {producers}
WHERE name = cast(:name AS text) GROUP BY identity
"""


class PostgresCron:
    """Up to when entries were evaluated, for `PostgresEngine`."""

    def prepare_cron(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: the quoted name of the tables' schema.

        """
        names = {
            "jobs": f"{schema}.oban_jobs",
            "crons": f"{schema}.oban_actors_crons",
            "producers": f"{schema}.oban_actors_producers",
        }
        self._read_crons = text(_READ.format(**names))
        self._lock_crons = text(_LOCK.format(**names))
        self._plant_crons = text(_PLANT.format(**names))
        self._mark_crons = text(_MARK.format(**names))
        self._insert_nothing = text(_NOTHING.format(**names))
        self._prune_crons = text(_PRUNE.format(**names))
        self._neighbours = text(_NEIGHBOURS.format(**names))

    def read_crons(
        self, connection: Connection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """See `CronEngine`."""
        parameters = {"name": name, "entries": list(entries), "now": parameter("postgresql", now)}
        rows = connection.execute(self._read_crons, parameters).all()
        evaluated = {row.entry: to_moment(row.evaluated_at) for row in rows if row.entry}
        return CronMarks(to_moment(rows[0].now), evaluated)

    def lock_crons(
        self, connection: Connection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """See `CronEngine`."""
        connection.execute(self._lock_crons, {"name": name, "entries": list(entries)})
        # A later statement sees what those have committed who were waited for.
        return self.read_crons(connection, name, entries, now)

    def plant_crons(self, connection: Connection, name: str, marks: Mapping[str, datetime]) -> None:
        """See `CronEngine`."""
        connection.execute(self._plant_crons, {"name": name, "marks": _document(marks)})

    def hurry_crons(self, connection: Connection, seconds: float) -> None:
        """See `CronEngine`."""
        connection.execute(_HURRY, {"timeout": str(math.ceil(seconds * 1000))}).all()

    def insert_nothing(self, connection: Connection) -> None:
        """See `CronEngine`."""
        connection.execute(self._insert_nothing)

    def mark_crons(self, connection: Connection, name: str, marks: Mapping[str, datetime]) -> None:
        """See `CronEngine`."""
        connection.execute(self._mark_crons, {"name": name, "marks": _document(marks)})

    def prune_crons(
        self, connection: Connection, name: str, entries: Sequence[str], before: datetime
    ) -> None:
        """See `CronEngine`."""
        values = {"name": name, "entries": list(entries), "before": to_naive(before)}
        connection.execute(self._prune_crons, values)

    def find_neighbours(self, connection: Connection, name: str) -> list[Neighbour]:
        """See `CronEngine`."""
        rows = connection.execute(self._neighbours, {"name": name})
        return [
            Neighbour(identity, started.replace(tzinfo=UTC), shown.replace(tzinfo=UTC))
            for identity, started, shown in rows
        ]


def _document(marks: Mapping[str, datetime]) -> str:
    # In one order for all, so that two that write the same rows never wait for each other.
    rows = [{"entry": key, "at": to_naive(marks[key]).isoformat()} for key in sorted(marks)]
    return json.dumps(rows)
