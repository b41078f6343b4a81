"""Notifiers: how soon a listener hears, how many notifications a second, what idling costs."""

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from oban_actors.actors import GenServer
from oban_actors.actors.process import process_of
from oban_actors.messages import Listen, Notification
from tests.bench.report import Report
from tests.notifiers.rig import Node, NotifierKind
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

SAMPLES = 1_000
BURST = 20_000
BATCH = 500
IDLE = 5.0

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA busy_timeout = 5000")
connection.execute("CREATE TABLE noise (x)")
while True:
    connection.execute("INSERT INTO noise VALUES (1)")
"""


class Listener(GenServer):
    """Notes when it heard what."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: dict[int, float] = {}
        self.changed = threading.Event()

    def handle_info(self, message: Any) -> None:
        """Note it."""
        if isinstance(message, Notification):
            self.heard[message.payload["n"]] = time.perf_counter()
            self.changed.set()


def run(report: Report) -> None:
    """Measure each kind; the databases are durable, as in production."""
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        sqlite = Database("sqlite", f"sqlite:///{Path(folder) / 'jobs.db'}")
        _measure(report, "PostgreSQL", Database("postgresql", server.url()), "postgres")
        _measure(report, "SQLite", sqlite, "sqlite")
        _measure(report, "isolated", sqlite, "isolated")


def _measure(report: Report, what: str, database: Database, kind: NotifierKind) -> None:
    sender, receiver = Node(database, kind), Node(database, kind)
    if kind == "isolated":
        sender.close()
        sender = receiver
    ref = Listener.start_link(runtime=receiver.root.runtime)
    listener: Any = process_of(ref).actor
    receiver.ask(Listen(["bench"], ref))
    try:
        after_call, after_commit = _latency(sender, listener)
        goal = {"postgres": "< 1.8", "sqlite": "< 10"}.get(kind, "")
        report.add_samples(f"{what}, from commit to handler", after_commit, "ms", goal)
        report.add_samples(f"{what}, from publish to handler", after_call, "ms")
        report.add(
            f"{what}, notifications of {BATCH} a transaction", _rate(sender, listener), "1/s"
        )
        report.add(f"{what}, idle", _idle(lambda: ref.tell("nothing")), "% of a CPU", "< 0.5")
        if kind == "sqlite":
            _beside_a_writer(report, database)
    finally:
        ref.stop()
        for node in {sender, receiver}:
            node.close()


def _latency(sender: Node, listener: Listener) -> tuple[list[float], list[float]]:
    after_call, after_commit = [], []
    for n in range(-SAMPLES, 0):
        listener.changed.clear()
        began = time.perf_counter()
        sender.publish("bench", {"n": n})
        committed = time.perf_counter()
        if not listener.changed.wait(30):
            raise TimeoutError(f"notification {n} did not come")
        after_call.append((listener.heard[n] - began) * 1e3)
        after_commit.append(max(0.0, listener.heard[n] - committed) * 1e3)
    return after_call, after_commit


def _rate(sender: Node, listener: Listener) -> float:
    began = time.perf_counter()
    for first in range(0, BURST, BATCH):
        sender.publish("bench", *({"n": n} for n in range(first, first + BATCH)))
    wait_until(lambda: len(listener.heard) == SAMPLES + BURST, timeout=60)
    return BURST / (max(listener.heard.values()) - began)


def _beside_a_writer(report: Report, database: Database) -> None:
    """What it costs that another process commits, without a break, what concerns nobody here."""
    path = make_url(database.url).database
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
        cost = _idle(lambda: None)
        writer.terminate()
    report.add("SQLite, beside a busy writer", cost, "% of a CPU", "< 10")


def _idle(settle: Callable[[], object]) -> float:
    """What the whole process costs while nothing happens but its own housekeeping."""
    settle()
    pause = threading.Event()
    pause.wait(1.0)
    began = time.process_time()
    pause.wait(IDLE)
    return (time.process_time() - began) / IDLE * 100
