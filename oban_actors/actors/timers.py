"""Messages for later: one thread and one heap for all timers of an instance."""

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

import pykka

from oban_actors.actors.clock import SYSTEM_CLOCK, Clock, VirtualClock
from oban_actors.actors.messages import Name, Ref
from oban_actors.actors.safe_logger import SafeLogger

if TYPE_CHECKING:
    from oban_actors.actors.registry import Registry

logger = SafeLogger("oban_actors.actors")

_LINGER = 2.0
"""Seconds that the thread waits for a next timer before it ends; starting one costs more."""

_PURGE = 64

_LONGEST = 1e9
"""Seconds; more than thirty years is as good as never, and a lock can wait for it."""


class Timer:
    """One message to be sent once; `Timers.send_after` makes it, and the timers send it.

    Attributes:
        due_ns: when, by the monotonic clock, in nanoseconds: whole, so that what is due
            after 0.1 s three times is due after 0.3 s.
        target: a reference or a name, looked up when it is due.
        message: what is sent.
        live: whether it is neither sent nor cancelled.

    """

    __slots__ = ("_timers", "due_ns", "live", "message", "target")

    def __init__(self, timers: "Timers", due_ns: int, target: object, message: object) -> None:
        self._timers = timers
        self.due_ns = due_ns
        self.target = target
        self.message = message
        self.live = True

    @property
    def due(self) -> float:
        """When it is due, in seconds of the monotonic clock."""
        return self.due_ns / 1e9

    def cancel(self) -> bool:
        """Take it back.

        Returns:
            True if it will not be sent; False if it was sent, or cancelled, before.

        """
        return self._timers.cancel(self)


class Timers:
    """Sends messages after a delay: never early, possibly late.

    Args:
        clock: whose monotonic time counts; a `VirtualClock` fires as it is advanced.
        registry: where a name is looked up, at the moment the message is due.

    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, registry: "Registry | None" = None) -> None:
        self._clock = clock
        self._registry = registry
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        if isinstance(clock, VirtualClock):
            clock.attach(self._fire)

    def send_after(self, target: Ref | Name, message: object, seconds: float) -> Timer:
        """Send a message later.

        Args:
            target: an actor, with whom the timer dies, or a name, looked up when it is due.
            message: what to tell it.
            seconds: the delay; below zero is zero.

        """
        delay_ns = round(min(max(seconds, 0.0), _LONGEST) * 1e9)
        return self._add(target, message, self._clock.monotonic_ns() + delay_ns)

    def send_at(self, target: Ref | Name, message: object, due: float) -> Timer:
        """Send a message at a moment, which does not move while this is called.

        Args:
            target: an actor, with whom the timer dies, or a name, looked up when it is due.
            message: what to tell it.
            due: seconds of the clock's monotonic time; what is past is sent at once.

        """
        due = min(due, self._clock.monotonic() + _LONGEST)
        timer = self._add(target, message, round(due * 1e9))
        if self._clock.virtual:
            # It fires as it is advanced, which may have been before.
            with self._changed:
                if timer.live and timer.due_ns <= self._clock.monotonic_ns():
                    # Its entry stays, as a cancelled one's does.
                    timer.live = False
                    self._cancelled += 1
                    self._send(timer)
        return timer

    def _add(self, target: Ref | Name, message: object, due_ns: int) -> Timer:
        hash(target)  # a name that can't be looked up is the caller's error, not the timers'
        timer = Timer(self, due_ns, target, message)
        with self._changed:
            if self._closed:
                timer.live = False
                return timer
            heapq.heappush(self._heap, (timer.due_ns, next(self._order), timer))
            if not self._clock.virtual:
                self._wake(timer)
        return timer

    def cancel(self, timer: Timer) -> bool:
        """Take a timer back; see `Timer.cancel`."""
        with self._changed:
            if not timer.live:
                return False
            timer.live = False
            timer.message = None
            self._cancelled += 1
            if self._cancelled > _PURGE and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].live]
                heapq.heapify(self._heap)
                self._cancelled = 0
            return True

    def close(self) -> None:
        """End the thread; nothing more is sent."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify_all()
            thread = self._thread
        if isinstance(self._clock, VirtualClock):
            self._clock.detach(self._fire)
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def reopen(self) -> None:
        """Serve again after `close`."""
        with self._changed:
            if not self._closed:
                return
            self._closed = False
        if isinstance(self._clock, VirtualClock):
            self._clock.attach(self._fire)

    def _wake(self, timer: Timer) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="oban-timers", daemon=True)
            self._thread.start()
        elif self._heap[0][2] is timer:
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                due = self._fire_due(self._clock.monotonic_ns())
                if due is not None:
                    self._changed.wait(max(due - self._clock.monotonic_ns(), 0) / 1e9)
                elif not self._changed.wait(_LINGER) and not self._heap:
                    break
            if self._thread is threading.current_thread():
                self._thread = None

    def _fire(self, now: int) -> int | None:
        with self._changed:
            return self._fire_due(now)

    def _fire_due(self, now: int) -> int | None:
        # The flag flips and the message goes out under the lock that `cancel` takes, so a
        # cancelled timer's message never arrives.
        while self._heap:
            due, _, timer = self._heap[0]
            if timer.live and due > now:
                return due
            heapq.heappop(self._heap)
            if not timer.live:
                self._cancelled = max(0, self._cancelled - 1)
                continue
            timer.live = False
            self._send(timer)
        return None

    def _send(self, timer: Timer) -> None:
        target = timer.target
        if not isinstance(target, pykka.ActorRef):
            target = self._registry.whereis(target) if self._registry else None
        message, timer.message = timer.message, None
        if target is None:
            return
        try:
            target.tell(message)
        except pykka.ActorDeadError:
            return  # the timer dies with its target
        except Exception:  # one inbox's fault must not stop all the other timers
            logger.exception("a timer's message to %s was lost", target)
