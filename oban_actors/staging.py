"""The Stager's decisions, apart from their effects: when to look next, and what to leave out."""

import sqlite3
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

import sqlalchemy as sa

from oban_actors.messages import Status
from oban_actors.repo.sqlstates import CONFLICTS, sqlstate

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

OTHER_ERRORS = frozenset(
    "00 01 02 03 08 0A 0B 0F 0L 0P 0Z 10 20 21 24 25 26 28 2B 2D "  # noqa: SIM905 (of 38 lines)
    "2F 34 38 39 3B 3D 3F 40 42 53 54 55 57 58 72 F0 HV XX".split()
)
"""The server's other classes; any that it has not is of a host's own making, in a trigger."""

NO_ROW_ERRORS = frozenset({"08", "25", "40", "53", "57", "58"})
"""Classes of which no row is to blame: connections, conflicts, time-outs, and what runs short."""

SQLITE_ROW_ERRORS = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
    }
)
"""SQLite's codes of errors that a row may bring about."""

ASIDE_FOR = 60.0
"""Seconds that a row which can't be staged is left out, at least."""

ASIDE_MOST = 50_000
"""Rows left out at the same time at most."""

RETURNING = 10
"""Rows left out that get another try at once, doubled each time while none is refused again."""


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
    """Rows that can't be staged, left out for a while so that they stop no others.

    When their time is over a few come back at once, lest all that were refused stop the others
    again; once they are refused no longer, ever more do.
    """

    _until: dict[int, float] = field(default_factory=dict)
    _returning: int = RETURNING
    _returned: bool = False

    @property
    def full(self) -> bool:
        """Whether the next row to be left out brings the oldest one back in."""
        return len(self._until) >= ASIDE_MOST

    def add(self, job_id: int, now: float) -> None:
        """Leave a row out; the oldest ones come back in when there are too many."""
        self._returning, self._returned = RETURNING, False
        self._until.pop(job_id, None)
        self._until[job_id] = now + ASIDE_FOR
        while len(self._until) > ASIDE_MOST:
            del self._until[next(iter(self._until))]

    def ids(self, now: float) -> list[int]:
        """Name the rows to leave out now; some of those whose time is over get another try."""
        if self._returned:
            self._returning = min(self._returning * 2, ASIDE_MOST)
        # The longest left out are the first.
        first = list(islice(self._until.items(), self._returning))
        over = [job_id for job_id, until in first if until <= now]
        for job_id in over:
            del self._until[job_id]
        self._returned = bool(over)
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
    state = None if error is None else sqlstate(error)
    return state is not None and (
        state[:2] in ROW_ERRORS or state[:2] not in ROW_ERRORS | OTHER_ERRORS
    )


def may_be_of_a_row(error: BaseException | None) -> bool:
    """Whether the database may have refused a row: a trigger can run into nearly anything.

    Whether it did is told by what is the same without any row: that fails for all other reasons.
    """
    if is_of_a_row(error):
        return True
    driver = getattr(error, "orig", error)
    if isinstance(driver, sqlite3.Error):
        # An extended code holds the plain one in its low byte.
        return getattr(driver, "sqlite_errorcode", 0) & 0xFF in SQLITE_ROW_ERRORS
    state = None if error is None else sqlstate(error)
    return state is not None and state not in CONFLICTS and state[:2] not in NO_ROW_ERRORS
