"""The Sieve by itself: whatever is refused, it finds it, and leaves out no other."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.job import JobState
from oban_actors.queues.sieve import Sieve, by_savepoints
from oban_actors.sifting import MOST_REFUSED

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
REFUSAL = sa.exc.IntegrityError("UPDATE", {}, ValueError("not this one"))
OUTAGE = sa.exc.OperationalError("UPDATE", {}, ValueError("away"))
FETCHED = cast("Any", SimpleNamespace(rows=[1]))


def acks(count: int) -> list[Ack]:
    """Make acknowledgements of jobs 0 and so on."""
    return [Ack(number, NOON, JobState.COMPLETED) for number in range(count)]


def sieve(bad: set[int], *, claimable: int = 100, error: Exception = REFUSAL) -> Sieve:
    """Sift on a database that refuses these, and to claim more than so many."""

    def take(some: Sequence[Ack], limit: int) -> Turn:
        if bad.intersection(ack.job_id for ack in some) or limit > claimable:
            raise error
        none: frozenset[int] = frozenset()
        own = frozenset(ack.job_id for ack in some if ack.completed)
        return Turn(frozenset(ack.job_id for ack in some), none, none, FETCHED, own)

    connection = SimpleNamespace(
        begin_nested=nullcontext,
        dialect=SimpleNamespace(name="sqlite"),
        connection=SimpleNamespace(driver_connection=None),
    )
    return Sieve(take, by_savepoints(cast("sa.Connection", connection)))


@given(count=st.integers(0, 60), bad=st.sets(st.integers(0, 59), max_size=10))
def test_it_finds_what_is_refused(count: int, bad: set[int]) -> None:
    """All others are written, and the refused ones are blocked."""
    one = sieve(bad)
    turn = one.turn(acks(count), 5)
    guilty = bad & set(range(count))

    assert set(one.refused) == turn.blocked == guilty
    assert turn.settled == set(range(count)) - guilty
    assert turn.fetched is FETCHED
    assert one.unclaimable is None


def test_it_tells_whose_workers_completed_them() -> None:
    """What the parts of a turn found is found by the whole."""
    some = [Ack(n, NOON, JobState.RETRYABLE, completed=n in (1, 4)) for n in range(6)]

    assert sieve({2}).turn(some, 0).completed == {1, 4}


@pytest.mark.parametrize("claimable", [0, 1, 3, 10])
def test_it_claims_what_can_be_claimed(claimable: int) -> None:
    """Less and less, and none where already the next one is refused."""
    one = sieve({1}, claimable=claimable)
    turn = one.turn(acks(3), 10)

    assert turn.settled == {0, 2}
    assert (one.unclaimable is REFUSAL) is (claimable == 0)


def test_one_turn_looks_for_so_many_and_leaves_the_rest() -> None:
    """However many are refused it ends, and claims; what it did not come to is not blocked."""
    one = sieve(set(range(100)))
    turn = one.turn(acks(100), 5)

    assert len(one.refused) == MOST_REFUSED
    assert turn.blocked == set(one.refused)
    assert turn.left == set(range(100)) - turn.blocked
    assert turn.settled == frozenset()
    assert turn.fetched is FETCHED


@given(bad=st.sets(st.integers(0, 49), max_size=50))
def test_turn_after_turn_all_others_are_written(bad: set[int]) -> None:
    """Each finds some that are refused or is the last, whatever their order."""
    left = acks(50)
    written: set[int] = set()
    turns = 0
    while left:
        turns += 1
        turn = sieve(bad).turn(left, 0)
        written |= turn.settled
        assert turn.settled | turn.blocked | turn.left == {ack.job_id for ack in left}
        left = [ack for ack in left if ack.job_id in turn.left]

    assert written == set(range(50)) - bad
    assert turns <= len(bad) // MOST_REFUSED + 1


def test_an_outage_is_no_refusal() -> None:
    """What the database can't do at all is not looked for among rows."""
    with pytest.raises(sa.exc.OperationalError):
        sieve({1}, error=OUTAGE).turn(acks(3), 0)
