"""Fixtures for the repo: one on each kind of database, with a table to write to."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, make_url, text

from oban_actors.repo import Repo
from tests.repo.opening import opened, opened_on
from tests.support.databases import Database
from tests.support.proxy import TcpProxy


class Notes:
    """A table of numbers.

    Args:
        repo: where it is.

    """

    def __init__(self, repo: Repo) -> None:
        self.table = "notes" if repo.dialect == "sqlite" else f"{repo.config.prefix}.notes"
        self.repo = repo
        self.tries = 0
        if repo.dialect == "postgresql":
            make = text(f"CREATE SCHEMA IF NOT EXISTS {repo.config.prefix}")
            repo.transaction(lambda connection: connection.execute(make))
        table = text(f"CREATE TABLE {self.table} (number integer)")
        repo.transaction(lambda connection: connection.execute(table))

    def add(self, connection: Connection, number: int) -> int:
        """Write a number, and count how often that was tried."""
        self.tries += 1
        connection.execute(text(f"INSERT INTO {self.table} VALUES (:number)"), {"number": number})
        return number

    def stand(self, connection: Connection) -> bool:
        """Say whether there are any."""
        query = text(f"SELECT EXISTS (SELECT FROM {self.table})")
        return bool(connection.execute(query).scalar())

    def all(self) -> list[int]:
        """Read all that was committed."""
        query = text(f"SELECT number FROM {self.table} ORDER BY number")
        return self.repo.transaction(lambda connection: list(connection.execute(query).scalars()))


@pytest.fixture
def repo(database: Database) -> Iterator[Repo]:
    """A repo on each kind of database."""
    with opened_on(database, statement_timeout=20.0) as made:
        yield made


@pytest.fixture
def pg_repo(pg: Database) -> Iterator[Repo]:
    """A repo on PostgreSQL."""
    with opened_on(pg, statement_timeout=20.0) as made:
        yield made


@pytest.fixture
def sqlite_repo(sqlite: Database) -> Iterator[Repo]:
    """A repo on SQLite."""
    with opened_on(sqlite, statement_timeout=20.0) as made:
        yield made


@pytest.fixture
def admin(pg_conninfo: str, prefix: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the repo's, on the same database and schema."""
    with psycopg.connect(pg_conninfo, autocommit=True) as connection:
        connection.execute(SQL("SET search_path = {}").format(Identifier(prefix)))
        yield connection


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
