"""PostgreSQL servers: throw-away ones to stop, kill and freeze, or one that is given."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from sqlalchemy import URL, make_url

from tests.support.ports import HOST, free_port
from tests.support.programs import program_directory
from tests.support.scratch import Scratch, reachable, unprivileged
from tests.support.waiting import wait_until

StopMode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
GIVEN = "OBAN_TEST_DATABASE_URL"
"""Variable of the environment that names a server to use."""

SUPERUSER = "postgres"
SETTINGS = {
    "listen_addresses": HOST,
    "max_connections": "200",
    # A server that stops waits so long for a client that connected just then and says nothing.
    "authentication_timeout": "10s",
    # Files in the data directory go when it goes; those in /dev/shm would survive a kill.
    "dynamic_shared_memory_type": "mmap",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
TAKEN = "Address already in use"
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}


class Server(Protocol):
    """A PostgreSQL server that tests can reach."""

    def url(self, database: str = SUPERUSER) -> str:
        """Address of a database on it, as SQLAlchemy takes it."""

    def conninfo(self, database: str = SUPERUSER) -> str:
        """Address of a database on it, as psycopg takes it."""


class GivenServer:
    """A server that somebody else runs."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)

    def url(self, database: str = SUPERUSER) -> str:
        """See `Server`."""
        return _render(self._url, "postgresql+psycopg", database)

    def conninfo(self, database: str = SUPERUSER) -> str:
        """See `Server`."""
        return _render(self._url, "postgresql", database)


class PostgresServer:
    """A throw-away server on 127.0.0.1 and on a unix socket in its own temporary directory.

    Nothing of it is left when it is closed or when this process ends, however it does.

    Attributes:
        port: TCP port, the same over restarts; never 5432.
        directory: Where everything of it is; also the host name for its unix socket.
        log: Its log file.
        superuser: The user to connect as; it needs no password.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """Make the server's directory; `start` makes its data.

        Args:
            durable: Whether commits reach the disk; if not, they still outlive a kill.
            settings: Further lines for postgresql.conf.
        """
        self._scratch = Scratch(unprivileged())
        self._settings = SETTINGS | ({} if durable else FORGETFUL) | dict(settings or {})
        self._master: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.directory = self._scratch.path
        self.log = self.directory / "log"
        self.superuser = SUPERUSER

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether its master process is there, be it frozen."""
        return self._master is not None and self._master.poll() is None

    def url(self, database: str = SUPERUSER) -> str:
        """See `Server`."""
        return _render(self._address(), "postgresql+psycopg", database)

    def conninfo(self, database: str = SUPERUSER) -> str:
        """See `Server`."""
        return _render(self._address(), "postgresql", database)

    def start(self) -> None:
        """Start it and wait until it takes connections; nothing if it runs.

        Raises:
            RuntimeError: It ended instead; its log is in the message.
        """
        if self.running:
            return
        new = not self._data.exists()
        if new:
            self._initialize()
        self._begin()
        while new and not self.running and TAKEN in self.log.read_text():
            # By another server that was being made at the same time.
            self.log.unlink()
            self.port = free_port()
            self._begin()
        if not self.running:
            raise RuntimeError(f"PostgreSQL did not start: {self.log.read_text()}")

    def _begin(self) -> None:
        self._master = self._run("postgres", "-D", str(self._data), "-p", str(self.port))
        wait_until(self._ready, message="PostgreSQL takes connections")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it and wait for its end; nothing if it does not run.

        Args:
            mode: "smart" waits for clients to leave, "fast" throws them out, "immediate" does not
                even write out.
        """
        if self._master is not None:
            self._master.send_signal(STOP_SIGNALS[mode])
            self._master.wait(timeout=60)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start it on the same port and data."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill all its processes at once (SIGKILL), as a crash of the machine would."""
        # Frozen first, so that the master starts no process between being listed and being killed.
        self._scratch.signal(signal.SIGSTOP)
        wait_until(lambda: not self._scratch.signal(signal.SIGKILL), message="no process left")
        if self._master is not None:
            self._master.wait(timeout=60)

    def pause(self) -> None:
        """Freeze all its processes: connections stay open, and nothing answers."""
        # Twice: the first time, the master may just have started another process.
        self._scratch.signal(signal.SIGSTOP)
        self._scratch.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._scratch.signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove all that is left of it; may be called again."""
        self._scratch.close()
        if self._master is not None:
            self._master.wait(timeout=60)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _address(self) -> URL:
        return URL.create("postgresql", SUPERUSER, host=HOST, port=self.port)

    def _initialize(self) -> None:
        options = ["--auth=trust", "--no-sync", "--no-locale", "--encoding=UTF8"]
        process = self._run("initdb", *options, f"--username={SUPERUSER}", f"--pgdata={self._data}")
        if process.wait(timeout=120) != 0:
            raise RuntimeError(f"initdb failed: {self.log.read_text()}")
        settings = self._settings | {"unix_socket_directories": str(self.directory)}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        user, group = self._scratch.account
        foreign = user != os.geteuid()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self._programs() / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=_environment(),
                user=user if foreign else None,
                group=group if foreign else None,
                extra_groups=[] if foreign else None,
                # Ctrl-C would stop it under tests that still clean up.
                process_group=0,
            )

    def _programs(self) -> Path:
        found = program_directory()
        if self._scratch.account[0] == os.geteuid() or reachable(found):
            return found
        # A wheel keeps the libraries of its programs beside the package that holds them.
        package = found.parents[1]
        libraries = package.with_name(f"{package.name}.libs")
        parts = [package, libraries] if libraries.exists() else [found.parent]
        copy = self.directory / "programs"
        if not copy.exists():
            for part in parts:
                shutil.copytree(part, copy / part.name, symlinks=True)
            for path in (copy, *copy.rglob("*")):
                os.chown(path, *self._scratch.account, follow_symlinks=False)
        return copy / found.relative_to(parts[0].parent)

    def _ready(self) -> bool:
        # Line 1 of the pid file is the master's id, line 8 its state; a killed server's file stays.
        if not self.running or self._master is None:
            return True
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self._master.pid)] and [x.strip() for x in lines[7:]] == ["ready"]


def _environment() -> dict[str, str]:
    # What PG* variables say is about another server.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _render(url: URL, driver: str, database: str) -> str:
    return url.set(drivername=driver, database=database).render_as_string(hide_password=False)
