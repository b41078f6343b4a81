"""What pruning asks of a job store: where ended jobs are, and to delete those that are old enough.

No index has the time at which a job ended, and one would cost every job. So a look goes through
the rows of one state, queue and priority in the order that the index for fetching has them in,
by the time at which they were due, and tells how far it came.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from sqlalchemy import Connection

Ended = Literal["completed", "cancelled", "discarded"]

ENDED: tuple[Ended, ...] = ("completed", "cancelled", "discarded")
"""The states in which jobs end."""


class EndedGroup(NamedTuple):
    """Ended jobs that stand side by side in the index."""

    state: Ended
    queue: str
    priority: int


@dataclass(frozen=True, slots=True)
class Position:
    """A row's place within its group.

    Attributes:
        at: its `scheduled_at`, as text that the database reads again, whatever it holds.
        job_id: its id.

    """

    at: Any
    job_id: int


@dataclass(frozen=True, slots=True)
class PruneLook:
    """Which rows to look at.

    Attributes:
        group: whose rows.
        after: behind which row to begin; None: with the first.
        rows: how many at most.

    """

    group: EndedGroup
    after: Position | None
    rows: int


@dataclass(frozen=True, slots=True)
class PruneLooked:
    """What a look came to.

    Attributes:
        seen: how many rows were looked at.
        last: where the last of them stands; None if there was none.
        pruned: ids of those that were deleted.

    """

    seen: int
    last: Position | None
    pruned: tuple[int, ...]


class PruneEngine(Protocol):
    """The part of a `JobEngine` that prunes."""

    def ended_groups(self, connection: Connection) -> list[EndedGroup]:
        """Find all groups with ended jobs, at a cost that only grows with their number."""

    def prune_jobs(
        self,
        connection: Connection,
        look: PruneLook,
        age: float | None,
        aside: Sequence[int],
        now: datetime | None,
    ) -> PruneLooked:
        """Delete those of some ended jobs that ended long enough ago.

        Completed jobs by `completed_at`, cancelled ones by `cancelled_at`, discarded ones by
        `discarded_at`; where that is missing, by the latest other time that the row has. Rows that
        others have locked are passed over, and so is one that changed meanwhile. Mirrors
        `Oban.Engine.prune_jobs/3`, which goes by `scheduled_at` for completed ones.

        Args:
            connection: to run on.
            look: which rows.
            age: seconds since they ended; None: look, and delete none.
            aside: ids of rows to leave.
            now: a virtual clock's time.

        """
