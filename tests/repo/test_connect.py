"""Connections: made from whatever the host gives, bounded in time, and without leaking secrets."""

import logging
import re
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, Pool, QueuePool

from oban_actors import Oban
from oban_actors.errors import ConfigError, DatabaseError, DatabaseUnavailable
from oban_actors.repo import Repo
from tests.repo.opening import opened, opened_on
from tests.support.databases import Database
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, Server
from tests.support.waiting import wait_until

SECRET = "s3cret"
PG_LIKE = "'postgresql+psycopg://user@host/name'"


def one(repo: Repo) -> object:
    """Ask for next to nothing."""
    return repo.transaction(lambda connection: connection.execute(text("SELECT 1")).scalar())


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_address(pg: Database, driver: str) -> None:
    """Whichever driver a host names, ours connects."""
    url = make_url(pg.url).set(drivername=driver).render_as_string(hide_password=False)
    with opened(url) as repo:
        assert one(repo) == 1
        assert repo.engine.dialect.driver == "psycopg"


def test_asyncpg_address(pg: Database) -> None:
    """Options that only asyncpg knows are left out, and its word for TLS is translated."""
    query = {"ssl": "disable", "prepared_statement_cache_size": "7"}
    url = make_url(pg.url).set(drivername="postgresql+asyncpg", query=query)
    with opened(url) as repo:
        assert one(repo) == 1
        assert repo.engine.url.query == {"sslmode": "disable"}


@pytest.mark.parametrize("pool", [QueuePool, NullPool])
def test_host_engine(pg: Database, pool: type[Pool]) -> None:
    """Given an engine, connections are made as it makes them, but none of its own is used."""

    def creator() -> Any:
        return psycopg.connect(_conninfo(pg), options="-c search_path=mine")

    host = create_engine("postgresql+psycopg://", creator=creator, poolclass=pool)
    with opened(host) as repo:
        path = repo.transaction(lambda c: c.execute(text("SHOW search_path")).scalar())
        with repo.raw_connection() as lone:
            assert lone.execute("SHOW search_path").fetchone() == ("mine",)
            assert lone.autocommit

        assert path == "mine"
        assert host.pool is not repo.engine.pool
        if isinstance(host.pool, QueuePool):
            assert (host.pool.checkedin(), host.pool.checkedout()) == (0, 0)


def test_async_engine(pg: Database) -> None:
    """An asynchronous engine gives its address."""
    pytest.importorskip("greenlet")
    with opened(create_async_engine(pg.url)) as repo:
        assert one(repo) == 1


def test_hanging_creator(pg: Database) -> None:
    """A host's way of connecting that hangs is given up, and what it gives late is closed."""
    free = threading.Event()
    late: list[psycopg.Connection[Any]] = []

    def creator() -> Any:
        free.wait(60)
        late.append(psycopg.connect(_conninfo(pg)))
        return late[0]

    host = create_engine("postgresql+psycopg://", creator=creator)
    with opened(host, connect_timeout=0.1) as repo:
        with pytest.raises(DatabaseUnavailable, match="no connection within"):
            repo.transaction(lambda connection: connection, attempts=1)
        free.set()

        wait_until(lambda: late and late[0].closed)


def test_a_creator_that_raises_what_it_likes() -> None:
    """A host's way of connecting that fails is a database that is away, whatever its error is."""
    host = create_engine("postgresql+psycopg://", creator=_refusing)
    with opened(host) as repo:
        calls: list[Callable[[], object]] = [partial(one, repo), repo.raw_connection]
        for call in calls:
            with pytest.raises(DatabaseUnavailable, match="can't connect: ConnectionError") as met:
                call()
            assert SECRET not in str(met.value)
            assert isinstance(met.value.__cause__, ConnectionError)


def _refusing() -> Any:
    raise ConnectionError(f"the vault wants {SECRET}")


