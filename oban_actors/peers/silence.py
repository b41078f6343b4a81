"""Silence: when a holder of the lease that was not heard of counts as silent."""

import math

from oban_actors.peers.identity import is_locked, owner
from oban_actors.peers.terms import Row, Rules

GRACE = 0.3
"""Seconds that a beat may be late."""

FIRST_BEAT = 1.3
"""Seconds until a holder must have beaten whose row was read; a lock tried in vain does no harm."""

AGAIN = 1.0
"""Seconds between two tries of a silent holder's lock, or two looks because of strange beats."""

NEVER = math.inf


def at_beat(rules: Rules, seconds: float, now: float) -> float:
    """Say when a holder is silent that has just promised to beat again within some seconds."""
    return now + min(max(seconds, 0.0), rules.renew) + GRACE


def at_row(rules: Rules, before: Row | None, row: Row, silent_at: float, now: float) -> float:
    """Say when a holder is silent whose row was read.

    Args:
        rules: of who read it.
        before: the row as read before that.
        row: as read now.
        silent_at: when the holder of that counted as silent.
        now: when it was read.

    """
    if not rules.fast or owner(row.node) is None:
        return NEVER
    if before is None or owner(before.node) != owner(row.node):
        return now + FIRST_BEAT
    newly_locked = is_locked(row.node) and not is_locked(before.node)
    return silent_at if now < silent_at or newly_locked else now + AGAIN
