"""Run a program of the bench and hear what it says."""

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import wait_until

HERE = Path(__file__).parent / "programs"
WAIT = 300.0
"""Seconds that a program may take for what it shall say next."""


class Program:
    """A running program; leaving the block closes its input, upon which it ends.

    Args:
        python: the interpreter that runs it.
        script: its file's name in `programs`.
        arguments: what stands after it on its command line.

    """

    def __init__(self, python: str | Path, script: str, *arguments: object) -> None:
        ours = Path(python) == Path(sys.executable)
        module = ["-m", f"tests.bench.programs.{Path(script).stem}"] if ours else [HERE / script]
        self.process = subprocess.Popen(
            [python, *module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: dict[str, Any] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def wait_for(self, name: str) -> Any:
        """Wait until it says this, and give what.

        Raises:
            RuntimeError: it ended without a word of it.

        """
        wait_until(lambda: name in self._said or not self._reader.is_alive(), WAIT, name)
        if name not in self._said:
            raise RuntimeError(f"{self.process.args!r} ended without saying {name!r}")
        return self._said[name]

    def end(self) -> dict[str, Any]:
        """Let it end, by force if need be, and give all that it said."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        self._reader.join(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return self._said

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._said |= json.loads(line)


def run_to_end(python: str | Path, script: str, arguments: Sequence[object]) -> dict[str, Any]:
    """Run a program that needs no telling, and give what it said."""
    program = Program(python, script, *arguments)
    program.process.wait(WAIT)
    return program.end()
