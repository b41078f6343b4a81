"""The model of the store of what has ended: where it is, and that it goes once it is old."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from oban_actors.engines.prune import ENDED, EndedGroup, Position, PruneLook, PruneLooked
from tests.simulation.client import SimConnection
from tests.simulation.database import Row, Transaction
from tests.simulation.job_store import JOBS


class PruneStore:
    """See `PruneEngine`."""

    def ended_groups(self, connection: SimConnection) -> list[EndedGroup]:
        """See `PruneEngine`."""

        def find(made: Transaction) -> list[EndedGroup]:
            rows = [row for row in made.rows(JOBS) if row["state"] in ENDED]
            groups = {EndedGroup(row["state"], row["queue"], row["priority"]) for row in rows}
            return sorted(groups, key=lambda group: (ENDED.index(group.state), *group[1:]))

        return connection.run(find)  # type: ignore[no-any-return]  # what it gives

    def prune_jobs(
        self,
        connection: SimConnection,
        look: PruneLook,
        age: float | None,
        aside: Sequence[int],
        now: datetime | None,
    ) -> PruneLooked:
        """See `PruneEngine`."""
        return connection.run(lambda made: _prune(made, look, age, aside))  # type: ignore[no-any-return]  # what it gives


def _prune(
    made: Transaction, look: PruneLook, age: float | None, aside: Sequence[int]
) -> PruneLooked:
    until = None if age is None else made.now() - timedelta(seconds=age)
    rows = [row for row in made.rows(JOBS) if _group(row) == look.group]
    rows.sort(key=_place)
    if look.after is not None:
        rows = [row for row in rows if _place(row) > (look.after.at, look.after.job_id)]
    seen = rows[: look.rows]
    pruned = []
    for row in seen:
        young = until is None or _ended_at(row) > until
        if not young and row["id"] not in aside and made.try_lock(JOBS, row["id"]):
            made.put(JOBS, row["id"], None)
            made.notes.append(("prune", row["id"], age))
            pruned.append(row["id"])
    last = Position(*_place(seen[-1])) if seen else None
    return PruneLooked(len(seen), last, tuple(sorted(pruned)))


def _group(row: Row) -> tuple[str, str, int]:
    return row["state"], row["queue"], row["priority"]


def _place(row: Row) -> tuple[datetime, int]:
    return row["scheduled_at"], row["id"]


def _ended_at(row: Row) -> datetime:
    ended: datetime = row["done_at"]
    return ended
