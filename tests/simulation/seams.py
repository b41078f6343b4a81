"""What stands between the actors and the machine: inboxes, futures, events and timers."""

from dataclasses import dataclass, field
from typing import Any

import pykka
from pykka._envelope import Envelope

from oban_actors.actors import mailbox, send
from oban_actors.actors.errors import CallTimeout
from oban_actors.actors.messages import Name, Ref
from oban_actors.actors.registry import Registry
from oban_actors.actors.reply import Reply
from oban_actors.actors.waits import waiting_for
from oban_actors.notifiers.select_mailbox import READABLE, TICK
from tests.simulation.hub import Hub, Token
from tests.simulation.machine import Machine

LATE = 1e-9


class SimEvent:
    """An event on which threads of the hub wait."""

    __slots__ = ("_flag", "_hub", "_tokens")

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._flag = False
        self._tokens: list[Token] = []

    def is_set(self) -> bool:
        """See `threading.Event`."""
        return self._flag

    def set(self) -> None:
        """See `threading.Event`."""
        self._flag = True
        tokens, self._tokens = self._tokens, []
        for token in tokens:
            self._hub.wake(token)

    def wait(self, timeout: float | None = None) -> bool:
        """See `threading.Event`."""
        if not self._flag:
            token = self._hub.token()
            self._tokens.append(token)
            if timeout is not None:
                self._hub.wake(token, None, timeout)
            self._hub.park()
        return self._flag


class SimCondition:
    """A condition on which threads of the hub wait."""

    def __init__(self, hub: Hub, lock: Any) -> None:
        self._hub = hub
        self._lock = lock
        self._tokens: list[Token] = []

    def notify_all(self) -> None:
        """See `threading.Condition`."""
        tokens, self._tokens = self._tokens, []
        for token in tokens:
            self._hub.wake(token, True)

    def wait(self, timeout: float) -> bool:
        """See `threading.Condition`."""
        token = self._hub.token()
        self._tokens.append(token)
        self._hub.wake(token, False, timeout)
        self._lock.release()
        try:
            return bool(self._hub.park())
        finally:
            self._lock.acquire()


class SimMailbox(mailbox.Mailbox):
    """An inbox whose owner is a thread of the hub."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self.token: Token | None = None

    def put(self, envelope: Envelope[Any], /) -> None:
        """Add a message, and wake the owner if it sleeps."""
        super().put(envelope)
        self.rouse()

    def rouse(self) -> None:
        """Wake the owner if it sleeps."""
        token, self.token = self.token, None
        if token is not None:
            self.hub.wake(token)

    def get(self) -> Envelope[Any]:
        """Wait for the next message; others may run before it is taken."""
        if not self._queue.empty():
            self.hub.sleep(self.hub.lag())
        while self._queue.empty():
            self.token = self.hub.token()
            self.hub.park()
        return super().get()


class SimSelectMailbox(SimMailbox):
    """An inbox that yields `READABLE` and `TICK` too, as the notifier's does."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self._readable = False
        self._deadline: float | None = None
        self._watched: object = None

    def get(self) -> Envelope[Any]:
        """Wait for whatever comes first."""
        machine = self._machine()
        while True:
            if self._deadline is not None and machine.monotonic() >= self._deadline:
                self._deadline = None
                return Envelope(TICK)
            if self._readable and self._watched is not None:
                self._readable = False
                return Envelope(READABLE)
            if not self._queue.empty():
                return super().get()
            token = self.token = self.hub.token()
            if self._deadline is not None:
                self.hub.wake(token, None, self._deadline - machine.monotonic() + LATE)
            self.hub.park()
            self.token = None

    def watch(self, link: object) -> None:
        """Watch a link, or none."""
        self._watched, self._readable = link, False
        if link is not None:
            vars(link)["inbox"] = self

    def signal(self) -> None:
        """Yield `READABLE` once."""
        self._readable = True
        self.rouse()

    def wake_at(self, moment: float | None) -> None:
        """Yield `TICK` once it is this late."""
        self._deadline = moment

    def _machine(self) -> Machine:
        assert self.hub.current is not None
        return self.hub.current.machine


class SimReply(Reply):
    """A future for which threads of the hub wait."""

    hub: Hub
    token: Token | None = None

    def _wait(self, seconds: float) -> None:
        with waiting_for(self):
            token = self.token = self.hub.token()
            self.hub.wake(token, None, seconds)
            self.hub.park()
            self.token = None
            if self._ready.acquire(blocking=False):
                return
        raise CallTimeout(self.target or "the target", self.message, seconds)

    def answer(self, value: object) -> bool:
        """Answer, and wake who waits."""
        return super().answer(value) and self._told()

    def fail(self, error: BaseException) -> bool:
        """Answer with an error, and wake who waits."""
        return super().fail(error) and self._told()

    def _told(self) -> bool:
        token, self.token = self.token, None
        if token is not None:
            self.hub.wake(token)
        return True


class SimTimer:
    """A timer of a machine; see `Timer`."""

    __slots__ = ("due", "live", "message", "target", "timers")

    def __init__(self, timers: "SimTimers", due: float, target: Any, message: object) -> None:
        self.timers = timers
        self.due = due
        self.target = target
        self.message = message
        self.live = True

    def cancel(self) -> bool:
        """Take it back."""
        was, self.live = self.live, False
        self.timers.count -= was
        return was


@dataclass(slots=True)
class SimTimers:
    """The timers of one machine: never early, possibly late."""

    machine: Machine
    registry: Registry
    count: int = 0
    _closed: bool = field(default=False)

    def send_after(self, target: Ref | Name, message: object, seconds: float) -> SimTimer:
        """Send a message later."""
        delay = max(seconds, 0.0)
        timer = SimTimer(self, self.machine.monotonic() + delay, target, message)
        self.count += 1
        self.machine.soon(delay + self.machine.hub.lag(), self._fire, timer)
        return timer

    def send_at(self, target: Ref | Name, message: object, due: float) -> SimTimer:
        """Send a message at a moment."""
        return self.send_after(target, message, due - self.machine.monotonic())

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True

    def reopen(self) -> None:
        """Serve again."""
        self._closed = False

    def _fire(self, timer: SimTimer) -> None:
        if not timer.live or self._closed:
            return
        left = timer.due - self.machine.monotonic()
        if left > LATE:
            self.machine.soon(left, self._fire, timer)
            return
        timer.live = False
        self.count -= 1
        target = timer.target
        if not isinstance(target, pykka.ActorRef):
            target = self.registry.whereis(target)
        if target is not None:
            send(target, timer.message)
