"""Servers that restart, networks that go silent, and COMMITs that get no answer."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, make_url, text

from oban_actors.errors import CommitUnknown, DatabaseError, DatabaseUnavailable
from oban_actors.repo import Repo, connect, transactions
from oban_actors.repo import repo as repo_module
from oban_actors.repo.transactions import TRANSACTION_ID
from tests.repo.conftest import Notes
from tests.repo.opening import opened, opened_on
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

Admin = psycopg.Connection[Any]
GATE = 4711
SENDING = (
    "SELECT 1 FROM pg_stat_activity "
    "WHERE state = 'active' AND query LIKE 'SELECT repeat%' AND datname = current_database()"
)


@pytest.fixture
def proxy(pg: Database) -> Iterator[TcpProxy]:
    """A network before the server that can go silent."""
    with TcpProxy(make_url(pg.url).port or 5432) as made:
        yield made


@pytest.fixture
def far(pg: Database, proxy: TcpProxy) -> Iterator[Repo]:
    """A repo behind that network."""
    url = make_url(pg.url).set(host=proxy.host, port=proxy.port)
    with opened(url, prefix=pg.prefix, statement_timeout=20.0, connect_timeout=2.0) as repo:
        yield repo


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


def test_silent_server(far: Repo, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that gets no answer at all ends soon after its time-out, on our side."""
    monkeypatch.setattr(repo_module, "GRACE", 0.2)
    far.transaction(one)

    def work(connection: Connection) -> object:
        proxy.freeze()
        return one(connection)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(far.transaction, work, statement_timeout=0.3)
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0\.5 s"):
            running.result(15)
    proxy.drop()
    proxy.thaw()

    assert far.transaction(one) == 1


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


class Gate:
    """Makes each COMMIT that wrote to a table wait until the gate is opened.

    Args:
        notes: the table.
        admin: a connection that does not pass the network.

    """

    def __init__(self, notes: Notes, admin: Admin) -> None:
        self.admin = admin
        prefix = notes.repo.config.prefix
        admin.execute(f"""
            CREATE FUNCTION {prefix}.gate() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NULL; END $$
        """)
        admin.execute(f"""
            CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON {notes.table}
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {prefix}.gate()
        """)
        admin.execute(f"SELECT pg_advisory_lock({GATE})")

    def open(self) -> None:
        """Let every COMMIT through."""
        self.admin.execute(f"SELECT pg_advisory_unlock({GATE})")

    def waiting(self) -> int | None:
        """Name the server process whose COMMIT waits here."""
        row = self.admin.execute(
            "SELECT max(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objid = %s AND NOT granted",
            [GATE],
        ).fetchone()
        found: int | None = row[0] if row else None
        return found


def insert(notes: Notes, connection: Connection, *, mark: bool = True) -> str:
    """Write a row, and leave the transaction's id as engines do."""
    notes.add(connection, 1)
    if mark:
        found = connection.execute(text("SELECT cast(pg_current_xact_id() AS text)")).scalar()
        connection.info[TRANSACTION_ID] = found
    return f"try {notes.tries}"


def submit(
    threads: ThreadPoolExecutor, repo: Repo, notes: Notes, gate: Gate, *, mark: bool = True
) -> "Future[str]":
    """Begin to insert, and come back when its COMMIT waits at the gate."""

    def transaction() -> str:
        return repo.transaction(lambda c: insert(notes, c, mark=mark), idempotent=False)

    running = threads.submit(transaction)
    wait_until(gate.waiting)
    return running


def test_lost_answer_of_a_commit(far: Repo, proxy: TcpProxy, admin: Admin) -> None:
    """A COMMIT that took place, but whose answer was lost, is found out and not done twice."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, far, notes, gate)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM notes").fetchone())
        proxy.drop()
        proxy.thaw()

        assert running.result(60) == "try 1"

    assert notes.all() == [1]


def test_lost_end_of_the_question(
    far: Repo, proxy: TcpProxy, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has read what became of a COMMIT knows it, though the question's own is lost."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    ask = transactions._status

    def ask_and_lose(connection: Connection, transaction_id: str | None) -> str | None:
        status = ask(connection, transaction_id)
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
        admin.execute("SELECT pg_terminate_backend(%s, 30000)", [pid])
        return status

    monkeypatch.setattr(transactions, "_status", ask_and_lose)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, far, notes, gate)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM notes").fetchone())
        proxy.drop()
        proxy.thaw()

        assert running.result(60) == "try 1"

    assert notes.all() == [1]


def test_commit_that_never_was(far: Repo, admin: Admin) -> None:
    """A COMMIT that the server did not carry out is found out, and the work is done again."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, far, notes, gate)
        admin.execute("SELECT pg_terminate_backend(%s)", [gate.waiting()])
        wait_until(lambda: notes.tries == 2)
        gate.open()

        assert running.result(60) == "try 2"

    assert notes.all() == [1]


def submit_message(threads: ThreadPoolExecutor, repo: Repo, notes: Notes, gate: Gate) -> Any:
    """Begin to insert by a message, and come back when its COMMIT waits at the gate."""
    statements = [
        f"INSERT INTO {notes.table} VALUES (1)",
        "SELECT cast(pg_current_xact_id() AS text)",
    ]
    running = threads.submit(
        repo.message, statements, {}, identified=lambda found: str(found[0][0][0])
    )
    wait_until(gate.waiting)
    return running


def test_lost_answer_of_a_message_whose_commit_goes_apart(
    far: Repo, proxy: TcpProxy, admin: Admin
) -> None:
    """As with any other: it is found out, and not done twice."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit_message(threads, far, notes, gate)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM notes").fetchone())
        proxy.drop()
        proxy.thaw()

        assert len(running.result(60)) == 1

    assert notes.all() == [1]


def test_message_whose_commit_never_was(far: Repo, admin: Admin) -> None:
    """As with any other: it is found out, and done again."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit_message(threads, far, notes, gate)
        first = gate.waiting()
        admin.execute("SELECT pg_terminate_backend(%s)", [first])
        wait_until(lambda: gate.waiting() not in (None, first))
        gate.open()

        assert len(running.result(60)) == 1

    assert notes.all() == [1]


def test_server_that_took_over(far: Repo, admin: Admin) -> None:
    """A server that never came as far as the transaction says so, and the work is done again."""
    notes = Notes(far)
    gate = Gate(notes, admin)

    def work(connection: Connection) -> None:
        notes.add(connection, 1)
        connection.info[TRANSACTION_ID] = str(10**9)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(lambda: far.transaction(work, idempotent=False))
        admin.execute("SELECT pg_terminate_backend(%s)", [wait_until(gate.waiting)])
        wait_until(lambda: notes.tries == 2)
        gate.open()
        running.result(60)

    assert notes.all() == [1]


def test_unknown_outcome(far: Repo, admin: Admin) -> None:
    """Where nobody can say what became of a COMMIT, that is the answer."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    with ThreadPoolExecutor(1) as threads:
        running = submit(threads, far, notes, gate, mark=False)
        admin.execute("SELECT pg_terminate_backend(%s)", [gate.waiting()])

        with pytest.raises(CommitUnknown):
            running.result(60)

    assert notes.tries == 1


def test_lost_answer_of_idempotent_work(far: Repo, proxy: TcpProxy, admin: Admin) -> None:
    """Work for which twice is once is simply run again."""
    notes = Notes(far)
    gate = Gate(notes, admin)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(far.transaction, lambda c: insert(notes, c))
        wait_until(gate.waiting)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM notes").fetchone())
        proxy.drop()
        proxy.thaw()

        assert running.result(60) == "try 2"


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
