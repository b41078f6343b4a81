"""A transaction as one message: what it gives, and that it is as careful as any other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from oban_actors.errors import DatabaseError, StatementTimeout, TransientError, UndefinedTable
from oban_actors.repo import Repo
from tests.repo.conftest import Notes
from tests.repo.opening import opened_on
from tests.support.databases import Database
from tests.support.waiting import wait_until

WAITERS = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"


def test_gives_the_rows_of_each_statement(pg_repo: Repo) -> None:
    """Those without rows give none, and each statement sees what went before; it is committed."""
    notes = Notes(pg_repo)

    found = pg_repo.message(
        [
            "SELECT %(text)s, %(none)s, cast(%(ids)s AS bigint[]) WHERE '%%' = '%%'",
            f"INSERT INTO {notes.table} VALUES (7)",
            f"SELECT number FROM {notes.table}",
            "SELECT 1 WHERE false",
        ],
        {"text": "it's \\ a ü 'quote'; DROP TABLE x", "none": None, "ids": [1, 2]},
    )

    assert found == [[("it's \\ a ü 'quote'; DROP TABLE x", None, [1, 2])], [(7,)], []]
    assert notes.all() == [7]


def test_a_failing_statement_undoes_all(pg_repo: Repo) -> None:
    """Nothing of the message stays, and the connection is fit for the next one."""
    notes = Notes(pg_repo)
    insert = f"INSERT INTO {notes.table} VALUES (%(number)s)"

    with pytest.raises(UndefinedTable):
        pg_repo.message([insert, "SELECT * FROM nowhere"], {"number": 1})
    with pytest.raises(DatabaseError, match="division by zero"):
        pg_repo.message([insert, "SELECT 1/0"], {"number": 2})

    assert pg_repo.message([insert, "SELECT pg_backend_pid()"], {"number": 3})
    assert notes.all() == [3]


def test_its_settings_are_local(pg_repo: Repo) -> None:
    """They hold within it, also that it does not wait for the disk, and for nobody after it."""
    shown = [f"SELECT current_setting('{name}')" for name in ("lock_timeout", "synchronous_commit")]

    within = pg_repo.message(shown, {}, lock_timeout=1.5, durable=False)
    after = pg_repo.message(shown, {})

    assert within == [[("1500ms",)], [("off",)]]
    assert after == [[("5s",)], [("on",)]]


def test_a_statement_that_takes_too_long_is_ended(pg_repo: Repo) -> None:
    """The time-out that the message sets counts for what comes after it in the message."""
    with pytest.raises(StatementTimeout):
        pg_repo.message(["SELECT 1", "SELECT pg_sleep(3600)"], {}, statement_timeout=0.2)


def test_who_waits_for_a_lock_gives_up(pg_repo: Repo, admin: psycopg.Connection[Any]) -> None:
    """Locks are waited for only so long, then it is tried again, and in the end given up."""
    notes = Notes(pg_repo)
    with admin.transaction():
        admin.execute(f"LOCK TABLE {notes.table}".encode())
        with pytest.raises(TransientError):
            pg_repo.message(
                [f"INSERT INTO {notes.table} VALUES (1)"],
                {},
                lock_timeout=0.05,
                statement_timeout=0.3,
            )
    assert notes.all() == []


@pytest.mark.parametrize("end", ["cancel", "terminate"])
def test_is_ended_from_outside(pg_repo: Repo, admin: psycopg.Connection[Any], end: str) -> None:
    """Cancelled, it raises at once and nothing stays; cut off, it is done anew, and once."""
    notes = Notes(pg_repo)
    table = f"{pg_repo.config.prefix}.waited"
    admin.execute(f"CREATE TABLE {table} ()".encode())
    statements = [
        f"INSERT INTO {notes.table} VALUES (1)",
        f"/* {end} me */ LOCK TABLE {table}",
    ]

    def run() -> object:
        return pg_repo.message(statements, {}, lock_timeout=0)

    def blocked() -> tuple[Any, ...] | None:
        # Within a transaction it would be shown the same sessions again and again.
        admin.execute("SELECT pg_stat_clear_snapshot()")
        return admin.execute(WAITERS, [f"%{end} me%"]).fetchone()

    with ThreadPoolExecutor(1) as threads, admin.transaction():
        admin.execute(f"LOCK TABLE {table}".encode())
        ident = threads.submit(threading.get_ident).result(30)
        pending = threads.submit(run)
        wait_until(lambda: blocked() is not None or pending.done())
        assert not pending.done(), pending.result()
        if end == "cancel":
            assert pg_repo.cancel(ident)
            with pytest.raises(DatabaseError, match="cancelled"):
                pending.result(30)
        else:
            admin.execute("SELECT pg_terminate_backend(%s)", blocked())
    if end == "terminate":
        assert pending.result(30) == []

    assert notes.all() == ([] if end == "cancel" else [1])


def test_says_what_can_not_be_encoded(pg: Database) -> None:
    """A value that PostgreSQL can't hold is an error, before anything is sent."""
    with opened_on(pg) as repo, pytest.raises(DatabaseError):
        repo.message(["SELECT %(text)s"], {"text": "a\0b"})
