"""How connections are made: an engine of our own, whatever the host gave, and lone connections."""

import math
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import psycopg
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from oban_actors.config import Config
from oban_actors.errors import ConfigError, DatabaseError, DatabaseUnavailable
from oban_actors.repo.slots import RESERVE
from oban_actors.repo.times import Dialect
from oban_actors.validation import OPTIONS

if TYPE_CHECKING:
    # It needs greenlet, which is not there unless the host uses asyncio with SQLAlchemy.
    from sqlalchemy.ext.asyncio import AsyncEngine

Source: TypeAlias = "str | URL | Engine | AsyncEngine"

_PSYCOPG = "postgresql+psycopg"
_DRIVERS: Mapping[str, tuple[Dialect, str]] = {
    "postgresql": ("postgresql", _PSYCOPG),
    "sqlite": ("sqlite", "sqlite+pysqlite"),
}
_SECRET_OPTIONS = ("password", "sslpassword")
_ASYNCPG_OPTIONS = ("host", "port", "user", "password", "passfile")
_KNOWN = (psycopg.Error, SQLAlchemyError, DatabaseError)
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


def make_engine(source: Source, config: Config) -> Engine:
    """Make an engine of our own with a small pool, in the driver's autocommit mode.

    Given the host's engine, if it uses psycopg, connections are made the way it makes them,
    whatever its `creator`, `connect_args` and events say. Of any other its address is taken.

    Raises:
        ConfigError: the database is of a kind that we can't use, or its address or the notifier's
            `listen_url` can't be read.

    """
    engine = cast("str | URL | Engine", getattr(source, "sync_engine", source))
    url = engine.url if isinstance(engine, Engine) else _parse(engine)
    dialect, drivername = _driver(url, config)
    if dialect == "sqlite":
        _refuse_memory(url)
    elif config.notifier.listen_url is not None:
        _parse(config.notifier.listen_url, "notifier.listen_url")
    own = url.set(drivername=drivername)
    options: dict[str, Any]
    if isinstance(engine, Engine) and _borrowable(engine):
        own, _ = _without_secrets(own)
        options = {"creator": _borrowed_creator(engine, config.connect_timeout)}
    else:
        own, arguments = _address(own, config, asyncpg=url.get_driver_name() == "asyncpg")
        options = {"connect_args": arguments}
    if dialect == "postgresql":
        options["use_native_hstore"] = False
    return _listening(
        create_engine(
            own,
            poolclass=QueuePool,
            pool_size=config.pool_size,
            max_overflow=RESERVE,
            pool_timeout=config.statement_timeout,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            **options,
        ),
        config,
    )


# To listen is to be idle. Servers before 14 know no such setting.
_NEVER_TOO_IDLE = """
SELECT set_config('idle_session_timeout', '0', false)
WHERE current_setting('idle_session_timeout', true) <> '0'
"""


def lone_connection(
    engine: Engine, config: Config, made: Callable[["psycopg.Connection[Any]"], object]
) -> "psycopg.Connection[Any]":
    """Make a PostgreSQL connection outside any pool, in autocommit mode, that notices a dead peer.

    Args:
        engine: one that `make_engine` made.
        config: its `notifier.listen_url` is where to connect, if given.
        made: called with the connection once there is one, before the server is asked anything.

    Raises:
        ConfigError: the engine is not PostgreSQL's.
        psycopg.Error: nobody answered.

    """
    if engine.dialect.name != "postgresql":
        raise ConfigError("a connection of its own is for PostgreSQL only")
    driver = _dial(engine, config)
    try:
        made(driver)
        driver.autocommit = True
        _keep_alive(driver)
        name = f"oban_actors {config.name} listen"
        driver.execute("SELECT set_config('application_name', %s, false)", [name])
        driver.execute(_NEVER_TOO_IDLE)
    except BaseException:
        driver.close()
        raise
    return driver


def _parse(url: str | URL, option: str = "database") -> URL:
    if isinstance(url, URL):
        return url
    if not isinstance(url, str):
        expected = "an address, an Engine or an AsyncEngine"
        raise OPTIONS.refusal(option, expected, url)
    made = _read(url)
    if made is None:
        # What can't be read may hold a password, so neither the value nor its error is shown.
        raise ConfigError(
            f"invalid value for '{option}': expected an address that SQLAlchemy can read, "
            "like 'postgresql+psycopg://user@host/name' or 'sqlite:///jobs.db', "
            "got: something else, not shown"
        )
    if _splits_a_password(url, made):
        raise ConfigError(
            f"invalid value for '{option}': expected one '@', before the host; in a password "
            "write it as %40"
        )
    return made


def _splits_a_password(url: str, made: URL) -> bool:
    """Whether its password ended at an '@' of its own: the rest is named in errors and logs."""
    if "@" in (made.host or ""):
        return True
    rest = f"{made.database}{url.partition('?')[2]}"
    return made.password is not None and "@" in rest


def _read(url: str) -> URL | None:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        return None


