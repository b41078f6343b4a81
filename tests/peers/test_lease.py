"""The lease's decisions: each event alone, and then all of them in any order."""

from dataclasses import replace

import pytest

from oban_actors.peers.identity import LOCKED, is_locked, owner
from oban_actors.peers.lease import (
    FARTHEST,
    FIRST_RETRY,
    OFFER,
    Lease,
)
from oban_actors.peers.rivals import FORGET_AFTER
from oban_actors.peers.silence import AGAIN
from oban_actors.peers.terms import (
    MARGIN,
    Gained,
    Lost,
    Plan,
    Rivalry,
    Row,
    Rules,
    Unlock,
    Withdraw,
)

ME = "web.1/oban_actors:me"
OTHER = "web.1/oban_actors:other"
ELIXIR = "web.1"
RULES = Rules(ME, lease=15.0, renew=5.0)
FAST = replace(RULES, fast=True)
PID = 7


def row(node: str, *, left: float = 15.0, written: str = "w1", term: str = "t1") -> Row:
    """A row as the database would give it."""
    return Row(node, term, written, left)


def leader(rules: Rules = RULES, now: float = 0.0, *, locked: bool = False) -> Lease:
    """A Peer that has just claimed the lease."""
    lease = Lease(rules, locked=locked)
    return lease.won(row(lease.writes), now, now).lease


def follower(node: str = OTHER, rules: Rules = RULES, *, left: float = 10.0) -> Lease:
    """A Peer that has just read somebody else's row at time 0."""
    return Lease(rules).refused(row(node, left=left), 0.0).lease


def test_claims_as_soon_as_it_lives() -> None:
    """The first plan needs no timer."""
    assert Lease(RULES).plan(0.0) is Plan.CLAIM


def test_trusts_its_lease_from_when_the_attempt_began() -> None:
    """A slow success leaves less to trust in, and one that took the whole lease leaves nothing."""
    lease, effects = Lease(RULES).won(row(ME), 0.0, 4.0)

    assert effects == (Gained(),)
    assert lease.leads(15.0 - MARGIN - 0.01)
    assert not lease.leads(15.0 - MARGIN)
    assert Lease(RULES).won(row(ME), 0.0, 14.0).lease.held is None


def test_renews_a_little_before_the_interval_is_over() -> None:
    """The renewal is jittered down, so it never comes late by design."""
    lease = leader()

    assert lease.plan(4.79) is Plan.WAIT
    assert lease.plan(4.8) is Plan.RENEW
    assert lease.next_at(0.0) == pytest.approx(4.8)
    assert lease.next_at(1.0) == pytest.approx(5.0)


def test_renewal_prolongs_the_trust_from_its_own_beginning() -> None:
    """Term and trust follow what was written last."""
    lease = leader().renewed(row(ME, written="w2"), 5.0, 7.0).lease

    assert lease.held is not None
    assert lease.held.written == "w2"
    assert lease.held.trusted_until == 5.0 + 15.0 - MARGIN


def test_concedes_when_the_renewal_answers_after_trust_ran_out() -> None:
    """However well the renewal went: in the meantime the node had to stop."""
    lease, effects = leader().renewed(row(ME, written="w2"), 13.9, 14.0)

    assert lease.held is None
    assert effects == (Lost("its renewal came too late"),)


def test_stops_believing_when_trust_runs_out() -> None:
    """Before it asks anything, and the next election is due at once."""
    lease, effects = leader().checked(14.0)

    assert not lease.leads(14.0)
    assert isinstance(effects[0], Lost)
    assert lease.plan(14.0) is Plan.CLAIM


def test_leads_no_more_once_it_ends() -> None:
    """Its row may be gone while the answer is still awaited; it is to be removed all the same."""
    ended = leader().ended()

    assert not ended.leads(0.0)
    assert ended.may_own
    assert not Lease(RULES).ended().may_own


def test_is_woken_when_trust_runs_out() -> None:
    """Nobody has to ask for it to notice."""
    lease = replace(leader(), wake_at=100.0)

    assert lease.next_at(0.5) == 14.0


