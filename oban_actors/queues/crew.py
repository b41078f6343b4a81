"""Crews: those that run claimed jobs. This one is of threads."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from oban_actors.actors.clock import real_monotonic
from oban_actors.claim import Claim

logger = logging.getLogger("oban_actors")

LINGER = 10.0
"""Seconds that a thread waits for a next job before it ends."""

FIRST = 0.0001
"""Seconds that a new thread gives the one that has sent for it."""

STAND_BY = 0.001
"""Seconds after which a thread that stands by looks whether the line still moves."""

QUICK = 15_000.0
"""Jobs a second: a line that moves so quickly gains nothing by more threads."""

Perform = Callable[[Claim], None]


class Crew(Protocol):
    """Runs claims. Every method may be called from any thread."""

    def add(self, claims: Iterable[Claim]) -> None:
        """Run these, each as soon as there is somebody for it."""

    def interrupt(self, claim: Claim) -> None:
        """Interrupt a run, as far as that is possible; the job's flag is set already."""

    def abort(self, claim: Claim) -> bool:
        """End a run by force, soon; False where that can't be done."""

    def waits_in(self, claim: Claim) -> str | None:
        """Show where a run waits that is in no thread now; None for any other."""

    def wake(self) -> None:
        """See to it that all that waits will run, whatever went before."""

    def take_back(self) -> list[Claim]:
        """Give back what has not begun to run."""

    @property
    def starved(self) -> bool:
        """Whether claims wait and there is nobody who would come for them: wake it again."""

    @property
    def refuses(self) -> bool:
        """Whether nothing that it is given is run now: what it has waits, to be taken back."""

    def close(self, seconds: float) -> None:
        """End those that are idle, waiting so long for them; who runs a job ends after it."""


class ThreadCrew:
    """Threads that share one line of jobs; as many as there is work for, up to a bound.

    Whoever comes for a job sends for the next one, if there are more in line; while somebody is
    on the way nobody else is sent for. Who comes while the line moves as quickly as only jobs do
    that never block, stands by until it doesn't. So a burst of jobs that block has a thread for
    each within a millisecond, and a burst of short ones is done by those few that are awake.

    Args:
        name: for the threads' names.
        most: gives the most threads that there may be now.
        perform: runs one claim, and raises nothing.
        finish: called with each claim that has run.

    """

    refuses = False

    def __init__(
        self,
        name: str,
        most: Callable[[], int],
        perform: Perform,
        finish: Callable[[Claim], None],
    ) -> None:
        self._name = name
        self._most = most
        self._perform = perform
        self._finish = finish
        self._line: deque[Claim] = deque()
        self._changed = threading.Condition()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._coming = False
        self._closed = False
        self._made = 0
        self._refused = False
        # How many were taken from the line, and how many and when somebody was sent for.
        self._taken = 0
        self._sent_at = (0, 0.0)

    def add(self, claims: Iterable[Claim]) -> None:
        """See `Crew`."""
        self._line.extend(claims)
        self.wake()

    def interrupt(self, claim: Claim) -> None:
        """A thread can't be interrupted: its job has to look at its flag."""

    def abort(self, claim: Claim) -> bool:
        """See `Crew`."""
        return False

    def waits_in(self, claim: Claim) -> str | None:
        """See `Crew`."""
        return None

    def wake(self) -> None:
        """See `Crew`."""
        with self._changed:
            self._closed = False
            if not self._line:
                return
            if self._coming:
                return
            if self._idle:
                self._send()
                self._changed.notify()
            elif len(self._threads) < max(self._most(), 1):
                self._send()
                self._start()

    def take_back(self) -> list[Claim]:
        """See `Crew`."""
        back: list[Claim] = []
        while self._line:
            try:
                back.append(self._line.pop())
            except IndexError:
                break
        return back

    @property
    def starved(self) -> bool:
        """See `Crew`."""
        with self._changed:
            # Those that there are may be at their jobs for good.
            return self._refused and bool(self._line)

    def close(self, seconds: float) -> None:
        """See `Crew`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._threads, seconds)

    def _send(self) -> None:
        self._coming = True
        self._sent_at = (self._taken, real_monotonic())

    def _start(self) -> None:
        self._made += 1
        thread = threading.Thread(
            target=self._work, name=f"oban-{self._name}-{self._made}", daemon=True
        )
        self._threads.add(thread)
        self._refused = False
        try:
            thread.start()
        except RuntimeError:
            # The system gives no more: those that there are go on, and the next wake tries again.
            self._threads.discard(thread)
            self._coming, self._refused = False, True
            logger.exception("no thread could be started for %s", self._name)

    def _work(self) -> None:
        try:
            # Started, it runs before who has started it, and would be ahead of a job that may be
            # over in no time.
            self._pause(FIRST)
            self._stand_by()
            while (claim := self._next()) is not None:
                # Without the lock: who is missed here is sent for by the next that takes a job.
                if self._line and not self._coming:
                    self.wake()
                self.run(claim)
                del claim  # an idle thread must not keep it
        finally:
            self._leave()

    def run(self, claim: Claim) -> None:
        """Run one claim in the calling thread."""
        claim.thread = threading.get_ident()
        try:
            self._perform(claim)
        finally:
            self._finish(claim)

    def leaving(self) -> None:
        """Give up what the calling thread had for its jobs; it runs no more."""

    def _next(self) -> Claim | None:
        while True:
            try:
                claim = self._line.popleft()
            except IndexError:
                if not self._wait():
                    return None
            else:
                # Threads may lose one here, which does no harm.
                self._taken += 1
                return claim

    def _stand_by(self) -> None:
        taken, at = self._sent_at
        while self._line:
            now = real_monotonic()
            if self._taken - taken < max((now - at) * QUICK, 2):
                break
            taken, at = self._taken, now
            self._pause(STAND_BY)
        self._coming = False

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait(seconds)

    def _wait(self) -> bool:
        with self._changed:
            while not self._line:
                self._coming = False
                if self._closed:
                    return False
                self._idle += 1
                woken = self._changed.wait(LINGER)
                self._idle -= 1
                if not woken and not self._line:
                    return False
        self._stand_by()
        return True

    def _leave(self) -> None:
        self.leaving()
        with self._changed:
            self._threads.discard(threading.current_thread())
            self._coming = False
            self._changed.notify_all()
        # A job may have come while this one left.
        if not self._closed:
            self.wake()
