"""Ways in which a host holds a transaction, each with a common face for the tests."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tests.support.databases import Database


@dataclass
class Host:
    """A host's open transaction.

    Attributes:
        handle: what the host holds.
        commit: commits it.
        rollback: rolls it back.

    """

    handle: Any
    commit: Callable[[], object]
    rollback: Callable[[], object]


def address(database: Database, driver: str) -> sa.URL:
    """Give a database's address for another driver."""
    return sa.make_url(database.url).set(drivername=driver)


@contextmanager
def engine_of(url: sa.URL) -> Iterator[sa.Engine]:
    """Make an engine that is disposed of."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def sqlalchemy_connection(database: Database, driver: str) -> Iterator[Host]:
    """A Connection of SQLAlchemy."""
    with engine_of(address(database, driver)) as engine, engine.connect() as connection:
        yield Host(connection, connection.commit, connection.rollback)


@contextmanager
def sqlalchemy_session(database: Database, driver: str) -> Iterator[Host]:
    """A Session of SQLAlchemy."""
    with engine_of(address(database, driver)) as engine, Session(engine) as session:
        yield Host(session, session.commit, session.rollback)


@contextmanager
def sqlalchemy_scoped(database: Database, driver: str) -> Iterator[Host]:
    """A scoped_session of SQLAlchemy."""
    with engine_of(address(database, driver)) as engine:
        session = scoped_session(sessionmaker(engine))
        try:
            yield Host(session, session.commit, session.rollback)
        finally:
            session.remove()


@contextmanager
def bare_psycopg(database: Database, _driver: str) -> Iterator[Host]:
    """A Connection of psycopg, whose rows are not tuples."""
    conninfo = address(database, "postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, row_factory=dict_row) as connection:
        yield Host(connection, connection.commit, connection.rollback)


@contextmanager
def bare_sqlite(database: Database, _driver: str) -> Iterator[Host]:
    """A Connection of sqlite3, whose rows are not tuples."""
    connection = sqlite3.connect(str(sa.make_url(database.url).database))
    connection.row_factory = lambda cursor, row: {
        column[0]: value for column, value in zip(cursor.description, row, strict=True)
    }
    try:
        yield Host(connection, connection.commit, connection.rollback)
    finally:
        connection.close()


@contextmanager
def django_connection(database: Database, _driver: str) -> Iterator[Host]:
    """Django's connection, as `django.db.connection` is one."""
    import django  # noqa: PLC0415 (as below)
    from django.conf import settings  # noqa: PLC0415 (slow, and only for this)
    from django.db.utils import ConnectionHandler  # noqa: PLC0415 (as above)

    if not settings.configured:
        settings.configure()
        django.setup()
    url = sa.make_url(database.url)
    backend = {"postgresql": "postgresql", "sqlite": "sqlite3"}[database.kind]
    options: dict[str, Any] = {"ENGINE": f"django.db.backends.{backend}", "NAME": url.database}
    if database.kind == "postgresql":
        options |= {"USER": url.username, "PASSWORD": url.password or ""}
        options |= {"HOST": url.host, "PORT": str(url.port)}
    connection: Any = ConnectionHandler({"default": options})["default"]
    connection.set_autocommit(False)
    try:
        yield Host(connection, connection.commit, connection.rollback)
    finally:
        connection.close()


SYNC = [
    ("postgresql", sqlalchemy_connection, "postgresql+psycopg"),
    ("postgresql", sqlalchemy_connection, "postgresql+psycopg2"),
    ("postgresql", sqlalchemy_connection, "postgresql+pg8000"),
    ("postgresql", sqlalchemy_session, "postgresql+psycopg"),
    ("postgresql", sqlalchemy_scoped, "postgresql+psycopg"),
    ("postgresql", bare_psycopg, ""),
    ("postgresql", django_connection, ""),
    ("sqlite", sqlalchemy_connection, "sqlite"),
    ("sqlite", sqlalchemy_session, "sqlite"),
    ("sqlite", bare_sqlite, ""),
    ("sqlite", django_connection, ""),
]

ASYNC = [
    ("postgresql", "session", "postgresql+asyncpg"),
    ("postgresql", "connection", "postgresql+asyncpg"),
    ("postgresql", "session", "postgresql+psycopg"),
    ("postgresql", "scoped", "postgresql+asyncpg"),
    ("postgresql", "bare", ""),
    ("sqlite", "session", "sqlite+aiosqlite"),
    ("sqlite", "connection", "sqlite+aiosqlite"),
]


class AsyncHost:
    """A host's open transaction, to be awaited."""

    def __init__(self, database: Database, kind: str, driver: str) -> None:
        self._database, self._kind, self._driver = database, kind, driver
        self._engine: AsyncEngine | None = None
        self.handle: Any = None

    async def __aenter__(self) -> Self:
        if self._kind == "bare":
            url = address(self._database, "postgresql").render_as_string(hide_password=False)
            self.handle = await psycopg.AsyncConnection.connect(url)
            return self
        self._engine = create_async_engine(
            address(self._database, self._driver), poolclass=sa.NullPool
        )
        if self._kind == "session":
            self.handle = AsyncSession(self._engine)
        elif self._kind == "scoped":
            maker = async_sessionmaker(self._engine)
            self.handle = async_scoped_session(maker, scopefunc=asyncio.current_task)
        else:
            connection: AsyncConnection = await self._engine.connect()
            self.handle = connection
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.handle.close()
        if self._engine is not None:
            await self._engine.dispose()
        await asyncio.sleep(0)
