"""The Pulse's decisions: what pings that come back, or don't, say."""

from oban_actors.proof import PATIENCE, STALE_AFTER, Proof


def test_unknown_before_the_first_ping_had_its_time() -> None:
    """Nothing is said before something is known."""
    proof = Proof("me")
    proof.sent()

    assert proof.status(0.0) == "unknown"


def test_own_ping_proves_the_notifier() -> None:
    """Hearing only oneself is solitary."""
    proof = Proof("me")
    proof.sent()
    proof.heard("me", 1.0)

    assert proof.judge() is False
    assert proof.status(1.0) == "solitary"


def test_others_make_a_cluster_until_they_are_stale() -> None:
    """A node that was not heard for long is no longer counted."""
    proof = Proof("me")
    proof.heard("me", 0.0)
    proof.heard("you", 0.0)

    assert proof.status(STALE_AFTER) == "clustered"
    assert proof.status(STALE_AFTER + 1) == "solitary"


def test_a_ping_that_does_not_come_back_is_isolation() -> None:
    """The connection is to be made anew, once, and then only now and then."""
    proof = Proof("me")
    anew = []
    for _ in range(2 * PATIENCE):
        proof.sent()
        anew.append(proof.judge())

    assert proof.status(0.0) == "isolated"
    assert anew[0] is True
    assert anew.count(True) == 3


def test_nothing_sent_is_nothing_missed() -> None:
    """A beat that could not be sent says nothing about listening."""
    proof = Proof("me")
    proof.heard("me", 0.0)

    assert proof.judge() is False
    assert proof.status(0.0) == "solitary"
