"""The fence: a leader's duty is done by the leader, or not at all."""

import threading
from datetime import timedelta

import pytest

from oban_actors.actors import SYSTEM_CLOCK
from oban_actors.config import Config
from oban_actors.peers import holds_lease
from oban_actors.repo import Repo
from tests.peers.harness import Cluster
from tests.support.waiting import wait_until


def test_only_the_leader_may_act(cluster: Cluster) -> None:
    """Whoever has the row passes, nobody else does."""
    leader = cluster.start()
    assert leader.leads
    follower = cluster.start()

    assert leader.holds_lease()
    assert not follower.holds_lease()


def test_a_deposed_leader_does_nothing(cluster: Cluster) -> None:
    """From the moment that its row is another's, gone or expired, whatever it still believes."""
    node = cluster.start()
    assert node.leads
    # The renewal that follows its notifier's first connection is over then.
    assert node.elect()

    cluster.execute("UPDATE {table} SET expires_at = {now}")
    assert not node.holds_lease()
    cluster.execute("UPDATE {table} SET node = 'web.9', expires_at = {later}", seconds=60.0)
    assert not node.holds_lease()
    cluster.execute("DELETE FROM {table}")
    assert not node.holds_lease()


def test_a_virtual_clock_stands_in_for_the_databases(cluster: Cluster) -> None:
    """A test's time counts where one is given."""
    node = cluster.start()
    assert node.leads
    now = SYSTEM_CLOCK.now()

    def at(seconds: float) -> bool:
        moment = now + timedelta(seconds=seconds)
        return node.repo.transaction(lambda one: holds_lease(one, node.config, moment))

    assert at(10.0)
    assert not at(60.0)


def test_a_duty_in_flight_holds_off_the_successor(pg_cluster: Cluster) -> None:
    """What began as the leader's is over before another can lead, though the lease expires."""
    first = pg_cluster.start(peer={"lease": 600.0, "renew": 200.0, "advisory_lock": False})
    assert first.leads
    second = pg_cluster.start()
    assert not second.leads
    begun, finish = threading.Event(), threading.Event()

    def duty() -> None:
        with first.repo.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            assert holds_lease(connection, first.config, None)
            begun.set()
            assert finish.wait(60)
            connection.exec_driver_sql("COMMIT")

    thread = threading.Thread(target=duty)
    thread.start()
    assert begun.wait(30)
    pg_cluster.execute("UPDATE {table} SET expires_at = {now}")
    try:
        assert not second.elect()
        assert pg_cluster.holder() == first.identity
    finally:
        finish.set()
        thread.join()
    wait_until(second.elect)


@pytest.mark.parametrize(
    ("peer", "may"),
    [(None, False), ({"kind": "isolated"}, True), ({"kind": "isolated", "leader": False}, False)],
)
def test_an_isolated_peer_needs_no_row(cluster: Cluster, peer: object, *, may: bool) -> None:
    """Whether it may act is its config's to say."""
    config = Config.build(prefix=cluster.database.prefix, peer=peer)
    repo = Repo(cluster.database.url, config)

    assert repo.transaction(lambda connection: holds_lease(connection, config, None)) is may
    repo.close()
