"""Cron's marks on SQLite."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from oban_actors.engines.cron import CronMarks, Neighbour
from oban_actors.repo.times import NOW, parameter, to_moment, to_text

_READ = text(f"""
SELECT clock.now, cron.entry, cron.evaluated_at
FROM (SELECT {NOW["sqlite"]} AS now) AS clock
LEFT JOIN oban_actors_crons AS cron
  ON cron.name = :name AND cron.entry IN (SELECT value FROM json_each(:entries))
""")

_MARKS = "json_each(:marks) AS mark"

# `WHERE true` tells ON CONFLICT from a join's ON.
_PLANT = text(f"""
INSERT INTO oban_actors_crons (name, entry, evaluated_at)
SELECT :name, mark.key, mark.value FROM {_MARKS} WHERE true
ON CONFLICT (name, entry) DO NOTHING
""")

_MARK = text(f"""
UPDATE oban_actors_crons SET evaluated_at = mark.value FROM {_MARKS}
WHERE oban_actors_crons.name = :name AND oban_actors_crons.entry = mark.key
""")

_NOTHING = text("""
INSERT INTO oban_jobs (queue, worker, args) SELECT queue, worker, args FROM oban_jobs WHERE false
""")

_PRUNE = text("""
DELETE FROM oban_actors_crons
WHERE name = :name AND entry NOT IN (SELECT value FROM json_each(:entries))
  AND evaluated_at < :before
""")

_NEIGHBOURS = text("""
SELECT identity, min(started_at), max(beat_at) FROM oban_actors_producers
WHERE name = :name GROUP BY identity
""")


class SqliteCron:
    """Up to when entries were evaluated, for `SqliteEngine`."""

    def read_crons(
        self, connection: Connection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """See `CronEngine`."""
        values = {"name": name, "entries": json.dumps(list(entries))}
        rows = connection.execute(_READ, values | {"now": parameter("sqlite", now)}).all()
        evaluated = {row.entry: to_moment(row.evaluated_at) for row in rows if row.entry}
        return CronMarks(to_moment(rows[0].now), evaluated)

    def lock_crons(
        self, connection: Connection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """See `CronEngine`; whoever writes has the whole file anyway."""
        return self.read_crons(connection, name, entries, now)

    def plant_crons(self, connection: Connection, name: str, marks: Mapping[str, datetime]) -> None:
        """See `CronEngine`."""
        connection.execute(_PLANT, {"name": name, "marks": _document(marks)})

    def hurry_crons(self, connection: Connection, seconds: float) -> None:
        """See `CronEngine`; whoever writes waits for nobody any more."""

    def insert_nothing(self, connection: Connection) -> None:
        """See `CronEngine`."""
        connection.execute(_NOTHING)

    def mark_crons(self, connection: Connection, name: str, marks: Mapping[str, datetime]) -> None:
        """See `CronEngine`."""
        connection.execute(_MARK, {"name": name, "marks": _document(marks)})

    def prune_crons(
        self, connection: Connection, name: str, entries: Sequence[str], before: datetime
    ) -> None:
        """See `CronEngine`."""
        values = {"name": name, "entries": json.dumps(list(entries)), "before": to_text(before)}
        connection.execute(_PRUNE, values)

    def find_neighbours(self, connection: Connection, name: str) -> list[Neighbour]:
        """See `CronEngine`."""
        rows = connection.execute(_NEIGHBOURS, {"name": name})
        return [
            Neighbour(identity, to_moment(started), to_moment(shown))
            for identity, started, shown in rows
        ]


def _document(marks: Mapping[str, datetime]) -> str:
    return json.dumps({key: to_text(moment) for key, moment in marks.items()})
