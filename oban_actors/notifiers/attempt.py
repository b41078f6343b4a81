"""Connecting aside, so that whoever wants the connection never waits for the network."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Something that can be closed."""

    def close(self) -> None:
        """Close it."""


T = TypeVar("T", bound=Closable)


class Attempt(Generic[T]):
    """One try to connect, in a thread of its own.

    Args:
        connect: makes the connection, or raises.
        done: called from that thread once there is a result to `take`.

    """

    def __init__(self, connect: Callable[[], T], done: Callable[["Attempt[T]"], object]) -> None:
        self._connect = connect
        self._done = done
        self._lock = threading.Lock()
        self._connection: T | None = None
        self._error: Exception | None = None
        self._abandoned = False

    def begin(self) -> None:
        """Start."""
        threading.Thread(target=self._run, name="oban connect", daemon=True).start()

    def take(self) -> T:
        """Give the connection, which is the caller's from then on.

        Raises:
            Exception: what `connect` raised.

        """
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None:
                raise self._error or RuntimeError("there is no connection to take")
            return connection

    def abandon(self) -> None:
        """Give up: a connection that nobody took is closed, now or when it comes."""
        with self._lock:
            self._abandoned = True
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self) -> None:
        connection: T | None = None
        try:
            connection = self._connect()
        except Exception as error:  # noqa: BLE001 (handed to the one who takes)
            self._error = error
        with self._lock:
            abandoned = self._abandoned
            if not abandoned:
                self._connection = connection
        if not abandoned:
            self._done(self)
        elif connection is not None:
            connection.close()
