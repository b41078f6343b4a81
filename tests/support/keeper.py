"""The keeper of a scratch directory: a program that outlives its parent only to clean up.

It reads commands from its standard input: `signal NUMBER` signals every process that works in the
directory and answers with how many those were; `close`, or the end of the input, however the parent
came to its end, ends those processes and removes the directory. It is run by its path and uses the
standard library only, so that it starts at once under any interpreter.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

GRACE = 10.0
"""Seconds a PostgreSQL server gets to take down its shared memory before it is killed."""

TICK = 0.01


def main(directory: Path, account: tuple[int, int]) -> None:
    """Obey the parent, then clean up.

    Args:
        directory: What to keep and, at the end, to remove.
        account: User and group id under which the directory's servers run.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "close":
            break
        found = processes_in(directory, account)
        send(found, signal.Signals(int(arguments[0])))
        sys.stdout.write(f"{len(found)}\n")
        sys.stdout.flush()
    dispose(directory, account)


def processes_in(directory: Path, account: tuple[int, int]) -> set[int]:
    """Process ids of all that have the directory, or one under it, as their working directory."""
    with acting_as(account):
        theirs = _scan(directory)
    return theirs | _scan(directory)


def send(processes: set[int], number: signal.Signals) -> None:
    """Signal each process that is still there."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def dispose(directory: Path, account: tuple[int, int]) -> None:
    """End every process in the directory and remove it, shared memory included."""
    masters = {
        file: lines for file in directory.glob("*/postmaster.pid") if (lines := _lines(file))
    }
    servers = {int(lines[0]) for lines in masters.values()} & processes_in(directory, account)
    send(servers, signal.SIGQUIT)
    send(processes_in(directory, account), signal.SIGCONT)
    _until(lambda: not servers & processes_in(directory, account))
    _until(lambda: _removed(directory, account))
    for lines in masters.values():
        _remove_segment(lines)


@contextlib.contextmanager
def acting_as(account: tuple[int, int]) -> Iterator[None]:
    """Be another user for a while: in a container, root may not see where others work."""
    own = (os.geteuid(), os.getegid())
    if own[0] != 0 or account == own:
        yield
        return
    os.setegid(account[1])
    os.seteuid(account[0])
    try:
        yield
    finally:
        os.seteuid(own[0])
        os.setegid(own[1])


def _scan(directory: Path) -> set[int]:
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # Of a directory already removed, the link reads "/path (deleted)".
                place = str(Path(entry, "cwd").readlink()).removesuffix(" (deleted)")
                if Path(place).is_relative_to(directory):
                    found.add(int(entry.name))
    return found


def _removed(directory: Path, account: tuple[int, int]) -> bool:
    # Removal comes between two looks: who comes after the second finds nothing to come into.
    send(processes_in(directory, account), signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists() and not processes_in(directory, account)


def _lines(file: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return file.read_text().splitlines()
    return []


def _remove_segment(lines: list[str]) -> None:
    # A killed server leaves a small System V segment: line 7 of its pid file is "key id".
    if len(lines) > 6 and len(words := lines[6].split()) == 2:
        ctypes.CDLL(None).shmctl(int(words[1]), 0, None)


def _until(done: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(GRACE / TICK)):
        if done():
            return
        pause.wait(TICK)


if __name__ == "__main__":
    main(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])))
