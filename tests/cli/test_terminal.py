"""The command at a terminal: it asks, and shows how far it has come."""

import os
import pty
import subprocess
import threading

import pytest

from oban_actors import Job
from tests.cli.commands import ROOT, SCRIPT, environment
from tests.support.instances import Starter
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


class Terminal:
    """A command at a pseudo-terminal."""

    def __init__(self, start: Starter, *words: str) -> None:
        self.master, slave = pty.openpty()
        more = {"TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            [SCRIPT, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env=environment(start.database, more),
        )
        os.close(slave)
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self.master, 4096)
            except OSError:
                return  # the other side is closed
            if not chunk:
                return
            self.said += chunk.decode(errors="replace")

    def type(self, text: str) -> None:
        """Type."""
        os.write(self.master, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until it has said so."""
        wait_until(lambda: text in self.said, timeout=60, message=f"{text!r} in {self.said!r}")

    def end(self) -> int:
        """Wait until it has ended, and for all that it said."""
        code = self.process.wait(60)
        self._reader.join(30)
        os.close(self.master)
        return code


def test_it_asks_and_shows_progress(start_oban: Starter) -> None:
    """How many are meant is said before, how many were done meanwhile and afterwards."""
    oban = start_oban.make()
    oban.insert_all(Job.new(worker="w", queue="alpha") for _ in range(2_100))
    terminal = Terminal(start_oban, "jobs", "delete", "--queue", "alpha")
    terminal.wait_for("Delete 2,100 jobs (queue alpha)? [y/N]")
    terminal.type("y\n")

    assert terminal.end() == 0
    assert "2100/2100" in terminal.said
    assert "2,100 of 2,100 jobs deleted" in terminal.said
    assert start_oban.tables.states() == {}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_ctrl_c_at_a_question_does_nothing(start_oban: Starter) -> None:
    """Exit code 130."""
    start_oban.make()
    terminal = Terminal(start_oban, "rollback")
    terminal.wait_for("with all jobs? [y/N]")
    terminal.process.send_signal(2)

    assert terminal.end() == 130
    assert "error: interrupted" in terminal.said
    assert start_oban.tables.states() == {}
