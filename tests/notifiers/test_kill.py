"""Notifiers that are killed leave nothing open, whatever their thread is in."""

import sqlite3
import threading
from typing import Any

import pytest
from pykka._envelope import Envelope

from oban_actors.actors import GenServer, Ref
from oban_actors.actors.lifecycle import kill
from oban_actors.actors.process import process_of
from oban_actors.messages import Listen
from oban_actors.notifiers.guard import Guard
from tests.notifiers.rig import Node, rig_for
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until


def killed(node: Node) -> Ref:
    """Kill a node's Notifier, and wait for the next one."""
    before = node.root.whereis("notifier")
    assert before is not None
    kill(process_of(before))
    wait_until(lambda: node.root.whereis("notifier") not in (None, before), message="another")
    return before


@pytest.mark.db
def test_an_idle_connection_is_closed(pg: Database) -> None:
    """Not left for the garbage collector to complain of."""
    with rig_for(pg, "postgres") as rig:
        node = rig.node()
        node.hear("signal")
        connection = node.notifier._link._connection

        killed(node)

        wait_until(lambda: connection.closed)


@pytest.mark.db
def test_a_connection_in_use_is_closed_by_its_user(
    own_server: PostgresServer, own_database: Database
) -> None:
    """A thread that waits for the server is freed first."""
    with TcpProxy(own_server.port) as proxy, rig_for(own_database, "postgres") as rig:
        url = own_database.url.replace(f":{own_server.port}/", f":{proxy.port}/")
        listen_url = url.replace("postgresql+psycopg:", "postgresql:")
        node = rig.node(notifier={"listen_url": listen_url}, connect_timeout=2.0)
        ear = node.hear("signal")
        notifier = node.notifier
        connection = notifier._link._connection
        proxy.freeze()
        node.tell(Listen(["leader"], ear.ref))
        wait_until(notifier._link._guard._lock.locked, message="a question to the server")

        before = killed(node)
        assert not process_of(before).abandoned
        proxy.thaw()

        wait_until(lambda: connection.closed)


def test_the_file_is_closed(sqlite: Database) -> None:
    """And so is the watch on it."""
    with rig_for(sqlite, "sqlite") as rig:
        node = rig.node()
        node.hear("signal")
        connection, watch = node.notifier._journal._connection, node.notifier._watch

        killed(node)

        def closed() -> bool:
            try:
                connection.execute("SELECT 1")
            except sqlite3.ProgrammingError:
                return True
            return False

        wait_until(closed)
        assert watch is None or watch._guard._closed


def test_who_is_idle_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle actor that is killed has its `on_kill` called, as a busy one has."""
    told: list[bool] = []

    class Idle(GenServer):
        def on_kill(self) -> None:
            assert self._process.thread is not None
            told.append(self._process.thread.is_alive())

    process = process_of(Idle.start_link())
    put = process.mailbox.put

    def put_and_lose_the_race(envelope: Envelope[Any]) -> None:
        put(envelope)
        assert process.exited.wait(30)

    monkeypatch.setattr(process.mailbox, "put", put_and_lose_the_race)
    kill(process)

    assert told == [True]


def test_nobody_closes_what_another_uses() -> None:
    """Ended meanwhile, it is closed once, by its user and at once."""
    closed: list[int] = []
    guard = Guard(lambda: closed.append(threading.get_ident()))
    inside, ended = threading.Event(), threading.Event()
    users = []

    def use() -> None:
        users.append(threading.get_ident())
        with guard.used() as there:
            assert there
            inside.set()
            assert ended.wait(30)
            assert closed == []

    user = threading.Thread(target=use)
    user.start()
    assert inside.wait(30)
    guard.end()
    ended.set()
    user.join()

    assert closed == users
    guard.end()
    assert len(closed) == 1
    with guard.used() as there:
        assert not there
