"""The command as a user has it: the installed script, in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.databases import Database
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(sys.executable).parent / "oban-actors"
WORKERS = "tests.cli.work"


def environment(database: Database | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give the variables of a shell that has none of ours but those for the database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OBAN_")}
    ours = {}
    if database is not None:
        ours = {"OBAN_DATABASE_URL": database.url, "OBAN_PREFIX": database.prefix}
    return {**kept, "COLUMNS": "200", **ours, **(more or {})}


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it said, for a program."""
        return json.loads(self.out)


def command(
    *words: str,
    database: Database | None = None,
    more: Mapping[str, str] | None = None,
    text: str = "",
    directory: Path = ROOT,
) -> Done:
    """Run a command to its end."""
    done = subprocess.run(
        [SCRIPT, *words],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=directory,
        env=environment(database, more),
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Started:
    """`oban-actors start` that runs, and what it and its workers said."""

    def __init__(self, database: Database, words: tuple[str, ...], more: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [SCRIPT, "start", "--import", WORKERS, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(database, more),
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        lines.extend(stream)  # by and by

    def ran(self) -> dict[int, int]:
        """In which process each job ran last."""
        told = [json.loads(line) for line in list(self.out) if line.startswith("{")]
        return {each["ran"]: each["pid"] for each in told}

    def workers(self) -> dict[int, int]:
        """Process ids of the workers that came up, the newest of each place."""
        found = re.findall(r"worker (\d+) runs, process (\d+)", "".join(list(self.err)))
        return {int(index): int(pid) for index, pid in found}

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until so many lines on stderr match."""

        def matching() -> list[str]:
            return [line for line in list(self.err) if re.search(pattern, line)]

        wait_until(
            lambda: len(matching()) >= count or self.process.poll() is not None,
            timeout=120,
            message=f"{pattern} in {self.err}",
        )
        found = matching()
        assert len(found) >= count, self.err
        return found

    def end(self, timeout: float = 120) -> int:
        """Wait until it has ended, and for all that it said."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(30)
        return code


@contextmanager
def started(
    database: Database, *words: str, more: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Start a node or a parent, and see to it that nothing is left of it."""
    one = Started(database, words, more or {})
    try:
        yield one
    finally:
        pids = one.workers().values()
        if one.process.poll() is None:
            one.process.kill()
        wait_until(lambda: not any(map(alive, pids)), timeout=60, message=f"the end of {pids}")
        one.end()
        for stream in (one.process.stdout, one.process.stderr):
            assert stream is not None
            stream.close()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a process."""
    os.kill(pid, number)
