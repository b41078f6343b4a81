"""Time as a parameter: the system's clocks, or one that a test moves by hand."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """Where every part of the tree reads the time."""

    @property
    def virtual(self) -> bool:
        """Whether time only moves when a test moves it."""

    def monotonic(self) -> float:
        """Seconds that never go back; stands still while the machine is suspended."""

    def boottime(self) -> float:
        """Seconds that never go back and count the time a machine is suspended."""

    def now(self) -> datetime:
        """The wall clock, as an aware UTC datetime."""

    def monotonic_ns(self) -> int:
        """`monotonic` in integer nanoseconds."""

    def system_time_ns(self) -> int:
        """Nanoseconds since the epoch."""


class SystemClock:
    """The clocks of the operating system."""

    virtual = False

    def monotonic(self) -> float:
        """Read `time.monotonic`."""
        return time.monotonic()

    def boottime(self) -> float:
        """Read `CLOCK_BOOTTIME`, or `CLOCK_MONOTONIC` where there is none."""
        return time.clock_gettime(_BOOTTIME)

    def now(self) -> datetime:
        """Read the wall clock."""
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        """Read `time.monotonic_ns`."""
        return time.monotonic_ns()

    def system_time_ns(self) -> int:
        """Read `time.time_ns`."""
        return time.time_ns()


class VirtualClock:
    """A clock that stands still until `advance` moves it.

    Timers made under it fire inside `advance`, in the order in which they are due and with
    the clock showing each one's due time, so a test decides exactly what happens when.

    Args:
        start: the wall time it begins with, aware; the default is the real time of now.

    Raises:
        ValueError: the time has no zone.

    """

    virtual = True

    def __init__(self, start: datetime | None = None) -> None:
        self._epoch = start or SYSTEM_CLOCK.now()
        if self._epoch.tzinfo is None:
            msg = f"expected an aware datetime as start, got: {start!r}"
            raise ValueError(msg)
        self._elapsed_ns = 0
        self._sources: list[Callable[[int], int | None]] = []
        self._lock = threading.RLock()

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed_ns / 1e9

    def boottime(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed_ns / 1e9

    def now(self) -> datetime:
        """Return the start plus what was advanced."""
        return self._epoch + timedelta(microseconds=self._elapsed_ns // 1000)

    def monotonic_ns(self) -> int:
        """Nanoseconds advanced so far."""
        return self._elapsed_ns

    def system_time_ns(self) -> int:
        """Nanoseconds since the epoch, by this clock."""
        return int(self._epoch.timestamp() * 1e9) + self._elapsed_ns

    def attach(self, source: Callable[[int], int | None]) -> None:
        """Add what is to run as time passes.

        Args:
            source: called with the present monotonic time in nanoseconds, it does all that
                is due and returns when it is due next, or None.

        """
        with self._lock:
            self._sources.append(source)

    def detach(self, source: Callable[[int], int | None]) -> None:
        """Remove a source again; an unknown one is no error."""
        with self._lock:
            if source in self._sources:
                self._sources.remove(source)

    def advance(self, seconds: float | timedelta) -> None:
        """Move time ahead, firing timers on the way.

        Args:
            seconds: how far, zero or more.

        Raises:
            ValueError: time would go back.

        """
        span = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if span < 0:
            msg = f"expected zero or more seconds, got: {seconds!r}"
            raise ValueError(msg)
        with self._lock:
            goal_ns = self._elapsed_ns + round(span * 1e9)
            while True:
                dues = [source(self._elapsed_ns) for source in list(self._sources)]
                if self._elapsed_ns >= goal_ns:
                    return
                next_ns = min((due for due in dues if due is not None), default=goal_ns)
                self._elapsed_ns = min(max(next_ns, self._elapsed_ns + 1), goal_ns)


SYSTEM_CLOCK = SystemClock()

real_monotonic = time.monotonic
"""What measures the actors' own work, under a virtual clock too."""
