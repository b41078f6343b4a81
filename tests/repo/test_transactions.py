"""Transactions: what is committed, what is tried again, and what ends them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from oban_actors.errors import (
    DatabaseError,
    DatabaseUnavailable,
    StatementTimeout,
    UndefinedTable,
)
from oban_actors.repo import Repo
from tests.repo.conftest import Notes
from tests.repo.opening import opened, opened_on
from tests.support.databases import Database
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ENDLESS = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers)
SELECT count(*) FROM numbers
"""


def endless(repo: Repo) -> Callable[[Connection], object]:
    """Make work that never ends by itself."""
    query = text("SELECT pg_sleep(3600)" if repo.dialect == "postgresql" else ENDLESS)
    return lambda connection: connection.execute(query).all()


def test_commits_and_returns(repo: Repo) -> None:
    """What work returns is returned, once what it wrote is committed."""
    notes = Notes(repo)

    assert repo.transaction(lambda connection: notes.add(connection, 7)) == 7

    assert notes.all() == [7]


def test_rolls_back(repo: Repo) -> None:
    """An error of the work itself comes through as it is, and nothing it wrote stays."""
    notes = Notes(repo)

    def work(connection: Connection) -> None:
        notes.add(connection, 7)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        repo.transaction(work)

    assert notes.all() == []
    assert notes.tries == 1


def test_nested_errors_can_be_caught(repo: Repo) -> None:
    """A savepoint takes back a part of the work, so that the rest can go on."""
    notes = Notes(repo)

    def work(connection: Connection) -> None:
        notes.add(connection, 1)
        inner = connection.begin_nested()
        notes.add(connection, 2)
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT * FROM nowhere"))
        inner.rollback()
        notes.add(connection, 3)

    repo.transaction(work)

    assert notes.all() == [1, 3]


def test_a_swallowed_error_is_no_success(pg_repo: Repo) -> None:
    """Work that goes on after a failed statement was rolled back, and must not look committed."""
    notes = Notes(pg_repo)

    def work(connection: Connection) -> None:
        notes.add(connection, 1)
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(DatabaseError, match="had failed"):
        pg_repo.transaction(work)

    assert notes.all() == []


def test_undefined_table(repo: Repo) -> None:
    """A missing table is an error of its own, not tried again."""
    with pytest.raises(UndefinedTable, match="nowhere") as caught:
        repo.transaction(lambda connection: connection.execute(text("SELECT * FROM nowhere")))

    assert isinstance(caught.value.__cause__, DBAPIError)


def test_read_only(pg_repo: Repo) -> None:
    """A transaction that said it only reads may not write."""
    notes = Notes(pg_repo)

    with pytest.raises(DatabaseError, match="read-only"):
        pg_repo.transaction(lambda connection: notes.add(connection, 1), read_only=True, attempts=1)


def test_settings_are_local(pg_repo: Repo) -> None:
    """Every time-out is set for the transaction alone, so that poolers carry nothing over."""
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "tcp_user_timeout",
        "transaction_isolation",
        "timezone",
    )
    settings = ", ".join(f"current_setting('{name}')" for name in names)
    query = text(f"SELECT {settings}")

    def work(connection: Connection) -> tuple[Any, ...]:
        return tuple(connection.execute(query).one())

    inside = pg_repo.transaction(work, statement_timeout=7.5, lock_timeout=2)
    impatient = pg_repo.transaction(work, statement_timeout=7.5, idle_timeout=1.5)
    with pg_repo.engine.connect() as connection:
        after = connection.execute(query).one()

    assert inside == ("7500ms", "2s", "7500ms", "7500", "read committed", "UTC")
    assert impatient[:4] == ("7500ms", "5s", "1500ms", "1500")
    assert after[:4] == ("0", "0", "0", "0")


def test_a_listener_of_the_hosts_that_raises(repo: Repo) -> None:
    """Over a commit: nothing is written, and no transaction is left open for the next one."""
    notes = Notes(repo)

    def listener(_: Connection) -> None:
        raise RuntimeError("the host's")

    event.listen(repo.engine, "commit", listener)
    try:
        with pytest.raises(RuntimeError, match="the host's"):
            repo.transaction(lambda connection: notes.add(connection, 1))
    finally:
        event.remove(repo.engine, "commit", listener)
    repo.transaction(lambda connection: notes.add(connection, 2))

    assert notes.all() == [2]


def test_durable(repo: Repo) -> None:
    """A commit waits for the disk unless it was said that it need not."""

    def work(connection: Connection) -> Any:
        name = "SELECT current_setting('synchronous_commit')"
        pragma = "PRAGMA synchronous"
        return connection.execute(text(name if repo.dialect == "postgresql" else pragma)).scalar()

    found = [repo.transaction(work, durable=durable) for durable in (True, False, True)]

    # Of SQLite's, 2 is FULL and 1 is NORMAL.
    assert found == (["on", "off", "on"] if repo.dialect == "postgresql" else [2, 1, 2])


