"""The roster: what is known of claims, whoever asks from which thread."""

import threading
import uuid

import pytest

from oban_actors import job_events
from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.queues.roster import LEAST_BACKLOG, MOST_ACKS, Roster, is_ours, producer_uuid
from tests.queues.claims import claim, ended
from tests.support.events import recording


@pytest.fixture
def roster() -> Roster:
    """A roster of a queue that may run ten jobs."""
    return Roster(Config.build(), "alpha", 10)


def test_an_identity_says_that_it_is_ours() -> None:
    """Our uuids are unique and of a version that Elixir's, of version 4 or 7, never have."""
    made = {producer_uuid() for _ in range(1_000)}

    assert len(made) == 1_000
    assert all(is_ours(each) for each in made)
    assert not is_ours(str(uuid.uuid4()))
    assert not is_ours("web.1")


def test_demand_is_what_the_limit_leaves(roster: Roster) -> None:
    """A run that is over gives its slot back before its acknowledgement is written."""
    claims = [claim(n) for n in range(1, 8)]
    roster.hold(claims)
    assert roster.demand == 3

    roster.finish(ended(claims[0]))

    assert roster.demand == 4
    assert len(roster.held()) == 7
    assert len(roster.running()) == 6


def test_holding_twice_is_once(roster: Roster) -> None:
    """A claim that is held already takes no second slot."""
    one = claim()
    roster.hold([one])
    roster.hold([one])

    assert roster.demand == 9


def test_an_end_with_nothing_to_write_keeps_the_next_from_nobody(roster: Roster) -> None:
    """Nobody takes what is not there, so whoever ends then is told of all the same."""
    told: list[int] = []
    roster.ended = lambda: told.append(1)
    silent, other = claim(1), claim(2)
    roster.hold([silent, other])
    roster.finish(silent)
    roster.finish(ended(other))

    assert len(told) == 2


def test_the_first_end_is_told_and_the_others_are_not(roster: Roster) -> None:
    """Until somebody takes what has ended, nobody needs to be told again."""
    told: list[int] = []
    roster.ended = lambda: told.append(1)
    claims = [claim(n) for n in range(1, 4)]
    roster.hold(claims)
    for one in claims[:2]:
        roster.finish(ended(one))
    assert told == [1]

    roster.take()
    roster.finish(ended(claims[2]))

    assert told == [1, 1]


def test_what_was_taken_comes_back_after_a_failure(roster: Roster) -> None:
    """Acknowledgements that may not have been written are taken again, in the same order."""
    claims = [claim(n) for n in range(1, 4)]
    roster.hold(claims)
    for one in claims[:2]:
        roster.finish(ended(one))
    taken = roster.take()
    roster.finish(ended(claims[2]))
    roster.restore()

    assert taken == claims[:2]
    assert roster.take() == claims


def test_settled_claims_are_held_no_longer(roster: Roster) -> None:
    """But for those whose row was locked: these come again once they are let."""
    claims = [claim(n) for n in range(1, 4)]
    roster.hold(claims)
    for one in claims:
        roster.finish(ended(one))
    roster.take()
    over = roster.settle(blocked={2})

    assert over == [claims[0], claims[2]]
    assert roster.held() == [claims[1]]
    assert roster.unwritten == 0
    roster.unblock()
    assert roster.take() == [claims[1]]


def test_what_was_not_tried_comes_first_and_what_was_refused_last(roster: Roster) -> None:
    """However many are refused, they are in the way of nothing that is not."""
    claims = [claim(n) for n in range(1, 6)]
    roster.hold(claims)
    for one in claims[:3]:
        roster.finish(ended(one))
    roster.take()
    roster.finish(ended(claims[3]))
    assert roster.settle(blocked={1}, left={3}) == [claims[1]]
    assert roster.unwritten == 2
    roster.unblock()
    assert roster.take() == [claims[2], claims[3], claims[0]]

    roster.settle(blocked={1})
    roster.finish(ended(claims[4]))
    roster.restore()
    assert roster.take() == [claims[4], claims[0]]


def test_a_turn_takes_a_bounded_number(roster: Roster) -> None:
    """However many have ended, one transaction writes no more than so many, the oldest first."""
    claims = [ended(claim(n)) for n in range(MOST_ACKS + 5)]
    roster.hold(claims)
    for one in claims:
        roster.finish(one)

    assert roster.take() == claims[:MOST_ACKS]
    roster.settle()
    assert roster.take() == claims[MOST_ACKS:]


def test_two_ends_of_one_job_are_written_one_after_the_other(roster: Roster) -> None:
    """A job that was taken from this node and came back to it: a turn tells ends by their ids."""
    old, other, new = claim(1), claim(2), claim(1)
    roster.hold([old, other, new])
    for one in (new, other, old):
        roster.finish(ended(one))

    assert roster.take() == [new, other]
    roster.settle()
    assert roster.take() == [old]
    roster.settle()
    assert roster.held() == []


