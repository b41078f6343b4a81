"""The Producer's decisions, apart from their effects: when it takes a turn, and for how much."""

from dataclasses import dataclass

MOST_FETCHED = 1_000
"""Jobs that one turn claims at most; a full turn is followed by another at once."""

LEAST_SHARE = 250
"""Jobs that are worth a turn of their own: with fewer, most of it is the commit."""

FAILED_DELAY = 0.1
"""Seconds until another try after the database failed; doubled each time."""

FAILED_MOST = 5.0
"""Seconds between tries at most, while the database fails."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Take a turn now, and claim at most so many jobs in it."""

    limit: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Do nothing until something happens."""


Step = Turn | Wait | Idle


def share(limit: int) -> int:
    """Give how many jobs of a queue one turn claims at most.

    Half of what may run, so that one half is run while the database is at work on the other.

    Args:
        limit: most jobs that run at once.

    """
    return max(LEAST_SHARE, limit // 2)


@dataclass(slots=True)
class Rhythm:
    """When to write what has ended, and when to look for more.

    What has ended is written at once, and whoever writes also looks for jobs: that costs next to
    nothing. Apart from that it only looks when there may be something: at the start, when told
    so, and after a look that brought all that was asked for.

    Args:
        cooldown: seconds between two looks, so that a burst of notifications is one.

    """

    cooldown: float
    hungry: bool = True
    _looked_at: float | None = None
    _failures: int = 0
    _resume_at: float = 0.0

    def feed(self) -> None:
        """Note that there may be jobs."""
        self.hungry = True

    def next(self, now: float, *, unwritten: int, demand: int, unsure: bool = False) -> Step:
        """Decide what to do.

        Args:
            now: monotonic seconds.
            unwritten: how many acknowledgements wait.
            demand: how many jobs there is room for; 0 while paused.
            unsure: whether claims may have to be given back, for which no room is needed.

        """
        if self._failures and now < self._resume_at:
            return Wait(self._resume_at - now)
        limit = min(demand, MOST_FETCHED)
        if unwritten:
            return Turn(limit)
        if not unsure and not (self.hungry and limit):
            return Idle()
        ready = now if self._looked_at is None else self._looked_at + self.cooldown
        return Turn(limit) if now >= ready else Wait(ready - now)

    def worked(self, now: float, *, asked: int, got: int) -> None:
        """Note a turn that was committed.

        Args:
            now: monotonic seconds.
            asked: how many jobs it might have claimed.
            got: how many it did.

        """
        self._failures = 0
        if asked:
            self.hungry = got >= asked
            # A full one says that there is more: no reason to wait.
            self._looked_at = None if self.hungry else now

    def waits(self, unwritten: int, *, demand: int, got: int) -> bool:
        """Whether jobs that have just been claimed should end before the next turn.

        Short ones then do, so that it writes them all, not every other one. Where there is more
        to claim, or enough to write, they end while the database is at work.

        Args:
            unwritten: how many acknowledgements wait.
            demand: how many jobs there is room for.
            got: how many were claimed.

        """
        return not (self.hungry and demand) and unwritten < got / 2

    def failed(self, now: float) -> None:
        """Note a turn that failed, or may have."""
        self._failures = min(self._failures + 1, 16)
        self.hungry = True
        delay = FAILED_DELAY * 2.0 ** (self._failures - 1)
        self._resume_at = now + min(delay, FAILED_MOST)