def test_keeps_to_its_pool(database: Database) -> None:
    """No more connections than the pool may have are ever open."""
    with opened_on(database, pool_size=1) as repo:
        for _ in range(5):
            one(repo)

        assert repo.engine.pool.checkedin() == 1  # type: ignore[attr-defined]  # a QueuePool's


def test_nothing_is_prepared(pg: Database) -> None:
    """However often a statement runs, a transaction pooler sees no prepared one."""
    with opened_on(pg, pool_size=1) as repo:
        for _ in range(10):
            one(repo)
        query = text("SELECT count(*) FROM pg_prepared_statements")
        count = repo.transaction(lambda connection: connection.execute(query).scalar())

    assert count == 0


def test_sqlite_pragmas(sqlite: Database) -> None:
    """The file is in WAL mode, each commit reaches the disk, and who is kept out waits."""
    with opened_on(sqlite, lock_timeout=3) as repo:
        names = ("journal_mode", "synchronous", "busy_timeout")
        found = repo.transaction(
            lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]
        )

    assert found == ["wal", 2, 3000]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_memory_is_refused(url: str) -> None:
    """A database that each connection would have for itself is of no use."""
    with pytest.raises(ConfigError, match="expected an SQLite file"), opened(url):
        pass


@pytest.mark.parametrize(
    ("database", "expected", "got"),
    [
        (None, "an address, an Engine or an AsyncEngine", "None"),
        (5, "an address, an Engine or an AsyncEngine", "5"),
        (
            {"host": "x"},
            "an address, an Engine or an AsyncEngine",
            "a mapping with the keys ['host']",
        ),
        (
            "jobs.db",
            f"an address that SQLAlchemy can read, like {PG_LIKE} or 'sqlite:///jobs.db'",
            "something else, not shown",
        ),
    ],
)
def test_what_is_no_address(database: Any, expected: str, got: str) -> None:
    """It is refused like any option: what was expected, and what came."""
    message = f"invalid value for 'database': expected {expected}, got: {got}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Oban(database)


def test_other_databases_are_refused() -> None:
    """Only what there is an engine for can be used."""
    with pytest.raises(ConfigError, match="expected PostgreSQL or SQLite, got: mysql"):
        opened("mysql://host/name").__enter__()
    with pytest.raises(ConfigError, match="got: postgres, which is written postgresql"):
        opened("postgres://host/name").__enter__()
    with pytest.raises(ConfigError, match="'engine': expected one for sqlite, got: 'postgres'"):
        opened("sqlite:///jobs.db", engine="postgres").__enter__()


def test_raw_connection(pg: Database) -> None:
    """The listener's connection is its own, commits at once, is named, and is kept alive."""
    with opened_on(pg, name="Mine") as repo, repo.raw_connection() as lone:
        row = lone.execute("SELECT current_setting('application_name')").fetchone()

        assert lone.autocommit
        assert row == ("oban_actors Mine listen",)
        assert _kept_alive(lone) == (1, 30)


def _kept_alive(connection: Any) -> tuple[int, int]:
    with socket.socket(fileno=socket.dup(connection.fileno())) as copy:
        return (
            copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        )


@pytest.mark.parametrize("given", ["an address", "an engine"])
def test_pooled_connections_are_kept_alive(pg: Database, given: str) -> None:
    """What may take any time, a migration, does not wait for a server that is gone."""
    host = create_engine(pg.url)
    with opened(host if given == "an engine" else pg.url) as repo:
        driver = repo.transaction(lambda connection: connection.connection.driver_connection)

        assert _kept_alive(driver) == (1, 30)
    host.dispose()


def test_listen_url(pg: Database, postgres_server: Server) -> None:
    """With `listen_url` the listener's connection goes elsewhere."""
    url = postgres_server.url("postgres")
    with opened(pg.url, notifier={"listen_url": url}) as repo:
        with repo.raw_connection() as lone:
            assert lone.info.dbname == "postgres"
        here = repo.transaction(lambda c: c.execute(text("SELECT current_database()")).scalar())

    assert here == make_url(pg.url).database