def test_concedes_at_once_when_the_renewal_fails() -> None:
    """It can't know whether it holds the lease, so it doesn't; it tries again soon."""
    lease, effects = leader(FAST, locked=True).failed(5.0)

    assert effects == (Lost("its election failed"), Unlock())
    assert lease.held is None
    assert lease.may_own
    assert lease.plan(5.0) is Plan.WAIT
    assert lease.plan(5.0 + FIRST_RETRY) is Plan.CLAIM


def test_backs_off_from_a_failing_database() -> None:
    """The delays double up to the renewal interval, and a success resets them."""
    lease, delays = Lease(RULES), []
    for _ in range(8):
        lease = lease.failed(0.0).lease
        delays.append(lease.wake_at)

    assert delays[:3] == [0.25, 0.5, 1.0]
    assert delays[-1] == RULES.renew
    assert lease.refused(row(OTHER), 0.0).lease.failed(0.0).lease.wake_at == FIRST_RETRY


def test_tries_slowly_while_the_table_is_missing() -> None:
    """A missing table is not looked for more often than a lease lasts."""
    assert Lease(RULES).failed(1.0, missing=True).lease.wake_at == 1.0 + RULES.lease


def test_follows_the_expiry_that_it_read() -> None:
    """Not a blind interval; and never farther than half a minute."""
    assert follower(left=3.0).wake_at == 3.0
    assert follower(left=10_000.0).wake_at == FARTHEST
    assert follower(left=3.0).plan(3.0) is Plan.CLAIM


def test_elects_at_once_when_told_down() -> None:
    """A leader resigned: all others spread their elections over a moment only."""
    lease = follower().down(1.0)

    assert lease.plan(1.0) is Plan.CLAIM
    assert 1.0 <= lease.next_at(1.0) <= 1.05


def test_a_leader_learns_nothing_from_its_own_beats() -> None:
    """It stays as it is, so that its timer is not set anew for each of them."""
    lease = leader()

    assert lease.announced(7, None).beat(RULES.node, 1.0, 2.0) is lease
    assert lease.announced(7, "another").announced(7, None) == lease


def test_down_does_not_make_a_leader_write_all_the_time() -> None:
    """A leader that is told `down` again and again renews at most every second."""
    assert leader(now=3.0).down(3.1).wake_at == 3.0 + AGAIN


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "its row is gone"),
        (row(OTHER), f"{OTHER} holds it"),
        (row(ME, term="t2"), "its row is not what it wrote last"),
        (row(ME, left=-1.0), "its row is not what it wrote last"),
    ],
)
def test_concedes_when_it_finds_a_row_that_it_did_not_write(found: Row | None, why: str) -> None:
    """Gone, another's, of another term, or expired: none of them is the lease it held."""
    lease, effects = leader().not_renewed(found, 5.0)

    assert lease.held is None
    assert effects[0] == Lost(why)
    assert Withdraw() not in effects


def test_deletes_its_row_when_somebody_else_renewed_it() -> None:
    """An old Elixir node that believes it leads is called to an election, and given time for it."""
    held = leader(FAST, locked=True)
    lease, effects = held.not_renewed(row(ME + LOCKED, written="w9"), 5.0)

    assert effects == (Lost("its row is not what it wrote last"), Withdraw(), Unlock())
    assert lease.aside_until == 5.0 + RULES.lease / 3
    assert lease.down(5.1).plan(5.2) is Plan.WAIT
    assert lease.hurried(5.1).plan(5.2) is Plan.LOOK
    assert lease.plan(lease.aside_until) is Plan.CLAIM


def test_remembers_that_a_row_could_not_be_removed() -> None:
    """It is removed with the next claim, or when the Peer ends."""
    assert Lease(RULES).not_withdrawn().may_own


# Elixir nodes


def test_offers_leadership_to_an_elixir_node() -> None:
    """It resigns, tells, stands back, and competes again after three seconds; once a node."""
    lease, effects = leader(FAST, locked=True).pinged(PID, ELIXIR, 1.0)

    assert effects == (Lost("it is offered to an Elixir node"), Withdraw(), Unlock())
    assert lease.down(1.1).plan(1.0 + OFFER - 0.1) is Plan.WAIT
    assert lease.plan(1.0 + OFFER) is Plan.CLAIM
    again = lease.won(row(ME), 4.0, 4.0).lease
    assert again.pinged(PID, ELIXIR, 60.0).lease.held is not None
    assert again.pinged(PID, "web.2", 5.0).lease.held is None


