"""Conversation: one connection to the endpoint, which never waits for the other side."""

import contextlib
import selectors
import socket
from collections.abc import Callable

from oban_actors.health.http import Answer, Refused, Request, complete, parse

CHUNK = 4096

MOST_AFTERWARDS = 65_536
"""Bytes that are still read once all is said, so that the answer isn't lost to a reset."""

Answering = Callable[[Request], Answer]


class Conversation:
    """Reads a request, writes the answer, and waits for the other side to close.

    Args:
        connection: non-blocking.
        deadline: when it is given up, by the real monotonic clock.
        hosts: names that requests may be for.
        answering: answers a request.

    Attributes:
        deadline: as given.
        events: what it waits for, as selectors count it; 0: it is over.

    """

    def __init__(
        self,
        connection: socket.socket,
        deadline: float,
        hosts: tuple[str, ...],
        answering: Answering,
    ) -> None:
        self.connection = connection
        self.deadline = deadline
        self.events = selectors.EVENT_READ
        self._hosts = hosts
        self._answering = answering
        self._received = bytearray()
        self._unsent = b""
        self._said = False
        self._afterwards = 0

    def go_on(self) -> None:
        """Do what can be done without waiting; `events` says what it waits for then."""
        try:
            if self._said:
                self._drain()
            elif self._unsent:
                self._write()
            else:
                self._read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.events = 0  # the other side is gone, which is its own affair

    def close(self) -> None:
        """Close the connection, wherever it is."""
        self.events = 0
        self.connection.close()

    def _read(self) -> None:
        chunk = self.connection.recv(CHUNK)
        self._received += chunk
        if not chunk:
            self.events = 0
            return
        answer = self._heard()
        if answer is not None:
            self._unsent = answer
            self._write()

    def _heard(self) -> bytes | None:
        received = bytes(self._received)
        try:
            if not complete(received):
                return None
            request = parse(received, self._hosts)
        except Refused as refused:
            return refused.answer.encode()
        return self._answering(request).encode(head=request.head)

    def _write(self) -> None:
        self.events = selectors.EVENT_WRITE
        self._unsent = self._unsent[self.connection.send(self._unsent) :]
        if not self._unsent:
            with contextlib.suppress(OSError):  # it may have gone with the last byte
                self.connection.shutdown(socket.SHUT_WR)
            self._said = True
            self.events = selectors.EVENT_READ

    def _drain(self) -> None:
        chunk = self.connection.recv(CHUNK)
        self._afterwards += len(chunk)
        if not chunk or self._afterwards > MOST_AFTERWARDS:
            self.events = 0
