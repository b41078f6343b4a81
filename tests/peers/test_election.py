"""One leader: taking, keeping, losing and handing over the lease, on both databases."""

import threading
from collections.abc import Callable
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import SYSTEM_CLOCK, VirtualClock
from oban_actors.messages import Notification
from oban_actors.peers import DatabasePeer
from oban_actors.peers.lease import FARTHEST
from tests.peers.harness import LONG, Cluster, Node, listening, moment
from tests.support.events import Event, Recorder
from tests.support.waiting import wait_until

STOP = "oban.peer.election.stop"


def changed(*, leader: bool) -> Callable[[Event], bool]:
    """Pick the events by which leadership began or ended."""
    return lambda event: (
        event.metadata["leader"] is leader and event.metadata["was_leader"] is not leader
    )


def test_a_single_node_leads_at_once(cluster: Cluster, events: Recorder) -> None:
    """Asked right after the start it leads, says so, and stands in the table by its identity."""
    node = cluster.start()

    assert node.leads
    assert node.leader is not None
    assert node.leader.removesuffix(":lock") == node.identity
    assert (cluster.holder() or "").removesuffix(":lock") == node.identity
    view = node.lease
    assert view.leader
    assert view.term is not None
    assert 5.0 < view.trusted_for <= 14.0
    event = events.wait_for(STOP, changed(leader=True))
    assert event.metadata["peer"] is DatabasePeer
    assert event.metadata["conf"] is node.config
    assert event.measurements["duration"] > 0


def test_of_three_exactly_one_leads(cluster: Cluster) -> None:
    """However often they elect, it stays one, and all know who."""
    nodes = [cluster.start() for _ in range(3)]
    leader = cluster.wait_for_leader()

    for _ in range(5):
        assert [node.elect() for node in nodes] == [node is leader for node in nodes]
    known = {(node.leader or "").removesuffix(":lock") for node in nodes}
    assert known == {leader.identity}


def test_instances_of_other_names_have_leaders_of_their_own(cluster: Cluster) -> None:
    """The lease is per name."""
    assert cluster.start(name="Oban").leads
    assert cluster.start(name="Other").leads


def test_a_leader_that_stops_hands_over(cluster: Cluster) -> None:
    """Told `down`, another takes the lease long before it would have expired."""
    first = cluster.start(peer=LONG)
    assert first.leads
    second, third = cluster.start(peer=LONG), cluster.start(peer=LONG)
    assert not second.leads
    assert not third.leads

    cluster.stop(first)

    leader = cluster.wait_for_leader()
    assert leader in (second, third)
    assert (cluster.holder() or "").removesuffix(":lock") == leader.identity


def test_followers_hear_a_leader_that_stops(cluster: Cluster) -> None:
    """One that would look in half a minute, and has no lock to tell by, leads at once."""
    options = {**LONG, "advisory_lock": False}
    first = cluster.start(peer=options)
    assert first.leads
    second, third = cluster.start(peer=options), cluster.start(peer=options)
    wait_until_asleep(second)
    wait_until_asleep(third)

    cluster.stop(first)

    wait_until(lambda: second.leads or third.leads, timeout=FARTHEST / 3)


def wait_until_asleep(node: Node) -> None:
    """Wait until a follower's notifier listens, and it has looked for that reason too."""
    with listening(node, "leader"):
        tree = node.root.tree

        def rests(name: str) -> bool:
            found = tree().find(name)
            return found is not None and found.state == "idle" and not found.inbox

        def asleep() -> bool:
            waits = node.state.next_at(0.0) - SYSTEM_CLOCK.boottime()
            return rests("notifier") and rests("peer") and waits > FARTHEST * 2 / 3

        wait_until(asleep, message="no election is due soon")


def test_a_follower_that_stops_changes_nothing(cluster: Cluster) -> None:
    """It neither removes the row nor calls for an election."""
    first = cluster.start()
    term = first.lease.term
    second = cluster.start()
    assert not second.leads

    with listening(first, "leader") as heard:
        cluster.stop(second)
        assert first.elect()

    assert first.lease.term == term
    assert not heard


def test_an_expired_row_is_taken(cluster: Cluster) -> None:
    """Whoever left it."""
    cluster.insert("web.9", -1.0)

    assert cluster.start().leads


def test_a_foreign_row_is_respected_until_it_expires(cluster: Cluster) -> None:
    """The follower is armed to the expiry that it read, and takes it then, not before."""
    cluster.insert("web.9", 6.0)
    expires = cluster.execute("SELECT expires_at FROM {table}")[0][0]
    node = cluster.start(peer={**LONG, "mode": "equal"})
    assert not node.leads
    assert node.leader == "web.9"

    wait_until(lambda: node.leads)

    started = cluster.execute("SELECT started_at FROM {table}")[0][0]
    assert moment(started) >= moment(expires)


