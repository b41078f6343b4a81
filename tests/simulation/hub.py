"""The hub: virtual time, and who runs next; every choice comes from the seed."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it has no types

from oban_actors.actors.process import CURRENT, Process

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

Action = Callable[..., object]
Event = tuple[float, int, Action, tuple[Any, ...]]


class Gone(BaseException):
    """The machine of this thread was killed, or the simulation is over."""


@dataclass(slots=True, eq=False)
class Thread:
    """A thread of a machine.

    Attributes:
        machine: where it runs.
        greenlet: what runs it.
        number: what `threading.get_ident` gives in it.
        parks: how often it has waited, so that a late wake-up is told from one that is meant.
        process: the actor that it is, while it does not run.

    """

    machine: "Machine"
    greenlet: greenlet
    number: int
    parks: int = 0
    process: Process | None = None


Token = tuple[Thread, int]


@dataclass(slots=True)
class Hub:
    """Runs events in the order of their time, and threads as part of events.

    Args:
        seed: decides everything.

    Attributes:
        now: seconds since the simulation began.
        rng: the only source of chance.
        current: the thread that runs, None between threads.
        steps: how many events there were.
        after_step: called after each of them.

    """

    seed: int
    now: float = 0.0
    current: Thread | None = None
    steps: int = 0
    after_step: Callable[[], object] = lambda: None
    rng: random.Random = field(init=False)
    _heap: list[Event] = field(default_factory=list)
    _threads: list[Thread] = field(default_factory=list)
    _made: int = 0
    _main: greenlet = field(default_factory=getcurrent)
    _over: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    # Events

    def at(self, when: float, action: Action, *args: Any) -> None:
        """Do something at a time."""
        self._made += 1
        heapq.heappush(self._heap, (when, self._made, action, args))

    def after(self, seconds: float, action: Action, *args: Any) -> None:
        """Do something later."""
        self.at(self.now + seconds, action, *args)

    def run(self, until: float) -> None:
        """Let time pass, and all that is due in it."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, args = heapq.heappop(heap)
            self.steps += 1
            action(*args)
            self.after_step()
        self.now = until

    def end(self) -> None:
        """End all threads where they stand."""
        self._over = True
        for thread in self._threads:
            if thread.greenlet and not thread.greenlet.dead:
                self._switch(thread, None)
        self._threads.clear()
        self._heap.clear()

    @property
    def pending(self) -> int:
        """How many events are to come."""
        return len(self._heap)

    # Threads

    def spawn(self, machine: "Machine", run: Action, *args: Any) -> Thread:
        """Start a thread; it runs a little later."""
        self._made += 1
        made = greenlet(lambda _: self._body(run, args), parent=self._main)
        thread = Thread(machine, made, self._made)
        if len(self._threads) > 2_000:
            self._threads = [each for each in self._threads if not each.greenlet.dead]
        self._threads.append(thread)
        machine.soon(self.lag(), self._resume, thread, 0, None)
        return thread

    def park(self) -> Any:
        """Let the running thread wait until it is woken; gives what it is woken with."""
        thread = self.current
        assert thread is not None, "only a thread of the simulation can wait"
        self._check(thread)
        value = self._main.switch()
        self._check(thread)
        return value

    def token(self) -> Token:
        """Give what wakes the running thread from its next `park`."""
        thread = self.current
        assert thread is not None, "only a thread of the simulation can wait"
        return thread, thread.parks

    def wake(self, token: Token, value: Any = None, seconds: float | None = None) -> None:
        """Wake a thread a little later, or so many seconds; the first one to do so counts."""
        thread, parks = token
        delay = self.lag() if seconds is None else seconds
        thread.machine.soon(delay, self._resume, thread, parks, value)

    def sleep(self, seconds: float) -> None:
        """Let the running thread wait."""
        self.wake(self.token(), None, seconds)
        self.park()

    def lag(self) -> float:
        """Say how long a scheduler takes to let a thread run: now and then very long."""
        part = self.rng.random()
        return 0.0005 * part if part < 0.98 else 0.05 * self.rng.random()

    def _body(self, run: Action, args: tuple[Any, ...]) -> None:
        try:
            run(*args)
        except Gone:
            return

    def _resume(self, thread: Thread, parks: int, value: Any) -> None:
        if thread.parks == parks and not thread.greenlet.dead:
            thread.parks += 1
            self._switch(thread, value)

    def _switch(self, thread: Thread, value: Any) -> None:
        self.current, CURRENT.process = thread, thread.process
        try:
            thread.greenlet.switch(value)
        finally:
            thread.process, CURRENT.process = CURRENT.process, None
            self.current = None

    def _check(self, thread: Thread) -> None:
        if self._over or thread.machine.dead:
            raise Gone
