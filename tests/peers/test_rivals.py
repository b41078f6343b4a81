"""Elixir nodes beside us: left the leadership, or competed with."""

import json
import logging
import threading
from collections.abc import Callable, Sequence

import psycopg
import pytest
import sqlalchemy as sa

from oban_actors.actors import GenServer, VirtualClock
from oban_actors.messages import Notification
from oban_actors.notifiers import listen
from oban_actors.notifiers.delivery import Delivery
from tests.peers.harness import LONG, Cluster, Node, listening
from tests.support.waiting import wait_until

ELIXIR = "web.9"


def ping(node: Node, of: str = ELIXIR, pid: int = 4242) -> None:
    """Let a node hear an Elixir node's ping."""
    node.peer.tell(Notification("sonar", {"node": of, "ping": True}, pid))


def test_leadership_is_offered_to_an_elixir_node(cluster: Cluster) -> None:
    """The leader resigns and says so; whoever then takes the lease is followed."""
    node = cluster.start(peer=LONG)
    assert node.leads

    with listening(node, "leader") as heard:
        ping(node)
        wait_until(lambda: {"down": "Oban"} in heard)

    assert not node.leads
    assert cluster.holder() is None
    cluster.insert(ELIXIR, 600.0)
    assert not node.elect()
    assert node.leader == ELIXIR


def test_an_offer_that_nobody_takes_is_made_once(cluster: Cluster) -> None:
    """After three seconds the node leads again, and goes on whoever pings."""
    clock = VirtualClock()
    node = cluster.start(clock=clock)
    assert node.leads
    ping(node)
    wait_until(lambda: not node.leads)
    assert not node.elect()

    clock.advance(3.1)

    wait_until(lambda: node.leads)
    ping(node)
    assert node.elect()


def test_a_vacant_lease_is_offered_first(cluster: Cluster) -> None:
    """A follower that knows of Elixir nodes calls them before it takes what an Elixir node left."""
    clock = VirtualClock()
    cluster.insert(ELIXIR, 600.0)
    node = cluster.start(clock=clock)
    assert not node.leads
    cluster.execute("DELETE FROM {table}")

    with listening(node, "leader") as heard:
        assert not node.elect()
        wait_until(lambda: {"down": "Oban"} in heard)

    assert cluster.holder() is None
    clock.advance(3.1)
    wait_until(lambda: node.leads)


def test_nodes_that_stand_back_let_no_python_node_pass(cluster: Cluster) -> None:
    """Those who heard of the Elixir node all wait, so that the offer reaches it."""
    clock = VirtualClock()
    first = cluster.start(clock=clock)
    assert first.leads
    second = cluster.start(clock=clock)
    assert not second.leads
    ping(second)
    ping(first)
    wait_until(lambda: not first.leads)

    assert not second.elect()
    assert cluster.holder() is None
    clock.advance(3.2)
    wait_until(lambda: first.leads or second.leads)


def test_mode_equal_keeps_the_leadership_and_warns(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, saying what it means for the Elixir nodes."""
    node = cluster.start(peer={"mode": "equal"})
    with caplog.at_level(logging.WARNING, logger="oban_actors"):
        ping(node)
        ping(node, "web.8")
        assert node.elect()

    warnings = [one.getMessage() for one in caplog.records if "Elixir" in one.getMessage()]
    assert len(warnings) == 1
    assert "cron" in warnings[0]


def test_a_real_ping_of_a_foreign_session_is_an_elixir_nodes(
    pg_cluster: Cluster, pg_conninfo: str
) -> None:
    """Told apart by the database's own session number."""
    node = pg_cluster.start(peer=LONG)
    assert node.elect()
    with psycopg.connect(pg_conninfo, autocommit=True) as elixir:
        payload = json.dumps({"node": ELIXIR, "ping": True})
        elixir.execute("SELECT pg_notify(%s, %s)", [node.config.channel("sonar"), payload])

        wait_until(lambda: not node.leads)


def test_pings_of_python_nodes_are_told_apart(pg_cluster: Cluster) -> None:
    """Many nodes of one name ping in transactions of their own; none is taken for another's."""
    node = pg_cluster.start(peer=LONG)
    assert node.elect()

    def announce() -> None:
        for _ in range(20):
            node.repo.transaction(_announced_ping(node))

    threads = [threading.Thread(target=announce) for _ in range(4)]
    for thread in threads:
        thread.start()
    with listening(node, "sonar") as heard:
        for thread in threads:
            thread.join()
        node.repo.transaction(_announced_ping(node))
        wait_until(lambda: heard)

    assert node.leads
    assert not node.state.rivals.heard


def test_a_peer_that_begins_between_announcement_and_ping(
    pg_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has missed the announcement, and so hears nothing of the ping that belongs to it."""
    node = pg_cluster.start(peer=LONG)
    assert node.elect()
    first, begun, listens = node.peer, threading.Event(), threading.Event()
    deliver = Delivery.deliver

    def listening_too(actor: GenServer, channels: Sequence[str]) -> None:
        listen(actor, channels)
        if begun.is_set():
            listens.set()

    def halting(self: Delivery, channel: str, text: str, pid: int | None = None) -> bool:
        result = deliver(self, channel, text, pid)
        if channel == "actors" and "pulse" in text and not begun.is_set():
            begun.set()
            first.stop(block=False)
            assert listens.wait(30)
        return result

    monkeypatch.setattr("oban_actors.peers.database.listen", listening_too)
    monkeypatch.setattr(Delivery, "deliver", halting)
    with listening(node, "sonar") as heard:
        node.repo.transaction(_announced_ping(node))
        wait_until(lambda: heard)

    wait_until(lambda: node.peer is not first and node.leads)
    assert not node.state.rivals.heard


def _announced_ping(node: Node) -> Callable[[sa.Connection], None]:
    def work(connection: sa.Connection) -> None:
        mine = {"name": "Oban", "pulse": node.config.node, "token": "t"}
        node.publisher.publish(connection, "actors", [mine])
        node.publisher.publish(connection, "sonar", [{"node": node.config.node, "ping": True}])

    return work
