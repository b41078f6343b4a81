"""Inboxes that can be closed, so that no question to a dying actor waits for an answer."""

from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.errors import NoProcess
from oban_actors.actors.process import Process
from oban_actors.actors.reply import Reply


class Mailbox:
    """An actor's inbox, in pykka's protocol.

    A put is an enqueue and then a look at `closed`; closing is setting `closed` and then a
    drain. Whatever the order, somebody drains what came too late.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Envelope[Any]] = SimpleQueue()
        self._arrivals: deque[float] = deque()
        self.closed = False
        self.process = Process(self)

    def put(self, envelope: Envelope[Any], /) -> None:
        """Add a message."""
        reply = envelope.reply_to
        if reply is not None and isinstance(reply, Reply):
            reply.target = self.process
            reply.message = envelope.message
        self._arrivals.append(real_monotonic())
        self._queue.put(envelope)
        if self.closed:
            self.drain()

    def get(self) -> Envelope[Any]:
        """Wait for the next message."""
        envelope = self._queue.get()
        self._arrived()
        return envelope

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    def __len__(self) -> int:
        return self._queue.qsize()

    def oldest(self) -> float | None:
        """Seconds the oldest message has waited, or None."""
        try:
            return max(0.0, real_monotonic() - self._arrivals[0])
        except IndexError:
            return None

    def close(self) -> None:
        """Refuse what waits and all that comes."""
        self.closed = True
        self.drain()

    def drain(self) -> None:
        """Refuse what waits."""
        while True:
            try:
                envelope = self._queue.get_nowait()
            except Empty:
                return
            self._arrived()
            self.refuse(envelope)

    def refuse(self, envelope: Envelope[Any]) -> None:
        """Tell whoever asked that nobody is there."""
        reply = envelope.reply_to
        if reply is None:
            return
        if not isinstance(reply, Reply):
            reply.set_exception((NoProcess, NoProcess(self.process, envelope.message), None))
        elif isinstance(envelope.message, _ActorStop):
            reply.answer(None)
        else:
            reply.fail(NoProcess(self.process, envelope.message))

    def _arrived(self) -> None:
        try:
            self._arrivals.popleft()
        except IndexError:  # another thread drains at the same time
            return