def test_raw_connection_is_refused() -> None:
    """Where nobody listens, the error is ours."""
    with opened(f"postgresql://x:{SECRET}@127.0.0.1:{free_port()}/none") as repo:
        with pytest.raises(DatabaseUnavailable) as caught:
            repo.raw_connection()

        assert SECRET not in _traced(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:{0}@127.0.0.1:{1}/none",
        "postgresql://127.0.0.1:{1}/none?user=x&password={0}&sslpassword={0}",
    ],
)
def test_no_password_anywhere(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither reprs, nor errors and their causes, nor logs show a password."""
    caplog.set_level(logging.DEBUG)
    with opened(url.format(SECRET, free_port())) as repo:
        with pytest.raises(DatabaseUnavailable) as caught:
            repo.transaction(lambda connection: connection, attempts=2)
        said = [repr(repo), repr(repo.engine), repr(repo.__dict__), _traced(caught.value)]

    assert SECRET not in "".join([*said, caplog.text])


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:/user:{0}@host",
        "postgresql://user:{0}@[::1/name",
        "postgresql://user:{0}@host:{0}/name",
        "postgresql://user:p@{0}@host/name",
    ],
)
@pytest.mark.parametrize("option", ["database", "notifier.listen_url"])
def test_no_password_of_an_unreadable_address(url: str, option: str) -> None:
    """An address that can't be read is refused at once, unseen, since it may hold one."""
    bad = url.format(SECRET)
    if option == "database":
        with pytest.raises(ConfigError, match=option) as caught:
            Oban(bad)
    else:
        with pytest.raises(ConfigError, match=option) as caught:
            Oban("postgresql://host/name", notifier={"listen_url": bad})

    assert SECRET not in _traced(caught.value)


def test_a_refused_password(caplog: pytest.LogCaptureFixture) -> None:
    """What a server that refuses it says, and what comes of that, does not show it."""
    caplog.set_level(logging.DEBUG)
    with PostgresServer() as server:
        with psycopg.connect(server.conninfo(), autocommit=True) as admin:
            admin.execute("CREATE ROLE someone LOGIN PASSWORD 'another'")
            found = admin.execute("SHOW hba_file").fetchone()
            assert found is not None
            Path(found[0]).write_text("host all all all scram-sha-256\n", "utf-8")
            admin.execute("SELECT pg_reload_conf()")
        url = f"postgresql+psycopg://someone:{SECRET}@127.0.0.1:{server.port}/postgres"
        oban = Oban(url, notifier={"listen_url": url.replace("+psycopg", "")})
        said = [repr(oban), repr(oban.config), repr(oban.repo)]
        for call in (oban.migrate, oban.start, oban.repo.raw_connection):
            with pytest.raises(DatabaseError, match="password authentication failed") as caught:
                call()
            said += [_traced(caught.value), "".join(format_exception(caught.value))]
        oban.stop()

    assert SECRET not in "".join([*said, caplog.text])


def _conninfo(database: Database) -> str:
    return make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)


def _traced(error: BaseException | None) -> str:
    said = ""
    while error is not None:
        said += f"{error!s}{error!r}"
        error = error.__cause__
    return said


def test_who_listens_may_be_idle(pg: Database) -> None:
    """However soon the server, a role or an address has other sessions ended for that."""
    url = make_url(pg.url).update_query_dict({"options": "-c idle_session_timeout=60s"})
    asked = "SELECT current_setting('idle_session_timeout')"
    with opened(url.render_as_string(hide_password=False)) as repo, repo.raw_connection() as lone:
        assert lone.execute(asked).fetchone() == ("0",)
        pooled = repo.transaction(lambda connection: connection.execute(text(asked)).scalar())
    assert pooled == "1min"
