"""A temporary directory that is gone, with all that runs in it, however the test run ends."""

import os
import pwd
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import keeper

HOME = "OBAN_TEST_SCRATCH"
"""Variable that tells the programs of a test run where its scratch directory is."""

ROOT = Path(__file__).resolve().parents[2]

LONGEST = 60
"""A longer path could not hold a unix socket, whose address has 107 bytes."""


class Scratch:
    """A temporary directory, and the keeper that removes it when it is closed or we end.

    Attributes:
        path: The directory.
        account: User and group id that own it.
    """

    def __init__(self, account: tuple[int, int] | None = None) -> None:
        """Make the directory and start its keeper.

        Args:
            account: Owner, default: who runs the tests.
        """
        self.account = account or (os.geteuid(), os.getegid())
        self.path = Path(tempfile.mkdtemp(prefix="oban-", dir=_base()))
        os.chown(self.path, *self.account)
        # A process group of its own: Ctrl-C is for the tests, not for who cleans up after them.
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, self.path, *map(str, self.account)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            process_group=0,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def signal(self, number: signal.Signals) -> int:
        """Signal every process that works in the directory; returns how many were found."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(f"signal {number.value}\n")
        self._keeper.stdin.flush()
        return int(self._keeper.stdout.readline())

    def close(self) -> None:
        """End what runs in the directory and remove it; may be called again."""
        if self._keeper.returncode is None:
            # Not the end of input alone: a forked child may still hold the pipe open.
            self._keeper.communicate("close\n", timeout=60)


def at_home() -> dict[str, Any]:
    """Give what lets a program that knows our modules end with the run, however that ends.

    They are options of `Popen`. Outside of a test run nobody looks after it.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {"cwd": os.environ.get(HOME), "env": os.environ | {"PYTHONPATH": path}}


def unprivileged() -> tuple[int, int]:
    """User and group id to run a PostgreSQL server under: it refuses to run as root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    users = {user.pw_name: user for user in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    return user.pw_uid, user.pw_gid


def reachable(path: Path) -> bool:
    """Whether users other than the owner can get to the path."""
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def _base() -> Path | None:
    wanted = Path(tempfile.gettempdir()).resolve()
    if len(str(wanted)) <= LONGEST and reachable(wanted):
        return wanted
    return Path("/tmp")  # noqa: S108 -- mkdtemp makes a private directory in it