def test_a_backlog_of_acknowledgements_stops_fetching(roster: Roster) -> None:
    """What would run again after a kill -9 stays bounded while nothing can be written."""
    claims = [claim(n) for n in range(LEAST_BACKLOG + 1)]
    roster.hold(claims)
    for one in claims[:-1]:
        roster.finish(ended(one))
    assert roster.demand == 9

    roster.finish(ended(claims[-1]))

    assert roster.demand == 0


def test_those_that_can_not_be_written_count(roster: Roster) -> None:
    """Rows that are locked or refused would run again too."""
    claims = [claim(n) for n in range(LEAST_BACKLOG + 1)]
    roster.hold(claims)
    for one in claims:
        roster.finish(ended(one))
    roster.take()
    roster.settle(blocked={one.id for one in claims})

    assert roster.demand == 0
    assert (roster.unwritten, roster.waiting) == (0, LEAST_BACKLOG + 1)
    assert roster.left_over


def test_a_stuck_run_gives_its_slot_back_up_to_the_limit(roster: Roster) -> None:
    """Another job may run in place of each that hangs, but not more than doubly as many."""
    claims = [claim(n) for n in range(30)]
    roster.hold(claims[:10])
    assert roster.demand == 0
    for one in claims[:10]:
        assert roster.mark_stuck(one)
    assert roster.demand == 10
    assert roster.threads == 20
    roster.hold(claims[10:20])
    for one in claims[10:20]:
        roster.mark_stuck(one)

    assert roster.demand == 0
    roster.finish(ended(claims[0]))
    assert len(roster.stuck()) == 19


def test_a_run_that_is_over_is_not_stuck(roster: Roster) -> None:
    """Whoever finds a run out of time too late changes nothing."""
    one = claim()
    roster.hold([one])
    roster.finish(ended(one))

    assert not roster.mark_stuck(one)
    assert roster.stuck() == []


def test_a_run_without_an_acknowledgement_is_let_go(roster: Roster) -> None:
    """A run that the node's end cut off stays executing in the table: nothing is written."""
    one = claim()
    roster.hold([one])
    roster.finish(one)

    assert roster.held() == []
    assert roster.take() == []


def test_a_job_is_kept_only_for_those_who_hear_of_its_end(roster: Roster) -> None:
    """Nobody listens: it is let go of at once, unless it failed; somebody does: it is told."""
    silent, failed, heard = (claim(n) for n in (1, 2, 3))
    failed.error = RuntimeError("boom")
    roster.hold([silent, failed, heard])

    roster.finish(ended(silent))
    ended(failed).verdict = "failure"
    roster.finish(failed)
    with recording("oban.job.stop", "oban.job.exception") as told:
        roster.finish(ended(heard))
        for each in (silent, failed, heard):
            job_events.tell_end(roster.config, each)

    assert silent.forgotten
    assert (silent.id, repr(silent)) == (1, "<Claim 1 success>")
    with pytest.raises(LookupError, match="job 1 has not been read, or is not kept any more"):
        _ = silent.job
    assert [(event.name, event.metadata["id"]) for event in told.all()] == [
        ("oban.job.exception", 2),
        ("oban.job.stop", 3),
    ]


def test_finding_gives_only_what_runs(roster: Roster) -> None:
    """A job that has ended can't be cancelled here any more."""
    one, other = claim(1), claim(2)
    roster.hold([one, other])
    roster.finish(ended(other))

    assert roster.find(1) == [one]
    assert roster.find(2) == []


def test_an_end_counts_from_when_it_was_asked_first(roster: Roster) -> None:
    """Several ask for it, one after the other: the grace period is one for all."""
    first = roster.begin_shutdown()

    assert roster.paused
    assert roster.begin_shutdown() == first


def test_draining_waits_for_the_last_acknowledgement(roster: Roster) -> None:
    """It is over when nothing runs and nothing waits to be written, and not before."""
    one = claim()
    roster.hold([one])
    assert not roster.wait_drained(0.0)
    roster.finish(ended(one))
    assert not roster.wait_drained(0.0)
    roster.take()

    waiter = threading.Thread(target=roster.wait_drained, args=(float("inf"),))
    waiter.start()
    roster.settle()
    waiter.join(30)

    assert not waiter.is_alive()


def test_many_threads_lose_nothing(roster: Roster) -> None:
    """Eight threads finish claims while another takes and settles: each is settled once."""
    claims = [claim(n) for n in range(4_000)]
    roster.hold(claims)
    settled: list[Claim] = []
    over = threading.Event()

    def finish(part: list[Claim]) -> None:
        for one in part:
            roster.finish(ended(one))

    def settle() -> None:
        while not (over.is_set() and not roster.unwritten):
            roster.take()
            settled.extend(roster.settle())

    settler = threading.Thread(target=settle)
    finishers = [threading.Thread(target=finish, args=(claims[n::8],)) for n in range(8)]
    for thread in [settler, *finishers]:
        thread.start()
    for thread in finishers:
        thread.join(60)
    over.set()
    settler.join(60)

    assert len(settled) == len(set(settled)) == 4_000
    assert roster.demand == 10
    assert roster.held() == []
