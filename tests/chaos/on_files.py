"""Faults of an SQLite file: the disk is full, and another program has the file locked."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.cases import case
from tests.chaos.on_servers import AWAY, BACK
from tests.chaos.scene import Scene

SIZE = "32m"
FULL = r"queue alpha can't reach the database: database or disk is full"
MOUNT, UMOUNT = "/bin/mount", "/bin/umount"
BLOCK = b"\0" * 65_536

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@case(
    "file-locked",
    "the file is locked by another program",
    kind="sqlite",
    told=(AWAY, BACK),
    options={"lock_timeout": 0.5, "statement_timeout": 2.0},
)
def file_locked(scene: Scene) -> None:
    """It has it for longer than anybody waits; beats fail too, and nobody is taken for dead."""
    file = scene.database.url.removeprefix("sqlite:///")
    for _ in scene.rounds(5):
        with scene.strike():
            locker = subprocess.Popen(
                [sys.executable, "-c", LOCKER, file],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            with locker:
                assert locker.stdout.readline() == "locked\n"
                scene.told(AWAY, anew=True)
                locker.stdin.close()


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Give a directory on a small disk of its own."""
    disk = directory / "disk"
    disk.mkdir()
    mount = [MOUNT, "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(disk)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield disk
    finally:
        subprocess.run([UMOUNT, str(disk)], check=True, capture_output=True)


def no_small_disk() -> str | None:
    """Why there can be none."""
    return None if os.geteuid() == 0 else "a small disk is mounted, which takes root"


@case(
    "disk-full",
    "the disk is full",
    kind="sqlite",
    disk=small_disk,
    missing=no_small_disk,
    told=(FULL, BACK),
)
def disk_full(scene: Scene) -> None:
    """What was committed stays; what could not be is tried again until there is room."""
    ballast = Path(scene.database.url.removeprefix("sqlite:///")).with_name("ballast")
    for _ in scene.rounds(5):
        with scene.strike():
            with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(BLOCK)
            scene.told(FULL, anew=True)
            ballast.unlink()
