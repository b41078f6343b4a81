"""Databases and schemas on a server, made for tests and dropped after them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

from tests.support.postgres import Server

Kind = Literal["postgresql", "sqlite"]


@dataclass(frozen=True)
class Database:
    """Where a test keeps its jobs.

    Attributes:
        kind: Which of the two kinds it is.
        url: Its address, as SQLAlchemy takes it.
        prefix: The schema to use; not made yet. SQLite has none and ignores it.
    """

    kind: Kind
    url: str
    prefix: str = "public"


@contextmanager
def new_database(server: Server) -> Iterator[str]:
    """Give the name of an empty database, and drop it afterwards, whoever is still connected."""
    name = f"oban_test_{uuid4().hex[:12]}"
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
    try:
        yield name
    finally:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@contextmanager
def new_prefix(conninfo: str) -> Iterator[str]:
    """Give a schema name that nobody uses, and drop the schema afterwards if there is one.

    Raises:
        psycopg.errors.LockNotAvailable: A transaction that the test left open still uses it.
    """
    name = f"t_{uuid4().hex[:12]}"
    yield name
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '20s'")
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))