def test_a_leader_renews_for_as_long_as_it_lives(cluster: Cluster, events: Recorder) -> None:
    """Over many renewals the term stays, nobody else leads, and expiry moves on."""
    options = {"lease": 6.0, "renew": 0.25}
    leader = cluster.start(peer=options)
    assert leader.leads
    cluster.start(peer=options)
    term = leader.lease.term

    events.wait_for_count(15, STOP, lambda event: event.metadata["was_leader"])

    assert leader.leads
    assert leader.lease.term == term
    assert not events.all(STOP, changed(leader=False))


def test_a_leader_whose_row_is_gone_concedes_and_begins_a_new_term(
    cluster: Cluster, events: Recorder
) -> None:
    """What it held is over, and what it takes then is another lease."""
    node = cluster.start()
    term = node.lease.term
    cluster.execute("DELETE FROM {table}")

    wait_until(lambda: node.elect() and node.lease.term != term)

    events.wait_for(STOP, changed(leader=False))


def test_a_leader_that_finds_another_in_its_row_concedes(cluster: Cluster) -> None:
    """And leaves the other's row alone, told `down` or not."""
    node = cluster.start()
    assert node.leads
    cluster.execute("UPDATE {table} SET node = 'web.9'")

    assert not node.elect()

    assert node.leader == "web.9"
    node.peer.tell(Notification("leader", {"down": "Oban"}, 7))
    assert not node.elect()
    cluster.stop(node)
    assert cluster.holder() == "web.9"


def test_nodes_of_the_same_name_never_share_the_lease(cluster: Cluster) -> None:
    """Two processes of one host are two nodes, whatever their node's name."""
    first = cluster.start(node="web.1")
    assert first.leads
    second = cluster.start(node="web.1")

    for _ in range(5):
        assert first.elect()
        assert not second.elect()
    assert not second.holds_lease()


def test_a_late_renewal_concedes(cluster: Cluster, events: Recorder) -> None:
    """A leader that was held up beyond its trust stops, although its row was still there."""
    _late(cluster, events, 14.5)


def test_a_renewal_after_the_lease_concedes(cluster: Cluster, events: Recorder) -> None:
    """Likewise when its row has expired meanwhile."""
    _late(cluster, events, 20.0)


def _late(cluster: Cluster, events: Recorder, seconds: float) -> None:
    clock = VirtualClock()
    node = cluster.start(clock=clock, peer={"advisory_lock": False})
    assert node.leads
    term = node.lease.term
    held, go_on = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        held.set()
        assert go_on.wait(60)

    telemetry.attach("hold", "oban.peer.election.start", hold)
    clock.advance(5.0)
    assert held.wait(30)
    telemetry.detach("hold")
    clock.advance(seconds)
    go_on.set()

    events.wait_for(STOP, changed(leader=False))
    wait_until(node.elect)
    assert node.lease.term != term


def test_trust_that_ran_out_is_noticed_without_being_asked(
    cluster: Cluster, events: Recorder
) -> None:
    """Even when no renewal ran: the answer is no from that moment on."""
    clock = VirtualClock()
    node = cluster.start(clock=clock, peer={"advisory_lock": False})
    assert node.leads
    cluster.execute("UPDATE {table} SET node = 'web.9', expires_at = {later}", seconds=9999)

    clock.advance(15.0)

    events.wait_for(STOP, changed(leader=False))
    assert not node.leads
    assert not node.holds_lease()


def test_an_elixir_node_that_renews_our_row_is_called_to_an_election(cluster: Cluster) -> None:
    """The row is deleted, `down` told, and the lease left alone for a while."""
    clock = VirtualClock()
    node = cluster.start(clock=clock)
    assert node.leads
    cluster.execute("UPDATE {table} SET expires_at = {later}", seconds=30.0)

    with listening(node, "leader") as heard:
        assert not node.elect()
        wait_until(lambda: {"down": "Oban"} in heard)

    assert cluster.holder() is None
    assert not node.elect()
    assert cluster.holder() is None
    clock.advance(5.1)
    wait_until(lambda: node.leads)


def test_an_elixir_node_that_takes_the_deleted_row_keeps_it(cluster: Cluster) -> None:
    """The node that stood back follows the row it then finds."""
    clock = VirtualClock()
    node = cluster.start(clock=clock)
    assert node.leads
    cluster.execute("UPDATE {table} SET expires_at = {later}", seconds=30.0)
    assert not node.elect()
    cluster.insert("web.9", 600.0)

    clock.advance(6.0)

    wait_until(lambda: node.leader == "web.9")
    assert not node.elect()
    assert cluster.holder() == "web.9"
