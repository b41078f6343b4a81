"""Fleet: which worker processes are started, stopped and killed, and when; nothing is done here.

The rules are those of a `one_for_one` supervisor with permanent children: whatever dies is started
again, until it was too often; then all are stopped, the last first. Whatever hangs is made to die.
Unlike there, the first has to come up before the others are started, since what keeps it from it
keeps them all.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from oban_actors.actors.restarts import Intensity
from oban_actors.cli.exits import DONE, FAILED, HOPELESS, TAKEN, UNREACHABLE

RESTARTS = 5
SECONDS = 300.0
"""Restarts that are allowed within so many seconds, by all processes together."""

STOP_TIME = 20.0
"""Seconds beyond its grace period that a process has to end in, as its tree promises."""

HURRY_TIME = 10.0
"""Seconds that a process has that was told to hurry."""

FIRST_DELAY = 1.0
MOST_DELAY = 30.0
"""Seconds until a process that did not reach the database is started again, and at most."""

KILL_AGAIN = 1.0
"""Seconds until a process that was killed and is still there is killed again."""

BEAT = 5.0
"""Seconds between two signs of life of a process that is up."""

SILENCE = 60.0
"""Seconds without a sign of life after which a process that was up hangs."""

START_TIME = 600.0
"""Seconds after which a process hangs that has not come up; its tree has half of them to start."""

_UNHEARD = (-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""How a process ends that a service manager told to before it could hear."""

