"""A machine: its clocks, which may be wrong, and whether it runs, stands still or is dead."""

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.simulation.hub import Action, Hub

EPOCH = datetime(2026, 3, 1, 11, 58, 30, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class Machine:
    """A computer on which one node runs, from its start to its death; a `Clock` too.

    Args:
        hub: the simulation's.
        name: for traces.
        skew: seconds by which its wall clock is wrong.

    Attributes:
        dead: whether its process was killed.
        still: whether nothing runs on it: it is stopped, or the whole machine suspended.
        stopped_at: when it was stopped last; `thawed_at` when it went on.
        cut: whether its network is cut, so that nothing arrives in either direction.
        healed_at: when that ended last.

    """

    hub: Hub
    name: str
    skew: float = 0.0
    dead: bool = False
    still: bool = False
    stopped_at: float = -1e9
    thawed_at: float = -1e9
    cut: bool = False
    healed_at: float = -1e9
    _suspended: bool = False
    _lost: float = 0.0
    _waiting: deque[tuple[Action, tuple[Any, ...]]] = field(default_factory=deque)

    # A clock

    virtual = False

    def monotonic(self) -> float:
        """Stands still while the machine is suspended."""
        until = self.stopped_at if self._suspended else self.hub.now
        return 1_000.0 + until - self._lost

    def boottime(self) -> float:
        """Goes on while the machine is suspended."""
        return 2_000.0 + self.hub.now

    def now(self) -> datetime:
        """The wall clock, wrong by `skew`."""
        return EPOCH + timedelta(seconds=self.hub.now + self.skew)

    def monotonic_ns(self) -> int:
        """`monotonic` in nanoseconds."""
        return round(self.monotonic() * 1e9)

    def system_time_ns(self) -> int:
        """`now` in nanoseconds since 1970."""
        return round(self.now().timestamp() * 1e9)

    # What runs on it

    def soon(self, seconds: float, action: Action, *args: Any) -> None:
        """Do something on this machine, once it runs."""
        self.hub.after(seconds, self._do, action, args)

    def stop(self, *, suspend: bool) -> None:
        """Let nothing run: SIGSTOP, or the lid of a laptop is closed."""
        self.still, self.stopped_at, self._suspended = True, self.hub.now, suspend

    def thaw(self) -> None:
        """Let it go on."""
        if self._suspended:
            self._lost += self.hub.now - self.stopped_at
        self.still, self.thawed_at, self._suspended = False, self.hub.now, False
        while self._waiting:
            action, args = self._waiting.popleft()
            self.soon(self.hub.lag(), action, *args)

    def kill(self) -> None:
        """End the process where it stands, as kill -9 does."""
        self.dead = True
        self._waiting.clear()

    def _do(self, action: Action, args: tuple[Any, ...]) -> None:
        if self.dead:
            return
        if self.still:
            self._waiting.append((action, args))
        else:
            action(*args)
