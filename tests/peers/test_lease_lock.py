"""The lease's decisions about the advisory lock, and about holders that beat or fall silent."""

from oban_actors.peers.identity import LOCKED
from oban_actors.peers.lease import FARTHEST
from oban_actors.peers.silence import AGAIN, FIRST_BEAT, GRACE
from oban_actors.peers.terms import Plan, Unlock
from tests.peers.test_lease import FAST, ME, OTHER, follower, leader, row


def test_tries_the_lock_once_the_row_stands() -> None:
    """The row can say that a lock backs it only when it does, so it is renewed at once."""
    lease = leader(FAST)

    assert lease.plan(0.0) is Plan.RENEW
    assert lease.wants_lock
    assert lease.tried(0.0, got=True).lease.writes == ME + LOCKED
    assert lease.tried(0.0, got=False).lease.writes == ME


def test_takes_its_mark_off_when_the_lock_went() -> None:
    """At once, and before the lock is tried again."""
    lease = leader(FAST, locked=True).lock_lost(1.0)

    assert lease.plan(1.0) is Plan.RENEW
    assert not lease.wants_lock
    assert lease.writes == ME


def test_looks_and_gives_the_lock_back_when_reconnected() -> None:
    """Whatever was missed meanwhile is read from the table, and a lock is never counted twice."""
    lease, effects = leader(FAST, locked=True).reconnected(1.0)

    assert effects == (Unlock(),)
    assert lease.plan(1.0) is Plan.RENEW
    assert follower().reconnected(1.0).lease.plan(1.0) is Plan.CLAIM


def test_tries_the_lock_of_a_silent_leader_and_seizes() -> None:
    """Only the lock, and only of a row that says it is backed by one, allows to seize it."""
    lease = follower(OTHER + LOCKED, FAST).beat(OTHER, 1.0, 1.0)

    assert lease.plan(2.0 + GRACE - 0.01) is Plan.WAIT
    assert lease.plan(2.0 + GRACE) is Plan.LOCK
    got = lease.tried(2.3, got=True).lease
    assert got.plan(2.3) is Plan.CLAIM
    assert got.prey == OTHER + LOCKED
    assert got.writes == ME + LOCKED
    assert got.refused(row(OTHER), 2.4).effects == (Unlock(),)


def test_carries_on_when_the_silent_leader_has_its_lock() -> None:
    """It is tried again after a second, as long as the silence lasts."""
    lease = follower(OTHER + LOCKED, FAST).beat(OTHER, 1.0, 1.0).tried(2.3, got=False).lease

    assert lease.plan(2.3 + AGAIN - 0.01) is Plan.WAIT
    assert lease.plan(2.3 + AGAIN) is Plan.LOCK
    assert lease.beat(OTHER, 1.0, 2.4).plan(2.3 + AGAIN) is Plan.WAIT


def test_reads_the_row_again_before_it_doubts_a_leader_without_a_lock() -> None:
    """The mark may have come after the row was read; without it only the expiry counts."""
    lease = follower(OTHER, FAST).beat(OTHER, 1.0, 1.0)

    assert lease.plan(2.4) is Plan.CLAIM
    assert lease.prey is None
    assert lease.refused(row(OTHER + LOCKED), 2.4).lease.plan(2.4) is Plan.LOCK
    assert lease.refused(row(OTHER), 2.4).lease.plan(2.5) is Plan.WAIT


def test_doubts_nobody_before_a_first_beat_was_due() -> None:
    """One whose row was just read gets a little longer than beats are apart."""
    assert follower(OTHER + LOCKED, FAST).silent_at == FIRST_BEAT


def test_knows_no_silence_without_locks() -> None:
    """Where locks are not to be had, the lease alone decides."""
    assert follower(OTHER + LOCKED).beat(OTHER, 0.1, 0.0).plan(9.9) is Plan.WAIT


def test_bounds_what_a_beat_may_promise() -> None:
    """A leader that promises its next beat in an hour is not believed that long."""
    lease = follower(OTHER + LOCKED, FAST).beat(OTHER, 3600.0, 1.0)

    assert lease.silent_at == 1.0 + FAST.renew + GRACE


def test_a_renewal_that_was_heard_of_saves_a_look() -> None:
    """The row stands for as long as that says; a beat that renews nothing says nothing of it."""
    lease = follower(OTHER + LOCKED, FAST)
    assert lease.beat(OTHER, 1.0, 4.0).wake_at == 10.0

    heard = lease.beat(OTHER, 1.0, 4.0, 15.0)
    assert heard.wake_at == 19.0
    assert heard.beat(OTHER, 1.0, 18.0).plan(18.9) is Plan.WAIT
    assert heard.beat(OTHER, 1.0, 18.0).plan(19.0) is Plan.CLAIM
    assert heard.plan(5.3) is Plan.LOCK


def test_it_looks_at_times_whatever_it_hears() -> None:
    """It takes nobody's word for longer than half a minute, nor for nonsense."""
    lease = follower(OTHER + LOCKED, FAST)
    for now in range(1, 30):
        lease = lease.beat(OTHER, 1.0, float(now), 15.0)
    assert lease.wake_at == FARTHEST
    assert lease.beat(OTHER, 1.0, FARTHEST, 15.0).plan(FARTHEST) is Plan.CLAIM

    for told in (-1.0, float("nan"), float("-inf"), -(10**400), 0, None):
        assert follower(OTHER + LOCKED, FAST).beat(OTHER, 1.0, 4.0, told).wake_at == 10.0
    for told in (1e300, float("inf"), 10**400):
        assert follower(OTHER + LOCKED, FAST).beat(OTHER, 1.0, 4.0, told).wake_at == FARTHEST


def test_a_look_that_was_called_for_is_not_put_off() -> None:
    """A renewal that was on its way when the leader resigned is no reason to wait."""
    lease = follower(OTHER + LOCKED, FAST).down(4.0).beat(OTHER, 1.0, 4.0, 15.0)

    assert lease.plan(4.0) is Plan.CLAIM
    assert lease.next_at(1.0) <= 4.1


def test_where_beats_are_not_counted_on_the_row_is_read() -> None:
    """Without locks nobody would notice that they stop."""
    assert follower(OTHER + LOCKED).beat(OTHER, 1.0, 4.0, 15.0).wake_at == 10.0


def test_looks_when_somebody_unexpected_beats() -> None:
    """A leader renews, a follower reads, at most once a second; its own beats say nothing."""
    assert leader().beat(ME, 1.0, 0.5) == leader()
    assert leader().beat(OTHER, 1.0, 0.5).plan(AGAIN) is Plan.RENEW
    assert follower().beat("web.2/oban_actors:third", 1.0, 0.5).plan(AGAIN) is Plan.CLAIM
