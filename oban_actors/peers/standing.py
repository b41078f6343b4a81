"""Standing: for how long a row of the lease was seen not to change, whatever it says of its end."""

from dataclasses import dataclass, replace
from typing import Self

from oban_actors.options import MAX_LEASE
from oban_actors.peers.identity import owner
from oban_actors.peers.terms import Row, Stranded

DEAD_AFTER = MAX_LEASE * 1.05
"""Seconds without a renewal after which nobody trusts a lease, however long it was to last."""

GAP = 60.0
"""Seconds between two looks after which the watch begins anew: this node may have slept."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a follower saw of the row of another process of ours.

    A row that ends later than any lease lasts was written before the database's clock was set
    back. Whoever wrote it, if it lives, renews it by the clock as it is now. If it is dead, nobody
    could lead until the clock gets there.

    Attributes:
        row: as read last.
        since: when it was first seen like this.
        looked_at: when it was seen last.
        told: whether it was said that it ends too far ahead.

    """

    row: Row | None = None
    since: float = 0.0
    looked_at: float = 0.0
    told: bool = False

    def seen(self, row: Row, now: float) -> tuple[Self, tuple[Stranded, ...]]:
        """Take it that the row stands, and say if somebody should hear of that.

        Args:
            row: somebody else's.
            now: when it was read, or later.

        """
        watched = row.is_as(self.row) and now - self.looked_at <= GAP
        far = row.left > MAX_LEASE
        told = far and self.told
        after = replace(
            self, row=row, since=self.since if watched else now, looked_at=now, told=far
        )
        return after, (Stranded(row.node, row.left),) if far and not told else ()

    def dead(self, now: float) -> Row | None:
        """Give the row if nobody can believe in it any more, so that it may be removed.

        Args:
            now: not later than when it will be read again to be removed.

        """
        if self.row is None or owner(self.row.node) is None or now - self.looked_at > GAP:
            return None
        return self.row if now - self.since >= DEAD_AFTER else None
