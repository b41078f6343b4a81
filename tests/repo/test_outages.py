"""Servers that restart, networks that go silent, and COMMITs that get no answer."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, text

from oban_actors.errors import DatabaseError, DatabaseUnavailable, StatementTimeout
from oban_actors.repo import Repo, connect
from oban_actors.repo import repo as repo_module
from tests.repo.conftest import Notes
from tests.repo.opening import opened_on
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

Admin = psycopg.Connection[Any]
SENDING = (
    "SELECT 1 FROM pg_stat_activity "
    "WHERE state = 'active' AND query LIKE 'SELECT repeat%' AND datname = current_database()"
)


def one(connection: Connection) -> object:
    """Ask for next to nothing."""
    return connection.execute(text("SELECT 1")).scalar()


def test_restart_between_transactions(own_server: PostgresServer, own_database: Database) -> None:
    """A restarted server costs one more try, however many pooled connections died with it."""
    with opened_on(own_database) as repo:
        with ThreadPoolExecutor(4) as threads:
            meet = threading.Barrier(4)
            list(
                threads.map(lambda _: repo.transaction(lambda c: (meet.wait(30), one(c))), range(4))
            )
        own_server.restart("immediate")

        assert repo.transaction(one, attempts=2) == 1


def test_away_and_back(own_server: PostgresServer, own_database: Database) -> None:
    """While the server is away, that is said; once it is back, the same repo works."""
    with opened_on(own_database) as repo:
        repo.transaction(one)
        own_server.stop("fast")
        with pytest.raises(DatabaseUnavailable):
            repo.transaction(one, attempts=2)
        own_server.start()

        assert repo.transaction(one) == 1


@pytest.mark.parametrize("stops", [False, True], ids=["alone", "while the tree stops"])
def test_silent_server(
    far: Repo, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch, *, stops: bool
) -> None:
    """A statement that gets no answer at all ends soon after its time-out, on our side.

    Whatever becomes of the tree meanwhile, a host's thread is not left to the network.
    """
    monkeypatch.setattr(repo_module, "GRACE", 0.2)
    far.transaction(one)

    def work(connection: Connection) -> object:
        proxy.freeze()
        if stops:
            far.close()
        return one(connection)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(far.transaction, work, statement_timeout=0.3)
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0\.5 s"):
            running.result(15)
    proxy.drop()
    proxy.thaw()

    assert far.transaction(one) == 1


def test_a_long_statement_while_the_tree_stops(sqlite_repo: Repo) -> None:
    """SQLite, whose statements have no other time-out than ours, ends it as at any time."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"

    def work(connection: Connection) -> object:
        sqlite_repo.close()
        return connection.execute(text(endless)).scalar()

    with pytest.raises(StatementTimeout):
        sqlite_repo.transaction(work, statement_timeout=0.3)


def test_cancel_of_a_silent_call(far: Repo, proxy: TcpProxy) -> None:
    """A thread that no cancel in the server can free is free soon, whatever time it has."""
    far.transaction(one)
    idents: list[int] = []
    sending = threading.Event()

    def work(connection: Connection) -> object:
        proxy.strand()
        idents.append(threading.get_ident())
        event.listen(far.engine, "before_cursor_execute", lambda *_: sending.set())
        return one(connection)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(far.transaction, work, statement_timeout=3600.0)
        assert sending.wait(15)
        assert far.cancel(idents[0])
        with pytest.raises(DatabaseError, match="cancelled"):
            running.result(15)

    assert far.transaction(one) == 1


def test_silent_connect(far: Repo, proxy: TcpProxy) -> None:
    """Connecting to a server that says nothing ends, too."""
    proxy.freeze()

    with ThreadPoolExecutor(1) as threads, pytest.raises(DatabaseUnavailable):
        threads.submit(far.transaction, one, attempts=1).result(30)


def test_silence_after_connecting(
    far: Repo, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener's connection is asked a thing or two as it is made: not without an end."""

    def silent(_connection: object) -> None:
        proxy.freeze()

    monkeypatch.setattr(connect, "_keep_alive", silent)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(far.raw_connection)
        try:
            with pytest.raises(DatabaseUnavailable):
                running.result(30)
        finally:
            proxy.drop()
            proxy.thaw()


@pytest.mark.parametrize("doing", ["nothing", "reading"])
def test_a_silent_client_holds_no_lock(
    far: Repo, proxy: TcpProxy, admin: Admin, doing: str
) -> None:
    """A transaction whose client says and reads nothing ends long before a slow one would."""
    notes = Notes(far)
    free, locked = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        connection.execute(text(f"LOCK TABLE {notes.table}"))
        locked.set()
        if doing == "nothing":
            free.wait(60)
        # More than all buffers on the way can take.
        connection.execute(text("SELECT repeat('x', 1000000) FROM generate_series(1, 5000)"))

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            far.transaction, work, statement_timeout=600.0, idle_timeout=1.0, attempts=1
        )
        assert locked.wait(30)
        if doing == "reading":
            wait_until(lambda: admin.execute(SENDING).fetchone())
        proxy.freeze()
        admin.execute("SET lock_timeout = '60s'")
        try:
            admin.execute("SELECT count(*) FROM notes")
        finally:
            free.set()
            proxy.drop()
            proxy.thaw()
        with pytest.raises(DatabaseUnavailable):
            running.result(60)


FORKING = """
import os, sys
from sqlalchemy import text
from oban_actors.config import Config
from oban_actors.errors import ForkedError
from oban_actors.repo import Repo, connect, transactions

repo = Repo(sys.argv[1], Config.build())
ask = lambda: repo.transaction(lambda connection: connection.execute(text("SELECT 1")).scalar())
ask()
child = os.fork()
if child == 0:
    try:
        ask()
    except ForkedError:
        repo.close()
        os._exit(7)
    os._exit(1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert ask() == 1
repo.close()
"""


def test_fork(database: Database) -> None:
    """A forked child is told that it may not use its parent's connections; the parent goes on."""
    subprocess.run([sys.executable, "-c", FORKING, database.url], check=True, timeout=60)
