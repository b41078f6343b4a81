"""Leadership: what a renewal costs, and how long nobody leads when the leader goes."""

import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import SYSTEM_CLOCK
from tests.bench.report import Report
from tests.peers.harness import LONG, Cluster, Node, clustered
from tests.support import nodes
from tests.support.databases import Database, new_database
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

RENEWALS = 300
HANDOVERS = 20
KILLS = 5


def run(report: Report) -> None:
    """Measure it on both databases; all but the time after a kill within one process."""
    for database in _databases():
        kind = database.kind
        with clustered(database) as cluster:
            report.add_samples(f"renewal, {kind}", _renewals(cluster), "ms")
            report.add_samples(f"handover, {kind}", _handovers(cluster), "ms", goal="< 100")
            if kind == "postgresql":
                report.add_samples(f"after kill -9, {kind}", _kills(cluster), "s", goal="< 2")


def _databases() -> Iterator[Database]:
    with PostgresServer(durable=True) as server, new_database(server) as name:
        yield Database("postgresql", server.url(name))
    with tempfile.TemporaryDirectory() as directory:
        yield Database("sqlite", f"sqlite:///{Path(directory) / 'jobs.db'}")


def _renewals(cluster: Cluster) -> list[float]:
    node = cluster.start(peer=LONG)
    wait_until(node.elect)
    samples = []
    for _ in range(RENEWALS):
        began = SYSTEM_CLOCK.monotonic()
        node.elect()
        samples.append((SYSTEM_CLOCK.monotonic() - began) * 1e3)
    cluster.stop(node)
    return samples


def _handovers(cluster: Cluster) -> list[float]:
    leader = cluster.start(peer=LONG)
    wait_until(lambda: leader.leads)
    samples = []
    for _ in range(HANDOVERS):
        other = cluster.start(peer=LONG)
        samples.append(_handover(cluster, leader, other))
        leader = other
    cluster.stop(leader)
    return samples


def _handover(cluster: Cluster, leader: Node, other: Node) -> float:
    if other.elect():
        raise RuntimeError("two lead")
    led = threading.Event()
    led_at: list[float] = []

    def on_election(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if metadata["conf"] is other.config and metadata["leader"] and not led.is_set():
            led_at.append(SYSTEM_CLOCK.monotonic())
            led.set()

    telemetry.attach("bench", "oban.peer.election.stop", on_election)
    began = SYSTEM_CLOCK.monotonic()
    cluster.stop(leader)
    if not led.wait(60):
        raise TimeoutError("nobody took over")
    telemetry.detach("bench")
    return (led_at[0] - began) * 1e3


def _kills(cluster: Cluster) -> list[float]:
    samples = []
    for _ in range(KILLS):
        with nodes.cluster(cluster.database, 2, peer=LONG) as running:
            leader = nodes.leader_of(running)
            wait_until(lambda: (cluster.holder() or "").endswith(":lock"))
            samples.append(_kill(leader, next(one for one in running if one is not leader)))
    return samples


def _kill(leader: nodes.Node, other: nodes.Node) -> float:
    began = SYSTEM_CLOCK.monotonic()
    leader.signal(signal.SIGKILL)
    wait_until(lambda: other.leads)
    return SYSTEM_CLOCK.monotonic() - began
