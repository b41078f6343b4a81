"""The watchdog: whoever calls is watched or told so, and a cancel reaches all that it was to."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import psycopg
import pytest

from oban_actors import DatabaseError, DatabaseUnavailable
from oban_actors.actors import SYSTEM_CLOCK
from oban_actors.config import Config
from oban_actors.repo import Repo
from oban_actors.repo import repo as repo_module
from oban_actors.repo import watchdog as watchdog_module
from oban_actors.repo.watchdog import CUT_AFTER, Call, Watchdog
from tests.support.leaks import no_leaked_threads
from tests.support.waiting import wait_until


def test_a_system_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can't be watched is told so and leaves nothing; the next one is watched again."""
    watchdog = Watchdog("test")
    with monkeypatch.context() as patch:

        def refused(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refused)
        with pytest.raises(DatabaseUnavailable, match="can't start new thread"):
            watchdog.begin(0.1)
    assert watchdog.current() is None

    with watchdog.watching(0.1) as call:
        call.hold(connection := sqlite3.connect(":memory:", check_same_thread=False))
        wait_until(lambda: call.expired)
        connection.close()
    watchdog.close()


def test_closing_takes_no_calls_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What still runs is ended when its time is over; the thread goes with the last of them."""
    monkeypatch.setattr(watchdog_module, "LINGER", 3600.0)
    watchdog = Watchdog("test")
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    with no_leaked_threads():
        with watchdog.watching(0.2) as call:
            call.hold(connection)
            watchdog.close()
            wait_until(lambda: call.expired)
            with watchdog.watching(0.1) as inner:
                inner.hold(connection)
                wait_until(lambda: inner.expired)
        watchdog.close()

        # Also where it is used again.
        with watchdog.watching(0.2) as call:
            call.hold(connection)
            wait_until(lambda: call.expired)
        watchdog.close()
    connection.close()


def test_a_cancel_while_a_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to be done on it does not begin."""
    repo = Repo("postgresql://nobody@localhost/none", Config())
    making, made, idents = threading.Event(), threading.Event(), list[int]()

    class Made:
        closed = False

        def close(self) -> None:
            self.closed = True

    connection = Made()

    def make(*_: object) -> Any:
        making.set()
        made.wait(30)
        return connection

    def act() -> str:
        idents.append(threading.get_ident())
        with repo.lone_connection(3600):
            return "goes on"

    monkeypatch.setattr(repo_module, "lone_connection", make)
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        assert making.wait(30)
        assert repo.cancel(idents[0])
        made.set()
        with pytest.raises(DatabaseError, match="cancelled"):
            acting.result(30)
    assert connection.closed
    repo.close()


def test_a_cancel_that_could_block_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older libpq waits for the network as long as that likes: the connection is cut instead."""
    sent: list[str] = []
    monkeypatch.setattr(psycopg.capabilities, "has_cancel_safe", lambda: False)
    monkeypatch.setattr(psycopg.Connection, "cancel_safe", lambda *_, **__: sent.append("safe"))
    monkeypatch.setattr(psycopg.Connection, "cancel", lambda _: sent.append("cancel"))
    call = Call(3600.0)
    call.hold(cast("Any", psycopg.Connection.__new__(psycopg.Connection)))
    call.cancel()

    assert sent == []
    assert call.deadline <= SYSTEM_CLOCK.monotonic() + CUT_AFTER
