"""The model of the store of cron's marks."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from oban_actors.engines.cron import CronMarks, Neighbour
from tests.simulation.client import SimConnection
from tests.simulation.database import Transaction
from tests.simulation.job_store import aware, naive
from tests.simulation.producer_store import PRODUCERS

CRONS = "oban_actors_crons"


class CronStore:
    """Up to when entries were evaluated; see `CronEngine`."""

    def read_crons(
        self, connection: SimConnection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """See `CronEngine`."""

        def read(made: Transaction) -> CronMarks:
            rows = {entry: made.get(CRONS, (name, entry)) for entry in entries}
            marks = {entry: aware(row["at"]) for entry, row in rows.items() if row is not None}
            return CronMarks(aware(made.now()), marks)

        return connection.run(read)  # type: ignore[no-any-return]  # what it gives

    def lock_crons(
        self, connection: SimConnection, name: str, entries: Sequence[str], now: datetime | None
    ) -> CronMarks:
        """See `CronEngine`."""

        def lock(made: Transaction) -> None:
            for entry in sorted(entries):
                if made.get(CRONS, (name, entry)) is not None:
                    made.lock(CRONS, (name, entry))

        connection.run(lock)
        return self.read_crons(connection, name, entries, now)

    def plant_crons(
        self, connection: SimConnection, name: str, marks: Mapping[str, datetime]
    ) -> None:
        """See `CronEngine`."""

        def plant(made: Transaction) -> None:
            for entry in sorted(marks):
                if made.get(CRONS, (name, entry)) is None:
                    made.lock(CRONS, (name, entry))
                    row = {"name": name, "entry": entry, "at": naive(marks[entry])}
                    made.put(CRONS, (name, entry), row)

        connection.run(plant)

    def hurry_crons(self, connection: SimConnection, seconds: float) -> None:
        """No host's transaction is in the way here."""

    def insert_nothing(self, connection: SimConnection) -> None:
        """No job is refused here for what it is."""

    def mark_crons(
        self, connection: SimConnection, name: str, marks: Mapping[str, datetime]
    ) -> None:
        """See `CronEngine`."""

        def mark(made: Transaction) -> None:
            for entry in sorted(marks):
                row = made.get(CRONS, (name, entry))
                if row is not None:
                    made.lock(CRONS, (name, entry))
                    made.put(CRONS, (name, entry), row | {"at": naive(marks[entry])})

        connection.run(mark)

    def prune_crons(
        self, connection: SimConnection, name: str, entries: Sequence[str], before: datetime
    ) -> None:
        """See `CronEngine`."""

        def prune(made: Transaction) -> None:
            for row in made.rows(CRONS):
                other = row["name"] == name and row["entry"] not in entries
                if other and row["at"] < naive(before):
                    made.lock(CRONS, (name, row["entry"]))
                    made.put(CRONS, (name, row["entry"]), None)

        connection.run(prune)

    def find_neighbours(self, connection: SimConnection, name: str) -> list[Neighbour]:
        """See `CronEngine`."""

        def find(made: Transaction) -> list[Neighbour]:
            nodes: dict[str, Neighbour] = {}
            for row in made.rows(PRODUCERS):
                if row["name"] != name:
                    continue
                began, shown = aware(row["started_at"]), aware(row["beat_at"])
                known = nodes.get(row["identity"])
                if known is not None:
                    began, shown = min(began, known.started_at), max(shown, known.shown)
                nodes[row["identity"]] = Neighbour(row["identity"], began, shown)
            return list(nodes.values())

        return connection.run(find)  # type: ignore[no-any-return]  # what it gives
