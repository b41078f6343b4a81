"""The client's own deadline: a server or a network that went silent must not hold a thread."""

import contextlib
import math
import os
import socket
import sqlite3
import threading
from typing import Any

import psycopg

from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.errors import DatabaseUnavailable

CANCEL_TIMEOUT = 1.0

CUT_AFTER = 0.5
"""Seconds after which the connection of a call is cut that a cancel did not end."""

LINGER = 5.0
"""Seconds after which the thread looks whether it is still needed, and ends if it isn't."""


class Call:
    """What one thread does on the database now.

    Attributes:
        allowance: seconds for which a round trip may stay without an answer; may be infinite.
        cancelled: whether somebody wants it to end.
        expired: whether it was silent for longer than it may and its connection was cut.

    """

    def __init__(self, allowance: float, outer: "Call | None" = None) -> None:
        self.allowance = allowance
        self.outer = outer
        self.cancelled = False
        self.expired = False
        self.deadline = math.inf
        self._connection: Any = None
        # Whoever holds it may use the connection: a thread must not return or close one, and have
        # its descriptor used again, while another cancels or cuts it.
        self._lock = threading.Lock()
        self._hurry: threading.Event | None = None

    @property
    def hurry(self) -> threading.Event:
        """Set once there is no more time to wait between tries; made where anybody asks for it."""
        with self._lock:
            if self._hurry is None:
                self._hurry = threading.Event()
            return self._hurry

    def hold(self, connection: Any) -> None:
        """Begin to use a driver's connection."""
        with self._lock:
            self._connection = connection
        self.touch()

    def release(self) -> None:
        """Stop using it: from here on nobody cuts or cancels anything."""
        with self._lock:
            self._connection = None
        self.deadline = math.inf

    def touch(self) -> None:
        """Begin a round trip: the time in which the server may be silent starts anew."""
        self.deadline = SYSTEM_CLOCK.monotonic() + self.allowance

    def cancel(self) -> None:
        """End it: what runs is cancelled in the server, and nothing is tried again."""
        self.cancelled = True
        self.hurry.set()
        with self._lock:
            if isinstance(self._connection, psycopg.Connection):
                # Unreachable for a cancel too, or the server never heard of it: the deadline. One
                # that blocks for as long as the network likes would keep that from being met.
                if psycopg.capabilities.has_cancel_safe():
                    with contextlib.suppress(psycopg.Error):
                        self._connection.cancel_safe(timeout=CANCEL_TIMEOUT)
                self.deadline = min(self.deadline, SYSTEM_CLOCK.monotonic() + CUT_AFTER)
            elif self._connection is not None:
                _interrupt(self._connection)

    def expire(self) -> None:
        """Cut the connection, which ends whatever waits for it with an error."""
        self.deadline = math.inf
        with self._lock:
            if self._connection is None:
                return
            self.expired = True
            if isinstance(self._connection, psycopg.Connection):
                _shut(self._connection)
            else:
                _interrupt(self._connection)


class Watchdog:
    """One thread that ends calls which are silent beyond their deadline; there while needed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: dict[int, Call] = {}
        self._changed = threading.Condition()
        self._wakes_at = math.inf
        self._thread: threading.Thread | None = None
        self._closed = False

    def watching(self, allowance: float) -> "_Watching":
        """Watch what this thread does on the database, for as long as a `with` block lasts.

        Args:
            allowance: seconds for which a round trip may stay without an answer; may be infinite.

        """
        return _Watching(self, allowance)

    def begin(self, allowance: float) -> Call:
        """Watch the calling thread; see `watching`.

        Raises:
            DatabaseUnavailable: nobody could watch: the system gives no thread for it.

        """
        ident = threading.get_ident()
        call = Call(allowance, outer=self._calls.get(ident))
        with self._changed:
            # Deadlines only ever move ahead, so waking for the first one is enough.
            if SYSTEM_CLOCK.monotonic() + allowance < self._wakes_at:
                self._start()
            self._calls[ident] = call
        return call

    def end(self, call: Call) -> None:
        """Watch the calling thread's call no longer."""
        ident = threading.get_ident()
        with self._changed:
            if call.outer:
                self._calls[ident] = call.outer
            else:
                del self._calls[ident]
                if self._closed and not self._calls:
                    self._dismiss()

    def current(self) -> Call | None:
        """What the calling thread does now."""
        return self._calls.get(threading.get_ident())

    def cancel(self, ident: int) -> bool:
        """Cancel what a thread does now, and say whether it did anything."""
        with self._changed:
            call = self._calls.get(ident)
        if call is None:
            return False
        within: Call | None = call
        while within is not None:
            # What it was to be a part of must not go on either.
            within.cancel()
            within = within.outer
        with self._changed:
            # Its deadline comes sooner now.
            self._changed.notify_all()
        return True

    def close(self) -> None:
        """End every wait between retries, and the thread once no call needs it any more.

        What runs in the server goes on, and keeps its deadline.
        """
        with self._changed:
            for call in self._every_call():
                call.hurry.set()
            self._closed = bool(self._calls)
            thread = None if self._calls else self._dismiss()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _dismiss(self) -> threading.Thread | None:
        thread, self._thread, self._wakes_at = self._thread, None, math.inf
        self._closed = False
        self._changed.notify_all()
        return thread

    def _start(self) -> None:
        if self._thread is None:
            name = f"oban watchdog {self._name}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise DatabaseUnavailable(f"no call can be watched over: {error}") from error
            self._thread = thread
        self._changed.notify_all()

    def _run(self) -> None:
        late: list[Call] = []
        while True:
            for call in late:
                call.expire()
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                now = SYSTEM_CLOCK.monotonic()
                calls = self._every_call()
                late = [call for call in calls if call.deadline <= now]
                if not late and not self._waited(calls, now) and not self._calls:
                    self._dismiss()
                    return

    def _waited(self, calls: list[Call], now: float) -> bool:
        # One that uses no connection at the moment may begin to at any time.
        horizons = [min(call.deadline, now + call.allowance) for call in calls]
        self._wakes_at = min(horizons, default=now + LINGER)
        return self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))

    def _every_call(self) -> list[Call]:
        found = []
        for innermost in self._calls.values():
            call: Call | None = innermost
            while call:
                found.append(call)
                call = call.outer
        return found


class _Watching:
    # A generator's frames would cost each call of the database more than what it watches for.
    __slots__ = ("_allowance", "_call", "_watchdog")

    def __init__(self, watchdog: Watchdog, allowance: float) -> None:
        self._watchdog = watchdog
        self._allowance = allowance

    def __enter__(self) -> Call:
        self._call = self._watchdog.begin(self._allowance)
        return self._call

    def __exit__(self, *_raised: object) -> None:
        self._watchdog.end(self._call)


def _shut(connection: "psycopg.Connection[Any]") -> None:
    # A copy of the descriptor, because closing a socket object closes what it was made from. A
    # connection that is closed already has no descriptor, and nothing waits for it.
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as copy,
    ):
        copy.shutdown(socket.SHUT_RDWR)


def _interrupt(connection: sqlite3.Connection) -> None:
    # Closed already: nothing to interrupt.
    with contextlib.suppress(sqlite3.ProgrammingError):
        connection.interrupt()