def test_forgets_an_elixir_node_that_fell_silent() -> None:
    """When it comes back after two minutes it is a new one."""
    lease = leader().pinged(PID, ELIXIR, 1.0).lease.checked(1.0 + FORGET_AFTER + 1).lease
    lease = lease.won(row(ME), 122.0, 122.0).lease

    assert lease.pinged(PID, ELIXIR, 122.5).effects[1] == Withdraw()


def test_knows_python_nodes_by_their_announcement() -> None:
    """A ping right behind an announcement of the same session is ours, whatever its name."""
    lease = leader()

    assert lease.announced(PID, ELIXIR).pinged(PID, ELIXIR, 1.0).lease.held is not None
    assert lease.announced(8, ELIXIR).pinged(PID, ELIXIR, 1.0).lease.held is None
    assert lease.announced(PID, "web.2").pinged(PID, ELIXIR, 1.0).lease.held is None
    twice = lease.announced(PID, ELIXIR).pinged(PID, ELIXIR, 1.0).lease
    assert twice.pinged(PID, ELIXIR, 2.0).lease.held is None


def test_knows_no_elixir_node_without_a_session() -> None:
    """Where notifications don't say who sent them there are no Elixir nodes."""
    assert leader().pinged(None, ELIXIR, 1.0).lease.held is not None
    passed = leader().announced(PID, ELIXIR).announced(None, None).pinged(PID, ELIXIR, 1.0)
    assert passed.lease.held is not None


def test_offers_a_free_lease_before_it_takes_it() -> None:
    """A follower that knows of Elixir nodes calls them first, and then waits."""
    lease = follower(left=2.0).pinged(PID, ELIXIR, 1.0).lease

    assert lease.plan(2.0) is Plan.LOOK
    lease, effects = lease.looked(None, 2.0)
    assert effects == (Withdraw(),)
    assert lease.plan(2.0 + OFFER - 0.1) is Plan.WAIT
    assert lease.plan(2.0 + OFFER) is Plan.CLAIM


def test_offers_anew_when_an_elixir_leader_has_gone() -> None:
    """Whoever did not take it the last time gets another chance after one of them led."""
    lease = leader().pinged(PID, ELIXIR, 1.0).lease.refused(row(ELIXIR, left=30.0), 1.1).lease

    assert lease.rivals.waiting
    assert lease.plan(31.1) is Plan.LOOK
    assert Withdraw() in lease.looked(row(ELIXIR, left=-0.1), 31.2).effects


def test_offers_again_when_the_offer_did_not_get_through() -> None:
    """A failed resignation is no offer."""
    lease = leader().pinged(PID, ELIXIR, 1.0).lease.not_withdrawn()

    assert lease.rivals.waiting


def test_competes_in_mode_equal_and_says_so_once() -> None:
    """Leadership is kept, with one warning that Elixir's cron stops."""
    lease, effects = leader(replace(RULES, yields=False)).pinged(PID, ELIXIR, 1.0)

    assert effects == (Rivalry(ELIXIR),)
    assert lease.held is not None
    assert lease.pinged(PID, "web.2", 2.0).effects == ()
    equal = Lease(replace(RULES, yields=False))
    assert equal.refused(row(ELIXIR), 0.0).effects == (Rivalry(ELIXIR),)


@pytest.mark.parametrize(
    ("node", "whose", "locked"),
    [
        (ME, ME, False),
        (ME + LOCKED, ME, True),
        (ELIXIR, None, False),
        ("web:lock", None, False),
        ("", None, False),
    ],
)
def test_reads_a_holder(node: str, whose: str | None, *, locked: bool) -> None:
    """Only our own names have an owner, and only theirs a mark that counts."""
    assert owner(node) == whose
    assert is_locked(node) is locked