def test_statement_timeout(repo: Repo) -> None:
    """A statement that takes too long is ended, and not tried again."""
    with pytest.raises(StatementTimeout):
        repo.transaction(endless(repo), statement_timeout=0.2)

    assert repo.transaction(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1


def test_cancel(repo: Repo) -> None:
    """Another thread can end what a thread does; the repo goes on working."""
    ident = []

    def work(connection: Connection) -> object:
        ident.append(threading.get_ident())
        return endless(repo)(connection)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(repo.transaction, work)
        wait_until(lambda: ident)
        wait_until(lambda: not repo.cancel(ident[0]) or running.done())
        with pytest.raises(DatabaseError, match="cancelled"):
            running.result(30)

    assert len(ident) == 1
    assert repo.cancel(ident[0]) is False
    assert repo.transaction(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1


def test_cancel_between_statements(repo: Repo) -> None:
    """Cancelled while it does something else, a call ends at its next statement."""

    def work(connection: Connection) -> None:
        assert repo.cancel(threading.get_ident())
        connection.execute(text("SELECT 1"))

    with pytest.raises(DatabaseError, match="cancelled"):
        repo.transaction(work)


def test_close_leaves_others_alone(repo: Repo) -> None:
    """Closing ends no transaction that somebody is in, and the repo can be used again."""
    notes = Notes(repo)

    def work(connection: Connection) -> None:
        repo.close()
        notes.add(connection, 1)

    repo.transaction(work)
    repo.open()

    assert notes.all() == [1]


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_waiting_between_tries_ends(way: str) -> None:
    """Neither `cancel` nor `close` has to wait until a waiting thread has tried enough."""
    with opened(f"postgresql://nobody@127.0.0.1:{free_port()}/none") as repo:
        ident: list[int] = []

        def work() -> None:
            ident.append(threading.get_ident())
            repo.transaction(lambda connection: connection.execute(text("SELECT 1")), attempts=1000)

        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(work)
            wait_until(lambda: ident)
            end = repo.close if way == "close" else lambda: repo.cancel(ident[0])
            # Told too early, it has nothing to end.
            wait_until(lambda: (end(), running.done())[1])
            with pytest.raises(DatabaseError, match="cancelled" if way == "cancel" else "closed"):
                running.result(30)


def test_terminated_backend(pg_repo: Repo, admin: psycopg.Connection[Any]) -> None:
    """A connection lost before COMMIT costs another try, also of work that must not run twice."""
    notes = Notes(pg_repo)

    def work(connection: Connection) -> None:
        notes.add(connection, 1)
        if notes.tries == 1:
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            admin.execute("SELECT pg_terminate_backend(%s)", [backend])
            connection.execute(text("SELECT 1"))

    pg_repo.transaction(work, idempotent=False)

    assert notes.tries == 2
    assert notes.all() == [1]


def test_refused_connection() -> None:
    """Where nobody listens, that is said after the tries asked for."""
    with opened(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none") as repo:
        with pytest.raises(DatabaseUnavailable, match="refused") as caught:
            repo.transaction(lambda connection: connection.execute(text("SELECT 1")), attempts=3)

        assert "secret" not in f"{caught.value}{caught.value!r}{caught.value.__cause__}"


def test_host_calls_are_bounded(database: Database) -> None:
    """Who gets no connection in time is told so, and takes none of those kept for the tree."""
    with opened_on(database, pool_size=2, statement_timeout=0.2) as repo:
        free, inside = threading.Event(), threading.Barrier(3)

        def hang(_connection: Connection) -> None:
            inside.wait(30)
            free.wait(30)

        with ThreadPoolExecutor(2) as threads:
            hanging = [
                threads.submit(repo.transaction, hang, statement_timeout=60.0, read_only=True)
                for _ in range(2)
            ]
            inside.wait(30)
            with pytest.raises(DatabaseUnavailable, match="in use"):
                repo.transaction(lambda connection: connection.execute(text("SELECT 1")))
            free.set()
            for one in hanging:
                one.result(30)

        assert repo.transaction(lambda c: c.execute(text("SELECT 1")).scalar()) == 1


def test_a_call_within_a_call_needs_no_slot(database: Database) -> None:
    """It would wait for the call that it is part of, where all are taken."""
    with opened_on(database, pool_size=1) as narrow:

        def inner(connection: Connection) -> object:
            return connection.execute(text("SELECT 1")).scalar()

        assert narrow.transaction(lambda _: narrow.transaction(inner, read_only=True)) == 1
