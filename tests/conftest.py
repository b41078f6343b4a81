"""Fixtures: databases of both kinds, telemetry, and the check for leaks around every test."""

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import settings

from tests.support import jitter
from tests.support.databases import Database, Kind, new_database, new_prefix
from tests.support.events import Recorder, recording
from tests.support.leaks import no_leaked_threads
from tests.support.order import dealt
from tests.support.postgres import GIVEN, GivenServer, PostgresServer, Server
from tests.support.scratch import HOME, Scratch

if TYPE_CHECKING:
    from tests.support.instances import Starter

SCRATCH = pytest.StashKey[Scratch]()

settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let `tmp_path` be where it is removed even if this run is killed."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell leaves it for what runs in the background; programs of tests would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # As under nohup: this run goes on, and its programs have the default again.
        signal.signal(signal.SIGHUP, lambda _signum, _frame: None)
    if jitter.wanted():
        jitter.install()
    if config.option.basetemp is None:
        scratch = config.stash[SCRATCH] = Scratch()
        config.option.basetemp = scratch.path / "tests"
        os.environ[HOME] = str(scratch.path)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what `pytest_configure` made."""
    if SCRATCH in config.stash:
        config.stash[SCRATCH].close()


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with no_leaked_threads():
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The server for all tests that leave it running: a given one, else one of our own."""
    if url := os.environ.get(GIVEN):
        yield GivenServer(url)
        return
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def pg_database(postgres_server: Server) -> Iterator[str]:
    """Name of the database on it that this run uses."""
    with new_database(postgres_server) as name:
        yield name


@pytest.fixture(scope="session")
def pg_url(postgres_server: Server, pg_database: str) -> str:
    """Address of that database, as SQLAlchemy takes it."""
    return postgres_server.url(pg_database)


@pytest.fixture(scope="session")
def pg_conninfo(postgres_server: Server, pg_database: str) -> str:
    """Address of that database, as psycopg takes it."""
    return postgres_server.conninfo(pg_database)


@pytest.fixture
def admin(pg_conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection with every right."""
    with psycopg.connect(pg_conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
def prefix(pg_conninfo: str) -> Iterator[str]:
    """A schema of that database for this test alone; not made yet."""
    with new_prefix(pg_conninfo) as name:
        yield name


@pytest.fixture
def pg(pg_url: str, prefix: str) -> Database:
    """A PostgreSQL database for this test."""
    return Database("postgresql", pg_url, prefix)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Address of an SQLite file for this test, as SQLAlchemy takes it; not made yet."""
    return f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
def sqlite(sqlite_url: str) -> Database:
    """An SQLite database for this test."""
    return Database("sqlite", sqlite_url)


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.db), "sqlite"])
def database(request: pytest.FixtureRequest) -> Database:
    """A database for this test, which runs once for each kind."""
    kind: Kind = request.param
    found: Database = request.getfixturevalue({"postgresql": "pg", "sqlite": "sqlite"}[kind])
    return found


@pytest.fixture(scope="session")
def _restartable() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_server(_restartable: PostgresServer) -> Iterator[PostgresServer]:
    """A running server that the test may stop, kill and freeze."""
    _restartable.start()
    yield _restartable
    _restartable.resume()
    _restartable.start()


@pytest.fixture
def own_database(own_server: PostgresServer) -> Iterator[Database]:
    """A database for this test on `own_server`."""
    with new_database(own_server) as name:
        yield Database("postgresql", own_server.url(name))


@pytest.fixture
def events() -> Iterator[Recorder]:
    """Telemetry events of this test."""
    with recording() as recorder:
        yield recorder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a PostgreSQL server, and begin with what takes long.

    The order is shuffled before; what may take minutes would else often be all that still runs
    at the end, on one processor.
    """
    long = sorted(filter(_allowed, items), key=_allowed, reverse=True)
    short = [item for item in items if not _allowed(item)]
    items[:] = dealt(long, short, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    for item in items:
        if {"postgres_server", "own_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.db)


def _allowed(item: pytest.Item) -> float:
    own = item.get_closest_marker("timeout")
    return float(own.args[0]) if own else 0.0


@pytest.fixture
def start_oban(database: Database) -> Iterator["Starter"]:
    """Makes and starts instances on `database`, and stops them after the test."""
    with _starter(database) as one:
        yield one


@pytest.fixture
def start_pg(pg: Database) -> Iterator["Starter"]:
    """The same on PostgreSQL alone."""
    with _starter(pg) as one:
        yield one


@pytest.fixture
def start_sqlite(sqlite: Database) -> Iterator["Starter"]:
    """The same on SQLite alone."""
    with _starter(sqlite) as one:
        yield one


def _starter(database: Database) -> AbstractContextManager["Starter"]:
    from tests.support.instances import starter  # noqa: PLC0415 (the actors' tests need no tree)

    return starter(database)
