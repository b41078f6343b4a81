"""The advisory lock: a dead leader's lease is seized, a living one's is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from oban_actors.messages import LockLost, Notification, Reconnect
from oban_actors.peers.elections import Elections
from oban_actors.peers.identity import LOCKED, lock_key
from oban_actors.peers.lease import Lease
from tests.peers.harness import LONG, Cluster, Node
from tests.support.waiting import wait_until

DEAD = "web.9/oban_actors:dead"

pytestmark = pytest.mark.db


def beat(node: Node, of: str) -> None:
    """Let a node hear a leader's last beat."""
    payload = {"name": "Oban", "beat": of, "next": 0.1}
    node.peer.tell(Notification("actors", payload, 7))


@contextmanager
def somebody_locks(node: Node, conninfo: str) -> Iterator[None]:
    """Have the lock of a node's cluster in a session of somebody else."""
    with psycopg.connect(conninfo, autocommit=True) as session:
        got = session.execute("SELECT pg_try_advisory_lock(%s)", [lock_key(node.config)])
        assert got.fetchone() == (True,)
        yield


def test_a_leader_backs_its_row_with_a_lock(pg_cluster: Cluster) -> None:
    """The row says so as soon as the lock is there, and the lease knows."""
    node = pg_cluster.start(peer=LONG)

    wait_until(lambda: pg_cluster.holder() == node.identity + LOCKED)
    assert node.lease.locked
    assert node.holds_lease()


def test_without_the_option_there_is_no_lock(pg_cluster: Cluster) -> None:
    """The lease alone decides then."""
    node = pg_cluster.start(peer={**LONG, "advisory_lock": False})

    assert node.elect()
    assert pg_cluster.holder() == node.identity


def test_a_lost_lock_takes_the_mark_off_at_once(
    pg_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader leads on by its lease, and marks it again once it has the lock again."""
    node = pg_cluster.start(peer=LONG)
    wait_until(lambda: node.lease.locked)
    term, written, hold = node.lease.term, [], Elections.hold

    def holding(elections: Elections, plan: Any, lease: Lease, now: Any) -> Any:
        written.append(lease.writes)
        return hold(elections, plan, lease, now)

    monkeypatch.setattr(Elections, "hold", holding)
    node.root.tell("notifier", Reconnect())
    # The row says so for some milliseconds only.
    wait_until(lambda: node.identity in written)

    wait_until(lambda: node.elect() and node.lease.locked)

    assert pg_cluster.holder() == node.identity + LOCKED
    assert node.lease.term == term


def test_somebody_elses_lost_lock_changes_nothing(pg_cluster: Cluster) -> None:
    """Only its own key counts."""
    node = pg_cluster.start(peer=LONG)
    wait_until(lambda: node.lease.locked)

    node.peer.tell(LockLost(1))

    assert node.lease.locked


def test_a_dead_leaders_row_is_seized(pg_cluster: Cluster) -> None:
    """Long before it expires, once nothing was heard of it and its lock could be got."""
    pg_cluster.insert(DEAD + LOCKED, 600.0)
    node = pg_cluster.start()
    assert not node.leads
    beat(node, DEAD)

    wait_until(lambda: node.leads)

    assert node.lease.locked
    assert pg_cluster.holder() == node.identity + LOCKED


def test_a_silent_leader_with_its_lock_keeps_its_row(pg_cluster: Cluster, pg_conninfo: str) -> None:
    """It may be slow, or its beats lost; the lock is tried and never waited for."""
    pg_cluster.insert(DEAD + LOCKED, 600.0)
    node = pg_cluster.start()
    assert not node.leads
    with somebody_locks(node, pg_conninfo):
        silent_at = lease_of(node).silent_at
        beat(node, DEAD)
        wait_until(lambda: lease_of(node).silent_at > silent_at + 1.0)
        assert not node.elect()
        assert not node.leads

    wait_until(lambda: node.leads)


def test_a_silent_leader_without_a_lock_keeps_its_row(pg_cluster: Cluster) -> None:
    """That its lock is free says nothing of a leader that never had it."""
    pg_cluster.insert(DEAD, 600.0)
    node = pg_cluster.start()
    assert not node.leads
    beat(node, DEAD)

    looked_at = lease_of(node).acted_at
    wait_until(lambda: lease_of(node).acted_at > looked_at + 1.0)

    assert not node.leads
    assert pg_cluster.holder() == DEAD


def test_an_elixir_leader_is_never_seized(pg_cluster: Cluster) -> None:
    """Whatever its node's name ends with."""
    pg_cluster.insert("web.9:lock", 600.0)
    node = pg_cluster.start(peer={"mode": "equal"})

    beat(node, "web.9")
    assert not node.elect()

    assert lease_of(node).silent_at == float("inf")


def test_a_follower_keeps_no_lock(pg_cluster: Cluster, pg_conninfo: str) -> None:
    """One that conceded gives the lock back, so that whoever leads can have it."""
    node = pg_cluster.start(peer=LONG)
    wait_until(lambda: node.lease.locked)
    pg_cluster.execute("UPDATE {table} SET node = 'web.9'")
    assert not node.elect()

    def free() -> bool:
        try:
            with somebody_locks(node, pg_conninfo):
                return True
        except AssertionError:
            return False

    wait_until(free)


def test_a_peer_that_crashed_leaves_no_lock_behind(pg_cluster: Cluster) -> None:
    """Its successor takes the lock anew, and the handover then frees it."""
    first = pg_cluster.start(peer=LONG)
    wait_until(lambda: first.lease.locked)
    before = first.peer
    first.peer.tell(_poison())
    wait_until(lambda: first.peer is not before)
    wait_until(lambda: first.elect() and first.lease.locked)
    second = pg_cluster.start(peer=LONG)
    assert not second.leads

    pg_cluster.stop(first)

    wait_until(lambda: second.elect() and second.lease.locked)


def _poison() -> Notification:
    # A payload that no mapping is: only a bug could send it.
    return Notification("leader", None, 7)  # type: ignore[arg-type]  # the bug


def lease_of(node: Node) -> Lease:
    """What a node's Peer knows, read from outside."""
    lease = node.peer.actor_inbox.process.actor._lease  # type: ignore[attr-defined]  # from below, or wrong on purpose
    assert isinstance(lease, Lease)
    return lease