Word = Literal["drain", "stop", "hurry"]


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process."""

    index: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell a process to fetch no more, to end, or to end at once."""

    index: int
    word: Word


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a process."""

    index: int


@dataclass(frozen=True, slots=True)
class Hangs:
    """Say that a process has shown no sign of life for so many seconds; it is told to end."""

    index: int
    seconds: float


Action = Start | Tell | Kill | Hangs


@dataclass(slots=True)
class _Slot:
    """One place for a process.

    `due` is when it is started, `kill_at` when it is killed, perhaps again, `heard` when it showed
    last that it lives, each None for not yet; `killed` says that it was.
    """

    running: bool = False
    ready: bool = False
    due: float | None = None
    kill_at: float | None = None
    killed: bool = False
    heard: float | None = None
    delay: float = FIRST_DELAY


@dataclass(slots=True)
class Fleet:
    """What a parent knows of its processes.

    Times are monotonic seconds, given with each event.

    Attributes:
        count: how many there are to be.
        grace: seconds that jobs have to end in.
        intensity: restarts of late.
        code: what the parent ends with.
        why: what it gave up for, None where it was told to stop.

    """

    count: int
    grace: float
    intensity: Intensity = field(default_factory=lambda: Intensity(RESTARTS, SECONDS))
    code: int = DONE
    why: str | None = None
    _slots: list[_Slot] = field(default_factory=list)
    _proven: bool = False
    _signals: int = 0
    _hung_up: bool = False
    _stopping: bool = False
    _ticked: float | None = None

    def __post_init__(self) -> None:
        self._slots = [_Slot() for _ in range(self.count)]

    # Events

    def begin(self) -> list[Action]:
        """Start the first one."""
        return [self._start(0)]

    def ready(self, index: int) -> list[Action]:
        """One has come up; the first lets the others follow."""
        slot = self._slots[index]
        slot.ready, slot.delay, slot.heard = True, FIRST_DELAY, None
        if self._proven or self._stopping:
            return []
        self._proven = True
        return [self._start(i) for i, each in enumerate(self._slots) if not each.running]

    def lives(self, index: int, now: float) -> None:
        """One has shown that it lives."""
        self._slots[index].heard = now

    def ends(self, index: int, now: float) -> None:
        """One has begun to end, whoever told it: it has the time that all have for that."""
        slot = self._slots[index]
        if slot.kill_at is None:
            slot.kill_at = now + self.grace + STOP_TIME

    def ended(self, index: int, code: int, how: str, now: float) -> list[Action]:
        """One has ended.

        Args:
            index: which.
            code: its exit code, negative for a signal.
            how: the same in words.
            now: the time.

        """
        slot = self._slots[index]
        killed = slot.killed or (slot.kill_at is not None and now >= slot.kill_at)
        ready = slot.ready
        slot.running, slot.ready, slot.kill_at, slot.heard = False, False, None, None
        if self._stopping:
            # One that has not come up ends as its start does.
            fine = (DONE, *_UNHEARD) if ready else (DONE, UNREACHABLE, TAKEN, *_UNHEARD)
            if killed or code not in fine:
                self.code = self.code or FAILED
            return self._stop_next(now)
        if code in HOPELESS and not self._proven:
            return self._give_up(code, f"worker {index} {how}, and would again", now)
        if code == UNREACHABLE or (code in (TAKEN, *HOPELESS) and not ready):
            return self._without_a_start(slot, code, index, how, now)
        self.intensity = self.intensity.add(now)
        if self.intensity.exceeded:
            many = self.intensity.within(now)
            return self._give_up(
                FAILED, f"worker {index} {how}: the {many}th within {SECONDS:.0f} seconds", now
            )
        return [self._start(index)]

    def unstarted(self, index: int, how: str, now: float) -> list[Action]:
        """One could not be started: the system is out of something, and may be for a while."""
        slot = self._slots[index]
        slot.running = False
        if self._stopping:
            return self._stop_next(now)
        if not self._proven:
            return self._give_up(FAILED, f"worker {index} {how}", now)
        self._start_later(slot, now)
        return []

    def signal(self, now: float, *, hurry: bool = True) -> list[Action]:
        """The parent was told to stop; again: to hurry; once more: at once.

        Args:
            now: the time.
            hurry: whether the signal counts if they stop already.

        """
        if not hurry:
            self._hung_up = self._hung_up or not self._stopping
            return [] if self._stopping else self._stop_all(now)
        self._signals += 1
        if self._hung_up and self._signals == 1:
            # The one that a service manager sends together with it.
            return []
        if self._signals == 1 and not self._stopping:
            return self._stop_all(now)
        running = [i for i, slot in self._running()]
        if self._signals > 2:  # noqa: PLR2004 (the third)
            return [Kill(i) for i in running]
        for _, slot in self._running():
            slot.kill_at = min(slot.kill_at or now + HURRY_TIME, now + HURRY_TIME)
        return [Tell(i, word) for i in running for word in ("hurry", "stop")]

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        kills = list(self._kills(now))
        starts: list[Action] = [
            self._start(i)
            for i, slot in enumerate(self._slots)
            if slot.due is not None and slot.due <= now
        ]
        return [*kills, *starts, *self._hanging(now)]

    # Facts

    @property
    def over(self) -> bool:
        """Whether all have ended for good."""
        return self._stopping and not any(slot.running for slot in self._slots)

    @property
    def wake_at(self) -> float | None:
        """When something is due next, None for never."""
        times = [slot.due for slot in self._slots] + [slot.kill_at for _, slot in self._running()]
        if not self._stopping and self._ticked is not None and any(self._running()):
            # However silent they are, so that it notices that it was the one to be stopped.
            times.append(self._ticked + BEAT)
        return min((each for each in times if each is not None), default=None)

    # Helpers

    def _running(self) -> Iterator[tuple[int, _Slot]]:
        return ((i, s) for i, s in reversed(list(enumerate(self._slots))) if s.running)

    def _kills(self, now: float) -> Iterator[Action]:
        for i, slot in self._running():
            if slot.kill_at is not None and slot.kill_at <= now:
                # One that the system can't end yet is not to be killed without a pause.
                slot.killed, slot.kill_at = True, now + KILL_AGAIN
                yield Kill(i)

    def _hanging(self, now: float) -> Iterator[Action]:
        awake = self._ticked is not None and now - self._ticked < SILENCE / 2
        self._ticked = now
        if self._stopping:
            return
        for i, slot in self._running():
            if slot.heard is None or not awake:
                # Who was stopped itself, perhaps with all of them, has heard nobody.
                slot.heard = now
            silent = now - slot.heard
            if slot.kill_at is None and silent >= (SILENCE if slot.ready else START_TIME):
                slot.kill_at = now + self.grace + STOP_TIME
                yield Hangs(i, silent)
                yield Tell(i, "stop")

    def _start(self, index: int) -> Start:
        slot = self._slots[index]
        slot.running, slot.killed, slot.due = True, False, None
        return Start(index)

    def _without_a_start(
        self, slot: _Slot, code: int, index: int, how: str, now: float
    ) -> list[Action]:
        # A database that is away is no crash, nor is a port that is taken, or code that is just
        # being replaced, while the others work. But what never was there is a wrong address.
        if code == UNREACHABLE and not self._proven:
            return self._give_up(UNREACHABLE, f"worker {index} {how}", now)
        self._start_later(slot, now)
        return []

    def _start_later(self, slot: _Slot, now: float) -> None:
        slot.due = now + slot.delay
        slot.delay = min(slot.delay * 2, MOST_DELAY)

    def _give_up(self, code: int, why: str, now: float) -> list[Action]:
        self.code, self.why = code, why
        return self._stop_all(now)

    def _stop_all(self, now: float) -> list[Action]:
        # All drain meanwhile, so that it takes one grace period and not one for each.
        self._stopping = True
        for slot in self._slots:
            slot.due = None
        drained: list[Action] = [Tell(i, "drain") for i, _ in self._running()]
        return [*drained, *self._stop_next(now)]

    def _stop_next(self, now: float) -> list[Action]:
        for i, slot in self._running():
            if slot.kill_at is None:
                slot.kill_at = now + self.grace + STOP_TIME
                return [Tell(i, "stop")]
            return []
        return []
