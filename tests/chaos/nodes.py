"""Nodes as seen from outside: their processes, and what they said in their files."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oban_actors.actors.clock import real_monotonic
from tests.chaos.node import TOLD
from tests.support.scratch import at_home
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Run:
    """A run of a job that has begun.

    Attributes:
        job_id: of the job.
        at: when, by the machine's monotonic clock.
        seconds: that it takes, as far as its job says.

    """

    job_id: int
    at: float
    seconds: float | None

    def share(self, begin: float, end: float) -> float:
        """How much of the whole run lies between two moments, 1 at most."""
        assert self.seconds is not None
        overlap = min(self.at + self.seconds, end) - max(self.at, begin)
        return max(overlap, 0.0) / self.seconds


@dataclass(frozen=True)
class Log:
    """What a node logged."""

    text: str
    level: str
    at: float


class Node:
    """A node's process.

    Args:
        url: of the database as this node reaches it.
        prefix: of its tables.
        options: what `tests.chaos.node` takes.
        directory: where its files are made.
        number: to tell it from others.

    """

    def __init__(
        self, url: str, prefix: str, options: dict[str, Any], directory: Path, number: int
    ) -> None:
        given = dict(options)
        module = given.pop("module", "tests.chaos.node")
        self.options = options
        self.told = directory / f"told.{number}"
        self.stderr = directory / f"stderr.{number}"
        self.told.touch()
        self.logs: list[Log] = []
        self.leads = False
        self.started = False
        self._position = 0
        home = at_home()
        home["env"][TOLD] = str(self.told)
        with self.stderr.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", module, url, prefix, json.dumps(given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                **home,
            )

    @property
    def lives(self) -> bool:
        """Whether its process is there, be it stopped."""
        return self.process.poll() is None

    def hear(self) -> list[Run]:
        """Take in what it said since the last time, and give the runs among it."""
        with self.told.open("rb") as file:
            file.seek(self._position)
            said = file.read()
        whole = said[: said.rfind(b"\n") + 1]
        self._position += len(whole)
        runs = []
        for line in map(json.loads, whole.splitlines()):
            match line:
                case {"ran": job_id, "at": at, "seconds": seconds}:
                    runs.append(Run(job_id, at, seconds))
                case {"log": text, "level": level, "at": at}:
                    self.logs.append(Log(text, level, at))
                case {"leader": leads}:
                    self.leads = leads
                case {"started": True}:
                    self.started = True
        return runs

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, as nothing can prevent, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> int:
        """Let it end, by force if need be; returns its exit code."""
        if self.lives:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait(30)


def pass_time(seconds: float) -> None:
    """Let time pass, where time is what a fault consists of."""
    until = real_monotonic() + seconds
    wait_until(lambda: real_monotonic() >= until, seconds + 30)