def _driver(url: URL, config: Config) -> tuple[Dialect, str]:
    found = _DRIVERS.get(url.get_backend_name())
    if found is None:
        name = url.get_backend_name()
        hint = ", which is written postgresql" if name == "postgres" else ""
        raise ConfigError(
            f"invalid value for 'database': expected PostgreSQL or SQLite, got: {name}{hint}"
        )
    expected = {"postgres": "postgresql"}.get(config.engine, config.engine)
    if expected not in ("auto", found[0]):
        raise ConfigError(
            f"invalid value for 'engine': expected one for {found[0]}, got: {config.engine!r}"
        )
    return found


def _borrowable(engine: Engine) -> bool:
    return engine.dialect.driver == "psycopg" and not engine.dialect.is_async


def _refuse_memory(url: URL) -> None:
    database = url.database or ""
    if database in ("", ":memory:") or ":memory:" in database or url.query.get("mode") == "memory":
        raise ConfigError(
            "invalid value for 'database': expected an SQLite file, since every connection to "
            "':memory:' is another database"
        )


def _address(own: URL, config: Config, *, asyncpg: bool = False) -> tuple[URL, dict[str, Any]]:
    if own.get_backend_name() == "sqlite":
        return own, {"check_same_thread": False, "timeout": config.lock_timeout}
    if asyncpg:
        # Its options are not libpq's, but for those that say where to connect; TLS has another
        # name.
        names = {name: name for name in _ASYNCPG_OPTIONS} | {"ssl": "sslmode"}
        known = {names[name]: value for name, value in own.query.items() if name in names}
        own = own.set(query=known)
    own, secrets = _without_secrets(own)
    arguments: dict[str, Any] = {
        # libpq takes whole seconds and no less than two.
        "connect_timeout": max(2, math.ceil(config.connect_timeout)),
        "application_name": f"oban_actors {config.name}",
    }
    # What the address says itself goes before our own choice.
    return own, secrets | {k: v for k, v in arguments.items() if k not in own.query}


def _without_secrets(url: URL) -> tuple[URL, dict[str, Any]]:
    # SQLAlchemy hides the password of an address, but not one among its options.
    secrets = {name: url.query[name] for name in _SECRET_OPTIONS if name in url.query}
    return url.difference_update_query(_SECRET_OPTIONS), secrets


def _dial(engine: Engine, config: Config) -> "psycopg.Connection[Any]":
    url = config.notifier.listen_url
    if url is None:
        # A pool of the same kind makes one as the engine's own would, and forgets it.
        made = engine.pool.recreate().connect()
        made.detach()
        return cast("psycopg.Connection[Any]", made.dbapi_connection)
    own, arguments = _address(_parse(url, "notifier.listen_url").set(drivername=_PSYCOPG), config)
    positional, keywords = engine.dialect.create_connect_args(own)
    return psycopg.connect(*positional, **{**keywords, **arguments, "prepare_threshold": None})


def _borrowed_creator(host: Engine, seconds: float) -> Callable[[], Any]:
    """Connect as the host's engine does, but never wait longer than `seconds`."""
    pool = host.pool.recreate()

    def connect() -> Any:
        fairy = pool.connect()
        fairy.detach()
        return fairy.dbapi_connection

    return lambda: _Attempt(connect).result(seconds)


class _Attempt:
    # Nobody can look into the host's way of connecting to bound it, so it runs aside: one that
    # takes too long is left alone, and closes its connection if it gets one after all.

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._abandoned = False
        self._connection: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="oban connect", daemon=True).start()

    def result(self, seconds: float) -> Any:
        self._done.wait(seconds)
        with self._lock:
            if self._error is not None:
                raise _explained(self._error)
            if self._connection is None:
                self._abandoned = True
                raise DatabaseUnavailable(f"no connection within {seconds:g} s")
            return self._connection

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits for it)
            with self._lock:
                self._error = error
        else:
            with self._lock:
                self._connection = connection
                if self._abandoned:
                    connection.close()
        self._done.set()


def _explained(error: BaseException) -> BaseException:
    # A host's way of connecting may ask others for a password, and raise whatever they do. Its
    # text is the host's own, and may hold a secret.
    if not isinstance(error, Exception) or isinstance(error, _KNOWN):
        return error
    unavailable = DatabaseUnavailable(f"the host's engine can't connect: {type(error).__name__}")
    unavailable.__cause__ = error
    return unavailable


def _listening(engine: Engine, config: Config) -> Engine:
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
            connection.execute(f"PRAGMA busy_timeout = {math.ceil(config.lock_timeout * 1000)}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

    else:

        @event.listens_for(engine, "connect")
        def prepared(connection: "psycopg.Connection[Any]", _entry: ConnectionPoolEntry) -> None:
            # Behind a pooler the next statement may reach another server process.
            connection.prepare_threshold = None
            # A migration may take any time, but not that of a server which is gone.
            _keep_alive(connection)

    return engine


def _keep_alive(connection: "psycopg.Connection[Any]") -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as copy:
        if copy.family == socket.AF_UNIX:
            return
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            # Not every system has each of them.
            if hasattr(socket, name):
                copy.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
