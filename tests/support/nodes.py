"""Nodes of a cluster, each a process of its own."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.databases import Database
from tests.support.instances import Starter
from tests.support.scratch import at_home
from tests.support.waiting import wait_until


class Node:
    """A running node, and what it said.

    The option `module` names the program; it is the one that only stages by default.
    """

    def __init__(self, database: Database, options: dict[str, Any]) -> None:
        given = dict(options)
        module = given.pop("module", "tests.cluster.node")
        command = [sys.executable, "-W", "error", "-m", module, database.url, database.prefix]
        self.process = subprocess.Popen(
            [*command, json.dumps(given)], stdout=subprocess.PIPE, text=True, **at_home()
        )
        self.said: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def began(self) -> bool:
        """Whether it has said that it has started; or ended, as one does that dies as it begins."""
        return any("started" in line for line in self.said) or self.process.poll() is not None

    @property
    def leads(self) -> bool:
        """Whether it said last that it leads."""
        return next((line["leader"] for line in reversed(self.said) if "leader" in line), False)

    @property
    def staged(self) -> list[int]:
        """Ids of all jobs that it staged."""
        return [job_id for line in list(self.said) for job_id in line.get("staged", ())]

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(signum)

    @property
    def stopped(self) -> bool:
        """Whether all its threads stand still."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/stat")
        states = [file.read_text("utf-8").rpartition(")")[2].split()[0] for file in threads]
        return set(states) == {"T"}

    def end(self) -> None:
        """Let it end, by force if need be."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def cluster(database: Database, count: int, **options: Any) -> Iterator[list[Node]]:
    """Run so many nodes on one database, and end them with the block."""
    nodes: list[Node] = []
    try:
        for _ in range(count):
            nodes.append(Node(database, options))
            wait_until(nodes[-1].began)
        yield nodes
    finally:
        for node in nodes:
            node.end()


def leader_of(nodes: list[Node], timeout: float = 60.0) -> Node:
    """Wait until exactly one of them leads, and give it."""
    wait_until(lambda: sum(node.leads for node in nodes) == 1, timeout, "one leader")
    return next(node for node in nodes if node.leads)


def freeze(node: Node, one: Starter) -> None:
    """Stop a process, but on SQLite not while it writes: nobody can break the file's lock."""
    with one.tables.engine.connect() as connection:
        if one.database.kind == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        node.signal(signal.SIGSTOP)
        wait_until(lambda: node.stopped)
        connection.rollback()
