"""What the actors of one tree share."""

import threading
from dataclasses import dataclass, field

from oban_actors.actors.clock import SYSTEM_CLOCK, Clock
from oban_actors.actors.registry import Registry
from oban_actors.actors.timers import Timers


@dataclass(slots=True)
class Runtime:
    """A registry, timers and a clock: one set for each instance.

    Args:
        clock: what all parts of the tree read the time from.

    Attributes:
        abandoned: how many actors would not end and were left to themselves.

    """

    clock: Clock = SYSTEM_CLOCK
    registry: Registry = field(default_factory=Registry)
    timers: Timers = field(init=False)
    abandoned: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.timers = Timers(self.clock, self.registry)

    def count_abandoned(self) -> None:
        """Count one more actor that would not end."""
        with self._lock:
            self.abandoned += 1

    def close(self) -> None:
        """Stop the timers' thread."""
        self.timers.close()
