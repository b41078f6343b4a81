"""Rows that outlive their holders, because the database's clock was set back."""

import logging
from dataclasses import replace

import pytest

from oban_actors.options import MAX_LEASE
from oban_actors.peers import lease as lease_module
from oban_actors.peers import standing
from oban_actors.peers.identity import owner
from oban_actors.peers.lease import FARTHEST, Lease
from oban_actors.peers.standing import DEAD_AFTER, GAP
from oban_actors.peers.terms import Gained, Plan, Row, Stranded, Withdraw
from tests.peers.harness import Cluster
from tests.peers.test_lease import ELIXIR, ME, OTHER, PID, RULES, follower, row
from tests.support.waiting import wait_until

HOURS = 7200.0


def watching(lease: Lease, seconds: float, found: Row, *, since: float = 0.0) -> Lease:
    """Let a follower look at the same row as often as it does, for so many seconds."""
    now = since
    while now < since + seconds:
        now = min(now + FARTHEST, since + seconds)
        lease = lease.refused(found, now).lease
    return lease


def test_takes_over_from_a_holder_that_nobody_can_believe_in() -> None:
    """No lease lasts for so long without a renewal, which would have changed the row."""
    found = row(OTHER, left=HOURS)
    lease = watching(follower(left=HOURS), DEAD_AFTER - 0.1, found)
    assert lease.dead(DEAD_AFTER - 0.1) is None

    lease = lease.refused(found, DEAD_AFTER).lease
    assert lease.dead(DEAD_AFTER) == found
    assert lease.plan(lease.wake_at) is Plan.CLAIM


@pytest.mark.parametrize("changed", ["written", "term", "node"])
def test_watches_anew_whatever_changed(changed: str) -> None:
    """Somebody wrote it: the holder renewed it, or another one took it."""
    lease = watching(follower(left=HOURS), DEAD_AFTER - 1, row(OTHER, left=HOURS))
    found = {
        "written": row(OTHER, left=HOURS, written="w2"),
        "term": row(OTHER, left=HOURS, term="t2"),
        "node": row("web.1/oban_actors:third", left=HOURS),
    }[changed]
    lease = watching(lease, 2.0, found, since=DEAD_AFTER - 1)

    assert lease.dead(DEAD_AFTER + 1) is None


def test_its_own_sleep_is_no_watching() -> None:
    """Whoever was stopped begins anew, and acts on nothing that it knew before."""
    found = row(OTHER, left=HOURS)
    lease = watching(follower(left=HOURS), DEAD_AFTER, found)
    woken = DEAD_AFTER + GAP + 1
    assert lease.dead(woken) is None

    assert watching(lease, DEAD_AFTER - 1, found, since=woken).dead(woken + DEAD_AFTER - 1) is None


def test_the_row_of_an_elixir_node_is_not_judged() -> None:
    """What its leases last is not for us to say; the operator is told."""
    found = row(ELIXIR, left=HOURS)
    lease, effects = Lease(RULES).refused(found, 0.0)

    assert effects == (Stranded(ELIXIR, HOURS),)
    assert watching(lease, 2 * DEAD_AFTER, found).dead(2 * DEAD_AFTER) is None


def test_says_once_that_a_row_ends_too_far_ahead() -> None:
    """Until one that does not was seen; the longest lease of ours is no reason to."""
    lease, effects = Lease(RULES).refused(row(OTHER, left=HOURS), 0.0)
    assert effects == (Stranded(OTHER, HOURS),)
    lease, effects = lease.refused(row(OTHER, left=HOURS - 30), 30.0)
    assert effects == ()

    lease, effects = lease.refused(row(OTHER, left=MAX_LEASE), 60.0)
    assert effects == ()
    assert lease.refused(row(OTHER, left=HOURS), 90.0).effects == (Stranded(OTHER, HOURS),)


def test_offers_such_a_lease_to_elixir_first() -> None:
    """As any free one."""
    found = row(OTHER, left=HOURS)
    lease = follower(left=HOURS).pinged(PID, ELIXIR, 1.0).lease
    lease = watching(lease, DEAD_AFTER, found)
    assert lease.plan(lease.wake_at) is Plan.LOOK

    lease, effects = lease.looked(found, DEAD_AFTER + 1)
    assert effects == (Withdraw(),)
    assert lease.plan(lease.aside_until) is Plan.CLAIM
    assert lease.dead(lease.aside_until) == found
    assert lease.won(row(ME), lease.aside_until, lease.aside_until).effects == (Gained(),)


def test_a_dead_holder_whose_row_ends_in_hours_is_replaced(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said that the row is strange, and nobody has to remove it."""
    monkeypatch.setattr(standing, "DEAD_AFTER", 1.0)
    monkeypatch.setattr(lease_module, "FARTHEST", 0.1)
    cluster.insert(OTHER, HOURS)
    with caplog.at_level(logging.WARNING, logger="oban_actors"):
        node = cluster.start(peer={"mode": "equal"})
        assert not node.leads

        wait_until(lambda: node.leads)

    assert owner(cluster.holder() or "") == node.identity
    said = [each for each in caplog.messages if "was the database's clock set back?" in each]
    assert len(said) == 1
    assert OTHER in said[0]


def test_a_row_that_was_renewed_meanwhile_is_not_removed(cluster: Cluster) -> None:
    """What was seen is compared once more where it counts: in the transaction that removes it."""
    cluster.insert(OTHER, HOURS)
    node = cluster.start()
    wait_until(lambda: node.state.seen is not None)
    table, seen = node.state.standing, node.state.seen
    assert seen is not None
    assert table.row == seen
    cluster.execute("UPDATE {table} SET expires_at = {later}", seconds=HOURS + 1)
    elections = node.elections

    won, found = elections.hold(
        Plan.CLAIM, replace(node.state, standing=long_ago(table.row)), DEAD_AFTER
    )

    assert not won
    assert found is not None
    assert found.node == OTHER
    won, _ = elections.hold(Plan.CLAIM, replace(node.state, standing=long_ago(found)), DEAD_AFTER)
    assert won


def long_ago(found: Row) -> standing.Standing:
    """What a follower knows that has watched a row for long enough."""
    return standing.Standing(found, since=0.0, looked_at=DEAD_AFTER)
