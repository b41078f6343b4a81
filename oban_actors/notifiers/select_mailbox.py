"""An inbox whose owner waits for messages and for a descriptor at once, in its one thread."""

import contextlib
import math
import os
import select
import threading
from dataclasses import dataclass
from typing import Any, Final

from pykka._envelope import Envelope

from oban_actors.actors import Mailbox
from oban_actors.actors.clock import real_monotonic


@dataclass(frozen=True, slots=True)
class Readable:
    """The watched descriptor has something to read."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time given to `wake_at` has come."""


READABLE: Final = Readable()
TICK: Final = Tick()


class SelectMailbox(Mailbox):
    """A mailbox that also yields `READABLE` and `TICK`.

    `get`, `watch`, `signal` and `wake_at` are for the owner's thread, the others for any.
    Messages and the descriptor take turns, so that a flood of one doesn't hold up the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self._poll: select.poll | None = None
        self._pipe: tuple[int, int] | None = None
        self._pipe_lock = threading.Lock()
        self._asleep = False
        self._watched: int | None = None
        self._signalled = False
        self._deadline: float | None = None
        self._turn = False

    def put(self, envelope: Envelope[Any], /) -> None:
        """Add a message, and wake the owner if it sleeps."""
        super().put(envelope)
        if self._asleep:
            self._wake()

    def get(self) -> Envelope[Any]:
        """Wait for whatever comes first."""
        poll = self._poll or self._open()
        while True:
            readable = self._wait(poll)
            if self._deadline is not None and real_monotonic() >= self._deadline:
                self._deadline = None
                return Envelope(TICK)
            waiting = not self._queue.empty()
            if readable and not (waiting and self._turn):
                self._signalled = False
                self._turn = True
                return Envelope(READABLE)
            if waiting:
                self._turn = False
                return super().get()

    def watch(self, descriptor: int | None) -> None:
        """Watch this descriptor, or none, instead of the one before."""
        poll = self._poll or self._open()
        if self._watched is not None:
            # Closed before it was given up: poll knows it all the same.
            with contextlib.suppress(KeyError):
                poll.unregister(self._watched)
        self._watched = descriptor
        self._signalled = False
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)

    def signal(self) -> None:
        """Yield `READABLE` once, for what was read already but not handled."""
        self._signalled = True

    def wake_at(self, moment: float | None) -> None:
        """Yield `TICK` once it is this late by the real monotonic clock; None is never."""
        self._deadline = moment

    def close(self) -> None:
        """Refuse what waits and all that comes."""
        super().close()
        with self._pipe_lock:
            pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    def _open(self) -> select.poll:
        # Only once the owner runs, so that an actor that never does leaves nothing open.
        self._poll = select.poll()
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, False)
        self._poll.register(self._pipe[0], select.POLLIN)
        return self._poll

    def _wait(self, poll: select.poll) -> bool:
        # Awake, or asleep before it looks into the queue: whoever puts sees the one, or the
        # look sees the message.
        self._asleep = True
        ready = poll.poll(self._milliseconds())
        self._asleep = False
        readable = self._signalled
        for descriptor, _ in ready:
            if descriptor == self._watched:
                readable = True
            else:
                os.read(descriptor, 4096)
        return readable

    def _milliseconds(self) -> int | None:
        if self._signalled or not self._queue.empty():
            return 0
        if self._deadline is None:
            return None
        return max(0, math.ceil((self._deadline - real_monotonic()) * 1000))

    def _wake(self) -> None:
        # Under the lock, since a closed descriptor's number may be somebody else's by now.
        # A full pipe wakes as well.
        with self._pipe_lock, contextlib.suppress(BlockingIOError):
            if self._pipe is not None:
                os.write(self._pipe[1], b"!")
