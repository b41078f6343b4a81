"""Turns of producers: claims and acknowledgements."""

from datetime import UTC, datetime, timedelta

import pytest

from oban_actors.claim import Claimant
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.turning import ERROR, Hand, ack

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = Claimant("web.2", "00000000-0000-8000-8000-000000000002")


@pytest.fixture
def hand(store: Store) -> Hand:
    """A producer of the queue `default`."""
    return Hand(store)


def test_claims(store: Store, hand: Hand) -> None:
    """A claimed job is returned as its row now is, with one time for all of a turn."""
    first, second = store.insert(
        Job.new({"n": 1}, worker="w", tags=["a"], meta={"m": [1]}, priority=1),
        Job.new({"n": 2}, worker="w", priority=2),
    )

    jobs = hand.fetch()

    assert [job.id for job in jobs] == [first.id, second.id]
    assert jobs == [store.get(first), store.get(second)]
    assert jobs[0].attempted_by == ["web.1", hand.claimant.uuid]
    assert (jobs[0].state, jobs[0].attempt) == ("executing", 1)
    assert jobs[0].attempted_at == jobs[1].attempted_at
    assert hand.fetch() == []


def test_order(store: Store, hand: Hand) -> None:
    """Jobs come by priority, then by when they were due, then by id, and no more than asked."""
    given = store.insert(
        *(
            Job.new(
                worker="w", priority=n, state="available", scheduled_at=NOON + timedelta(seconds=s)
            )
            for n, s in ((3, 0), (0, 5), (0, 1), (9, 0), (0, 1), (3, -5))
        )
    )
    expected = [given[place].id for place in (2, 4, 1, 5, 0, 3)]

    got = [job.id for _ in range(3) for job in hand.fetch(2)]

    assert got == expected


def test_completes(store: Store, hand: Hand) -> None:
    """What is acknowledged as completed is, at the turn's time, while the next is claimed."""
    store.insert(*(Job.new({"n": n}, worker="w") for n in range(4)))
    first = hand.fetch(2)

    turn = hand.turn([ack(job) for job in first], 2, NOON)

    assert turn.settled == {job.id for job in first}
    assert turn.stale == turn.blocked == frozenset()
    assert [job.args["n"] for job in turn.jobs] == [2, 3]
    done = store.get(first[0])
    assert (done.state, done.completed_at, done.errors) == ("completed", NOON, [])
    assert done.attempted_at == first[0].attempted_at


def test_every_end(store: Store, hand: Hand) -> None:
    """Each state is written with its time, its error and its delay, all in one turn."""
    store.insert(*(Job.new({"n": n}, worker="w", meta={"m": 1}) for n in range(5)))
    jobs = hand.fetch()
    for state, job in zip(
        ("completed", "cancelled", "discarded", "retryable", "scheduled"), jobs, strict=True
    ):
        error = ERROR if state in ("cancelled", "discarded", "retryable") else None
        job.meta["ack"] = ack(job, state, error=error, delay=7.5)

    turn = hand.turn([job.meta["ack"] for job in jobs], now=NOON)

    assert turn.settled == {job.id for job in jobs}
    completed, cancelled, discarded, retryable, snoozed = (store.get(job) for job in jobs)
    assert (completed.state, completed.completed_at) == ("completed", NOON)
    assert (cancelled.state, cancelled.cancelled_at) == ("cancelled", NOON)
    assert (discarded.state, discarded.discarded_at) == ("discarded", NOON)
    later = NOON + timedelta(seconds=7.5)
    assert (retryable.state, retryable.scheduled_at, retryable.attempt) == ("retryable", later, 1)
    assert (snoozed.state, snoozed.scheduled_at, snoozed.attempt) == ("scheduled", later, 0)
    assert snoozed.meta == {"m": 1, "snoozed": 1}
    assert [job.errors for job in (completed, cancelled, discarded, retryable, snoozed)] == [
        [],
        [ERROR],
        [ERROR],
        [ERROR],
        [],
    ]
