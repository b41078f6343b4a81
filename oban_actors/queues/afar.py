"""Runs at an executor of the host's: what one of them finds of its claim, and of its time."""

import functools
import os
import uuid
from pathlib import Path

from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.claim import Claim
from oban_actors.running import Running

_BOOT = Path("/proc/sys/kernel/random/boot_id")

# By its token, what this process has handed to an executor. A fork has it all too, but runs none.
_lent: dict[str, tuple[int, Claim]] = {}


class TimedRunning(Running):
    """A run that nobody reaches: once its time is over, it tells itself to end."""

    __slots__ = ("_told",)

    @property
    def cancelled(self) -> bool:
        """See `Running`."""
        if not self._told and (left := self.time_left) is not None and left <= 0:
            self.cancel("timeout")
        return self._told

    @cancelled.setter
    def cancelled(self, told: bool) -> None:
        self._told = told


def lend(claim: Claim) -> str:
    """Let a run that turns out to be in this process find its claim; gives the token for it."""
    token = uuid.uuid4().hex
    _lent[token] = (os.getpid(), claim)
    return token


def end_loan(token: str) -> None:
    """Let it find its claim no longer."""
    _lent.pop(token, None)


def borrowed(token: object) -> Claim | None:
    """Give the claim of a run, where the process that has lent it is this one."""
    pid, claim = _lent.get(str(token), (0, None))
    return claim if pid == os.getpid() else None


def moment() -> tuple[str, float] | None:
    """Give the time by a clock that all processes of this machine read, and which machine it is.

    None where it can't be told.
    """
    boot = _boot()
    return None if boot is None else (boot, SYSTEM_CLOCK.monotonic())


def seconds_since(then: tuple[str, float] | None) -> float:
    """Give how long ago a `moment` was; 0 where it was on another machine."""
    now = moment()
    if then is None or now is None or then[0] != now[0]:
        return 0.0
    return max(0.0, now[1] - then[1])


# Helpers


@functools.cache
def _boot() -> str | None:
    try:
        return _BOOT.read_text().strip() or None
    except OSError:
        return None
