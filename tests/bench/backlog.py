"""Where the bench keeps jobs, and how many are left."""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from oban_actors import Oban
from tests.support.databases import new_database
from tests.support.postgres import Server

LEFT = "SELECT 1 FROM oban_jobs WHERE queue = 'bench' AND state IN ('available', 'executing')"


@dataclass(frozen=True)
class Store:
    """A database with our tables.

    Attributes:
        url: as SQLAlchemy takes it.
        conninfo: as psycopg takes it; empty for SQLite.

    """

    url: str
    conninfo: str = ""

    @property
    def path(self) -> str:
        """SQLite's file."""
        return make_url(self.url).database or ""


def migrated(store: Store) -> Oban:
    """Make the tables, and give the instance that did, which is not started."""
    oban = Oban(store.url)
    oban.migrate()
    return oban


@contextmanager
def new_store(server: Server) -> Iterator[Store]:
    """Give a new database with our tables, and nobody connected to it."""
    with new_database(server) as name:
        store = Store(server.url(name), server.conninfo(name))
        # A connection of its pool would be counted among those that do something.
        migrated(store).repo.close()
        yield store


@contextmanager
def new_file() -> Iterator[Store]:
    """Give an SQLite file with our tables."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{Path(folder) / 'jobs.db'}")
        migrated(store).repo.close()
        yield store


def fill(store: Store, count: int, worker: str, queue: str = "bench") -> None:
    """Put so many jobs into a queue, by plain SQL."""
    if store.conninfo:
        with psycopg.connect(store.conninfo) as connection:
            connection.execute(
                "INSERT INTO oban_jobs (queue, worker, args) "
                "SELECT %s, %s, '{}' FROM generate_series(1, %s)",
                (queue, worker, count),
            )
        return
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute(
            "INSERT INTO oban_jobs (queue, worker, args) WITH RECURSIVE n (i) AS "
            "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT ?, ?, '{}' FROM n",
            (count, queue, worker),
        )


@contextmanager
def unfinished(store: Store) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether a job is left, on a connection that is kept."""
    if store.conninfo:
        with psycopg.connect(store.conninfo, autocommit=True) as connection:
            connection.execute("SET enable_seqscan = off")
            yield lambda: connection.execute(f"{LEFT} LIMIT 1").fetchone() is not None
        return
    with closing(sqlite3.connect(store.path, timeout=30)) as database:
        yield lambda: database.execute(f"{LEFT} LIMIT 1").fetchone() is not None
