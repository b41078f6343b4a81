"""Transactions that are in each other's way: they wait, try again, and give up in time."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from oban_actors.errors import (
    TransientError,
)
from oban_actors.repo import Repo
from tests.repo.conftest import Notes
from tests.support.databases import Database
from tests.support.waiting import wait_until


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
def test_conflicts_are_tried_again(pg_repo: Repo, code: str) -> None:
    """Serialization, deadlock and lock errors cost nothing but another try."""
    notes = Notes(pg_repo)

    def work(connection: Connection) -> None:
        notes.add(connection, 1)
        if notes.tries < 3:
            raising = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$"
            connection.exec_driver_sql(raising)

    pg_repo.transaction(work, idempotent=False)

    assert notes.tries == 3
    assert notes.all() == [1]


def test_conflicts_are_given_up(pg_repo: Repo) -> None:
    """After twenty tries the conflict is the caller's to know."""
    tries = []

    def work(connection: Connection) -> None:
        tries.append(1)
        raising = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"
        connection.exec_driver_sql(raising)

    with pytest.raises(TransientError) as caught:
        pg_repo.transaction(work)

    assert len(tries) == 20
    assert caught.value.sqlstate == "40001"


def test_deadlock(pg_repo: Repo) -> None:
    """Two transactions that lock each other's rows both get through."""
    notes = Notes(pg_repo)
    for number in (1, 2):
        pg_repo.transaction(partial(notes.add, number=number))
    both_hold_one = threading.Barrier(2)

    def work(first: int, second: int) -> None:
        met = False

        def lock(connection: Connection) -> None:
            nonlocal met
            query = text(f"SELECT 1 FROM {notes.table} WHERE number = :number FOR UPDATE")
            connection.execute(query, {"number": first})
            if not met:
                met = True
                both_hold_one.wait(30)
            connection.execute(query, {"number": second})

        pg_repo.transaction(lock, lock_timeout=0)

    with ThreadPoolExecutor(2) as threads:
        for done in (threads.submit(work, 1, 2), threads.submit(work, 2, 1)):
            done.result(60)


def test_waits_for_a_lock(pg_repo: Repo, admin: psycopg.Connection[Any]) -> None:
    """A table that somebody has locked is tried again until it is free."""
    notes = Notes(pg_repo)
    with ThreadPoolExecutor(1) as threads:
        with admin.transaction():
            admin.execute("LOCK TABLE notes")
            work = threads.submit(
                pg_repo.transaction, lambda c: notes.add(c, 1), lock_timeout=0.01, attempts=1
            )
            wait_until(lambda: notes.tries > 2)
        work.result(30)

    assert notes.all() == [1]


def test_busy_file(sqlite_repo: Repo, sqlite: Database) -> None:
    """A file that another process writes to is tried again until it is free."""
    notes = Notes(sqlite_repo)
    other = sqlite3.connect(sqlite_repo.engine.url.database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(sqlite_repo.transaction, lambda c: notes.add(c, 1), lock_timeout=0.01)
        with pytest.raises(TransientError, match="locked"):
            sqlite_repo.transaction(lambda c: notes.add(c, 2), lock_timeout=0.01)
        reading = sqlite_repo.transaction(
            lambda c: c.execute(text("SELECT 1")).scalar(), read_only=True
        )
        other.execute("COMMIT")
        other.close()
        try:
            work.result(30)
        except TransientError:
            sqlite_repo.transaction(lambda c: notes.add(c, 1))

    assert reading == 1
    assert notes.all() == [1]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_writer_has_the_file_from_its_beginning(sqlite_repo: Repo, *, read_only: bool) -> None:
    """What may write has the lock before its first statement; what only reads keeps nobody out."""
    Notes(sqlite_repo)
    other = sqlite3.connect(sqlite_repo.engine.url.database or "", isolation_level=None, timeout=0)

    def work(_: Connection) -> bool:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        other.execute("ROLLBACK")
        return False

    assert sqlite_repo.transaction(work, read_only=read_only) is not read_only
    other.close()


def test_writers_take_turns(sqlite_repo: Repo) -> None:
    """Many threads that read and then write one file all get through: none must upgrade a lock."""
    notes = Notes(sqlite_repo)

    def bump(_: int) -> None:
        def work(connection: Connection) -> None:
            count = connection.execute(text("SELECT count(*) FROM notes")).scalar_one()
            notes.add(connection, count)

        sqlite_repo.transaction(work)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(bump, range(60)))

    assert notes.all() == list(range(60))
