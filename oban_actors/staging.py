"""The Stager's decisions, apart from their effects: when to look next, and what to leave out."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from oban_actors.messages import Status

BURST = 20
"""Passes that may follow each other at once."""

RATE = 40.0
"""Passes a second in the long run, however many due times there are."""

SLACK = 0.00001
"""Seconds a pass comes after a due time, so that rounding does not make it come before."""

READINGS = 8
"""Readings of the database's clock that are compared."""

LOCKED_DELAY = 0.05
"""Seconds until another look at rows that were due but locked twice; doubled each time."""

FAILED_DELAY = 0.1
"""Seconds until another try after the database failed; doubled each time."""

FAILED_MOST = 5.0
"""Seconds between tries at most, while the database fails."""

ROW_ERRORS = frozenset({"09", "22", "23", "27", "44", "P0"})
"""SQLSTATE classes of errors that a single row, or a trigger on it, brings about."""

ASIDE_FOR = 60.0
"""Seconds that a row which can't be staged is left out."""

ASIDE_MOST = 1_000
"""Rows left out at the same time at most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass came to, as far as the next one's time depends on it.

    Args:
        led: whether it was allowed to stage.
        staged: it staged some.
        full: it staged as many as it may at once.
        failed: the database failed.
        next_due_in: seconds until the earliest row not staged, by the database's clock; zero
            or less for one that is due but could not be staged; None for no row.

    """

    led: bool = False
    staged: bool = False
    full: bool = False
    failed: bool = False
    next_due_in: float | None = None


@dataclass(slots=True)
class DatabaseClock:
    """When, by the monotonic clock, the database's clock shows what.

    What it showed is heard later than it was read, by as long as the answer took. The least
    delayed of the latest readings tells most; the others only say that it is no later. So a pass
    comes when a job is due, and not as much later as the one before took to be heard of.

    Attributes:
        latest: what it showed last, None before it was read.

    """

    latest: datetime | None = None
    _delays: deque[float] = field(default_factory=lambda: deque(maxlen=READINGS))

    def read(self, now: datetime, heard_at: float) -> None:
        """Note a reading.

        Args:
            now: what it showed, aware.
            heard_at: monotonic seconds at which that was heard.

        """
        self.latest = now
        self._delays.append(heard_at - now.timestamp())

    def shows_at(self, moment: datetime) -> float:
        """Give the monotonic seconds at which it shows this, if it was read."""
        return moment.timestamp() + min(self._delays)


@dataclass(slots=True)
class Pace:
    """When the next pass comes.

    It comes when the next job is due, at most an interval ahead; at once after a full pass;
    with growing delays while the due rows are locked, or the database fails. A bucket of
    tokens keeps a thousand due times within a second from costing a thousand passes.

    Args:
        interval: seconds between passes when nothing is due sooner.

    """

    interval: float
    _tokens: float = BURST
    _filled_at: float | None = None
    _locked: int = 0
    _failed: int = 0

    def next_delay(self, outcome: Outcome, now: float) -> float:
        """Decide how long to wait after a pass.

        Args:
            outcome: what it came to.
            now: monotonic seconds.

        Returns:
            seconds, zero or more.

        """
        self._fill(now)
        self._tokens = max(0.0, self._tokens - 1)
        self._failed = min(self._failed + 1, 16) if outcome.failed else 0
        if outcome.failed:
            most = min(FAILED_MOST, max(self.interval, FAILED_DELAY))
            return min(FAILED_DELAY * 2.0 ** (self._failed - 1), most)
        if outcome.full:
            self._locked = 0
            return 0.0
        due = outcome.next_due_in
        if not outcome.led or due is None or due > self.interval:
            self._locked = 0
            return self.interval
        if due <= 0:
            # Once it may only have become due while the pass ran: that is not put off. Nor is it
            # while passes bring something, or a steady stream would look like locked rows.
            self._locked = 1 if outcome.staged else min(self._locked + 1, 16)
            if self._locked == 1:
                return min(self._earliest(), self.interval)
            return min(LOCKED_DELAY * 2.0 ** (self._locked - 2), self.interval)
        self._locked = 0
        return min(max(due + SLACK, self._earliest()), self.interval)

    def soonest(self, now: float) -> float:
        """Give seconds until a pass may come for a job that somebody tells of.

        Args:
            now: monotonic seconds.

        """
        self._fill(now)
        return self._earliest()

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * RATE
            self._tokens = min(BURST, self._tokens + gained)
        self._filled_at = now

    def _earliest(self) -> float:
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / RATE


@dataclass(slots=True)
class SetAside:
    """Rows that can't be staged, left out for a while so that they stop no others."""

    _until: dict[int, float] = field(default_factory=dict)

    def add(self, job_id: int, now: float) -> None:
        """Leave a row out; the oldest ones come back in when there are too many."""
        self._until.pop(job_id, None)
        self._until[job_id] = now + ASIDE_FOR
        while len(self._until) > ASIDE_MOST:
            del self._until[next(iter(self._until))]

    def ids(self, now: float) -> list[int]:
        """Name the rows to leave out now; those whose time is over get another try."""
        self._until = {job_id: until for job_id, until in self._until.items() if until > now}
        return list(self._until)


def staging_mode(status: Status, mode: str, *, leads: bool) -> str:
    """Say who tells this node's queues of work: the cluster (`global`), or itself (`local`)."""
    if status == "unknown":
        return mode
    if status == "isolated" or (status == "solitary" and not leads):
        return "local"
    return "global"


def is_of_a_row(error: BaseException | None) -> bool:
    """Whether the database refused a row, rather than being unable to work."""
    if isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):
        return True
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return isinstance(state, str) and state[:2] in ROW_ERRORS
