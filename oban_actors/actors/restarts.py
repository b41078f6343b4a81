"""A supervisor's decisions, apart from their effects: who restarts, and when to give up."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from oban_actors.actors.reasons import Reason
from oban_actors.actors.spec import Restart, Strategy


def wants_restart(restart: Restart, reason: Reason) -> bool:
    """Whether a child that ended so is started again."""
    if restart == "permanent":
        return True
    return restart == "transient" and reason.abnormal


def keeps_spec(restart: Restart) -> bool:
    """Whether a child that isn't started again stays known; it can be started by hand."""
    return restart != "temporary"


def affected(strategy: Strategy, ids: Sequence[Hashable], failed: Hashable) -> Sequence[Hashable]:
    """Name the children to be ended (last first) and started (in order) for one that failed.

    Args:
        strategy: the supervisor's.
        ids: all children in start order.
        failed: the one that ended.

    """
    if strategy == "one_for_one":
        return [failed]
    if strategy == "one_for_all":
        return list(ids)
    return list(ids[list(ids).index(failed) :])


@dataclass(frozen=True, slots=True)
class Intensity:
    """How many restarts there were of late, of how many that are allowed.

    Args:
        max_restarts: restarts allowed within the window.
        max_seconds: the window.
        times: when they were, newest first, in monotonic seconds.

    """

    max_restarts: int = 3
    max_seconds: float = 5.0
    times: tuple[float, ...] = ()

    def add(self, now: float) -> "Intensity":
        """Count one more restart, and forget those before the window."""
        recent = tuple(t for t in self.times if t >= now - self.max_seconds)
        return Intensity(self.max_restarts, self.max_seconds, (now, *recent))

    @property
    def exceeded(self) -> bool:
        """Whether it is time to give up."""
        return len(self.times) > self.max_restarts

    def within(self, now: float) -> int:
        """Count the restarts in the window that ends now."""
        return sum(t >= now - self.max_seconds for t in self.times)
