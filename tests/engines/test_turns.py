"""Turns of producers: claims and acknowledgements."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_actors.claim import Claimant
from oban_actors.job import Job, JobState
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
    states = ("completed", "cancelled", "discarded", "retryable", "scheduled")
    most = {"discarded": 1}
    store.insert(
        *(
            Job.new({}, worker="w", meta={"m": 1}, max_attempts=most.get(state, 20))
            for state in states
        )
    )
    jobs = hand.fetch()
    for state, job in zip(states, jobs, strict=True):
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


def test_nothing_to_do(hand: Hand) -> None:
    """A turn without acknowledgements and demand is empty."""
    turn = hand.turn()

    assert (turn.settled, turn.stale, turn.blocked) == (frozenset(), frozenset(), frozenset())
    assert (turn.jobs, turn.unreadable) == ([], [])


def test_only_available_jobs_of_the_queue(store: Store, hand: Hand) -> None:
    """Jobs of other queues and states are left alone."""
    store.insert(
        Job.new(worker="w", queue="other"),
        *(Job.new(worker="w", state=state) for state in JobState if state != "available"),
    )

    assert hand.fetch() == []


def test_used_up_attempts(store: Store, hand: Hand) -> None:
    """Available rows with no attempt left are neither run nor in the way of others."""
    used = store.insert(*(Job(worker="w", attempt=2, max_attempts=2) for _ in range(5)))
    (good,) = store.insert(Job(worker="w", attempt=1, max_attempts=2))

    assert [job.id for job in hand.fetch(2)] == [good.id]
    assert {store.get(job).state for job in used} == {"available"}


def test_retried_job(store: Store, hand: Hand) -> None:
    """A job that failed before comes with its errors and the next attempt."""
    (job,) = store.insert(Job(worker="w", attempt=3, errors=[ERROR, {"error": "again"}]))

    (claimed,) = hand.fetch()

    assert (claimed.attempt, claimed.errors) == (4, [ERROR, {"error": "again"}])
    assert claimed == store.get(job)


def test_errors_are_appended(store: Store, hand: Hand) -> None:
    """A failure adds its error to those that are there, in the shape that Elixir writes."""
    (job,) = store.insert(Job(worker="w", attempt=1, errors=[{"error": "first"}]))
    (claimed,) = hand.fetch()

    hand.turn([ack(claimed, "retryable", error=ERROR)])

    assert store.get(job).errors == [{"error": "first"}, ERROR]
    if store.repo.dialect == "sqlite":
        ((kind,),) = store.run("SELECT json_type(errors, '$[1]') FROM {jobs}")
        assert kind == "text"


@pytest.mark.parametrize(
    "error",
    [
        {"error": "nul \0, half \ud800, kept ü \U0001f600 \\u0000"},
        {"error": float("nan"), "at": [float("inf")]},
        {"error": object(), "\0": 1},
    ],
)
def test_unwritable_errors(store: Store, hand: Hand, error: dict[str, Any]) -> None:
    """Whatever an error holds, it is recorded in some form, and holds nobody up."""
    store.insert(Job.new(worker="w"), Job.new(worker="w"))
    bad, good = hand.fetch()

    turn = hand.turn([ack(bad, "discarded", error=error), ack(good)])

    assert turn.settled == {bad.id, good.id}
    (recorded,) = store.get(bad).errors
    assert recorded["error"]
    if "kept" in str(error["error"]):
        assert "kept ü \U0001f600 \\u0000" in recorded["error"]


def test_snoozes_are_counted(store: Store, hand: Hand) -> None:
    """Each snooze gives its attempt back and is counted beside what else is in meta."""
    (job,) = store.insert(Job.new(worker="w", meta={"k": "v"}))
    for count in (1, 2):
        (claimed,) = hand.fetch()
        hand.turn([ack(claimed, "scheduled", delay=0)], now=NOON)
        store.stage(now=NOON)
        stored = store.get(job)
        assert (stored.attempt, stored.meta) == (0, {"k": "v", "snoozed": count})


@pytest.mark.parametrize(
    ("meta", "expected"),
    [(None, {"snoozed": 1}), ("{}", {"snoozed": 1}), ('{"snoozed":"x"}', {"snoozed": 1})],
)
def test_snooze_of_others_meta(
    store: Store, hand: Hand, meta: str | None, expected: dict[str, int]
) -> None:
    """A snooze is counted whatever others left as meta."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    if store.repo.dialect == "sqlite":
        # Its column takes no NULL.
        store.run("UPDATE {jobs} SET meta = :meta", meta=meta or "null")
    else:
        store.run("UPDATE {jobs} SET meta = cast(:meta AS jsonb)", meta=meta)

    assert hand.turn([ack(claimed, "scheduled")]).settled == {job.id}

    assert store.get(job).meta == expected


def test_endless_delay(store: Store, hand: Hand) -> None:
    """A delay that no clock can add becomes the longest that it can."""
    (job,) = store.insert(Job.new(worker="w"))

    hand.turn([ack(hand.fetch()[0], "retryable", error=ERROR, delay=1e300)])

    due = store.get(job).scheduled_at
    assert due is not None
    assert due.year > 3000
