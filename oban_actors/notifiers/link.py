"""A PostgreSQL session that listens: every wait on it ends in time."""

import contextlib
import math
import os
import select
import socket
import threading
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from oban_actors.actors.clock import real_monotonic
from oban_actors.errors import DatabaseError, DatabaseUnavailable
from oban_actors.notifiers.guard import Guard
from oban_actors.repo.sqlstates import translate

ROUND_TRIP = 3.0
"""Seconds that the server has for an answer; these statements take it a millisecond."""


@dataclass(frozen=True, slots=True)
class Received:
    """A notification as it came: the channel with its prefix."""

    channel: str
    text: str
    pid: int


class Link:
    """The session.

    It speaks to libpq itself: psycopg's own calls wait without limit, and take the
    notifications that come while they do.

    Args:
        connection: in autocommit mode; the link closes it.

    """

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        self._connection = connection
        self._session = connection.pgconn
        self._encoding = connection.info.encoding
        self._pid = connection.info.backend_pid
        self._guard = Guard(self._close)
        # Between asking for the descriptor and copying it, nobody may close it.
        self._descriptor = threading.Lock()

    @property
    def pid(self) -> int:
        """The server process that greeted us; a pooler in between gives a number of its own."""
        return self._pid

    def fileno(self) -> int:
        """Give the socket's descriptor, to wait for notifications."""
        return self._session.socket

    def run(self, sql: str) -> str | None:
        """Run statements and return the last one's first value.

        Notifications that come meanwhile are kept for `notifications`.

        Raises:
            DatabaseUnavailable: the session is lost, or was silent for `ROUND_TRIP` seconds.
            DatabaseError: the server refused.

        """
        try:
            with self._guard.used():
                results = self._results(sql.encode(self._encoding))
        except (psycopg.Error, OSError) as error:
            raise _lost(error) from error
        for result in results:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise self._refusal(result)
        value = results[-1].get_value(0, 0) if results and results[-1].ntuples else None
        return None if value is None else value.decode(self._encoding)

    def notifications(self) -> list[Received]:
        """Take all that came.

        Raises:
            DatabaseUnavailable: the session is lost.

        """
        found: list[Received] = []
        try:
            with self._guard.used():
                self._take(found)
        except psycopg.Error as error:
            # What came before the end still counts, and the next look finds the end again.
            if not found:
                raise _lost(error) from error
        if not found and self._session.status == ConnStatus.BAD:
            raise DatabaseUnavailable("the connection is lost")
        return found

    def close(self) -> None:
        """Close the session, which never waits."""
        self._guard.end()

    def cut(self) -> None:
        """Cut and close the connection, from any thread: whoever waits for it gets an error."""
        with contextlib.suppress(OSError, psycopg.Error):
            # A copy of the descriptor, because closing a socket object closes what it was made of.
            with self._descriptor:
                copy = socket.socket(fileno=os.dup(self._connection.fileno()))
            with copy:
                copy.shutdown(socket.SHUT_RDWR)
        self._guard.end()

    def _close(self) -> None:
        with self._descriptor:
            self._connection.close()

    def _take(self, found: list[Received]) -> None:
        # TLS may hold back a part of what it read, and the socket then looks empty: it is asked
        # until it has nothing more.
        before = -1
        while len(found) > before:
            before = len(found)
            self._session.consume_input()
            while one := self._session.notifies():
                found.append(
                    Received(
                        one.relname.decode(self._encoding, "replace"),
                        one.extra.decode(self._encoding, "replace"),
                        one.be_pid,
                    )
                )

    def _results(self, sql: bytes) -> list[PGresult]:
        session, deadline = self._session, real_monotonic() + ROUND_TRIP
        session.send_query(sql)
        while session.flush():
            self._wait(select.POLLIN | select.POLLOUT, deadline)
            session.consume_input()
        results: list[PGresult] = []
        while True:
            while session.is_busy():
                self._wait(select.POLLIN, deadline)
                session.consume_input()
            result = session.get_result()
            if result is None:
                return results
            results.append(result)

    def _wait(self, events: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._session.socket, events)
        if not poll.poll(max(0, math.ceil((deadline - real_monotonic()) * 1000))):
            raise DatabaseUnavailable(f"no answer within {ROUND_TRIP:g} s")

    def _refusal(self, result: PGresult) -> DatabaseError:
        message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"the server refused"
        state = result.error_field(DiagnosticField.SQLSTATE)
        error = psycopg.errors.lookup(state.decode())() if state else psycopg.OperationalError()
        kind = type(translate(error))
        text = message.decode(self._encoding, "replace")
        return kind(text, sqlstate=state.decode() if state else None)


def _lost(error: Exception) -> DatabaseUnavailable:
    text = " ".join(str(error).split()) or "the connection is lost"
    return DatabaseUnavailable(text)
