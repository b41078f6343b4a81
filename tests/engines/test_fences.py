"""Which acknowledgements count: fences, locks, and others who claim at the same time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from oban_actors.claim import Claimant
from oban_actors.errors import TransientError
from oban_actors.job import Job
from oban_actors.repo.times import to_text
from tests.engines.conftest import Store
from tests.engines.turning import ERROR, Hand, ack, ids
from tests.support.waiting import wait_until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = Claimant("web.2", "00000000-0000-8000-8000-000000000002")


def fence(store: Store) -> object:
    """Noon as a row has it."""
    return to_text(NOON) if store.repo.dialect == "sqlite" else NOON.replace(tzinfo=None)


@pytest.fixture
def hand(store: Store) -> Hand:
    """A producer of the queue `default`."""
    return Hand(store)


@pytest.mark.parametrize("state", ["completed", "retryable"])
@pytest.mark.parametrize("careful", [False, True])
def test_claimed_by_another(store: Store, hand: Hand, state: str, *, careful: bool) -> None:
    """A job that was rescued and runs elsewhere is not ended by who had it before."""
    store.insert(Job.new(worker="w"), Job.new(worker="w"))
    lost, kept = hand.fetch()
    store.run("UPDATE {jobs} SET state = 'available' WHERE id = :id", id=lost.id)
    (taken,) = Hand(store, OTHER).fetch()
    assert taken.id == lost.id

    turn = hand.turn([ack(lost, state, error=ERROR), ack(kept)], careful=careful)

    assert (turn.settled, turn.stale, turn.blocked) == (ids(kept), ids(lost), frozenset())
    assert store.get(lost) == taken


@pytest.mark.parametrize("state", ["completed", "retryable"])
@pytest.mark.parametrize("careful", [False, True])
def test_claimed_again_by_the_same(store: Store, hand: Hand, state: str, *, careful: bool) -> None:
    """An earlier claim of the same producer does not count for the later one."""
    (job,) = store.insert(Job.new(worker="w"))
    (first,) = hand.fetch(now=NOON)
    hand.release()
    (second,) = hand.fetch(now=NOON + timedelta(microseconds=1))

    late = ack(first, state, error=ERROR if state == "retryable" else None)
    turn = hand.turn([late], careful=careful)
    assert turn.stale == {job.id}
    assert store.get(job) == second
    assert hand.turn([ack(second)]).settled == {job.id}


def test_claimed_again_at_once(store: Store, hand: Hand) -> None:
    """However coarse the database's clock: no two claims have the same fence."""
    store.insert(Job.new(worker="w"))
    fences = set()
    for _ in range(50):
        (job,) = hand.fetch()
        fences.add(job.attempted_at)
        hand.release()

    assert len(fences) == 50


def test_same_time_but_another(store: Store, hand: Hand) -> None:
    """Who claimed is looked at, not only when."""
    store.insert(Job.new(worker="w"))
    (job,) = Hand(store, OTHER).fetch(now=NOON)

    assert hand.turn([ack(job)]).stale == {job.id}
    assert hand.turn([ack(job, "discarded", error=ERROR)]).stale == {job.id}
    assert store.get(job) == job


@pytest.mark.parametrize("state", ["completed", "retryable"])
def test_cancelled_meanwhile(store: Store, hand: Hand, state: str) -> None:
    """A job that somebody cancelled stays so, whatever its run comes to."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    store.run("UPDATE {jobs} SET state = 'cancelled'")

    assert hand.turn([ack(claimed, state, error=ERROR)]).stale == {job.id}
    assert (store.get(job).state, store.get(job).errors) == ("cancelled", [])


@pytest.mark.parametrize("cancelled", [False, True])
def test_killed(store: Store, hand: Hand, *, cancelled: bool) -> None:
    """A killed job's error is added once, also where its row was cancelled already."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    if cancelled:
        store.run("UPDATE {jobs} SET state = 'cancelled', cancelled_at = :at", at=fence(store))
    later = NOON + timedelta(minutes=1)
    killed = ack(claimed, "cancelled", error=ERROR, killed=True)

    for _ in range(2):
        assert hand.turn([killed], now=later).settled == {job.id}

    stored = store.get(job)
    assert (stored.state, stored.errors) == ("cancelled", [ERROR])
    assert stored.cancelled_at == (NOON if cancelled else later)


@pytest.mark.parametrize("state", ["retryable", "discarded", "scheduled", "cancelled"])
def test_completed_by_its_worker(store: Store, hand: Hand, state: str) -> None:
    """What was acknowledged besides counts only where the worker's own commit did not come."""
    most = 1 if state == "discarded" else 2
    store.insert(*(Job.new(worker="w", max_attempts=most) for _ in range(3)))
    done, undone, lost = hand.fetch()
    store.run("UPDATE {jobs} SET state = 'completed' WHERE id <> :id", id=undone.id)
    store.run("UPDATE {jobs} SET attempted_at = :at WHERE id = :id", id=lost.id, at=fence(store))
    before = store.get(done)
    acks = [ack(job, state, error=ERROR, completed=True) for job in (done, undone, lost)]

    for _ in range(2):
        turn = hand.turn(acks)
        assert (turn.settled, turn.completed) == (ids(done, undone), ids(done))
        assert turn.stale == ids(lost)

    assert store.get(done) == before
    assert (store.get(undone).state, store.get(undone).errors) == (state, [ERROR])
    assert store.get(lost).state == "completed"


def test_deleted_meanwhile(store: Store, hand: Hand) -> None:
    """A row that is gone is stale, and the others of its turn are written."""
    store.insert(Job.new(worker="w"), Job.new(worker="w"))
    gone, kept = hand.fetch()
    store.run("DELETE FROM {jobs} WHERE id = :id", id=gone.id)

    turn = hand.turn([ack(gone), ack(kept)])

    assert (turn.settled, turn.stale) == (ids(kept), ids(gone))


@pytest.mark.parametrize("state", ["completed", "cancelled", "discarded", "retryable", "scheduled"])
def test_said_twice(store: Store, hand: Hand, state: str) -> None:
    """What was written and is acknowledged again, its answer lost, is settled and stays."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    once = ack(claimed, state, error=ERROR if state in ("discarded", "retryable") else None)
    hand.turn([once])
    written = store.get(job)

    assert hand.turn([once], 10).settled == {job.id}
    assert store.get(job) == written


def test_said_twice_and_staged(store: Store, hand: Hand) -> None:
    """A retry that came due meanwhile still shows that it was written; a rescued one doesn't."""
    store.insert(Job.new(worker="w"), Job.new(worker="w"))
    retried, rescued = hand.fetch()
    hand.turn([ack(retried, "retryable", error=ERROR)])
    store.run("UPDATE {jobs} SET state = 'available'")

    turn = hand.turn([ack(job, "retryable", error=ERROR) for job in (retried, rescued)])

    assert (turn.settled, turn.stale) == (ids(retried), ids(rescued))


# Locks


def test_locked_rows_are_passed_over(pg_store: Store) -> None:
    """A fetch leaves out rows that somebody has locked, without waiting."""
    hand = Hand(pg_store)
    locked, free = pg_store.insert(Job.new(worker="w"), Job.new(worker="w"))
    with locking(pg_store, locked):
        assert [job.id for job in hand.fetch(1)] == [free.id]

    assert [job.id for job in hand.fetch(1)] == [locked.id]


def test_careful(pg_store: Store) -> None:
    """A row that somebody has locked holds up a plain turn, and is left out of a careful one."""
    hand = Hand(pg_store)
    pg_store.insert(*(Job.new(worker="w") for _ in range(4)))
    locked, done, failed, killed = hand.fetch()
    acks = [
        ack(locked),
        ack(done),
        ack(failed, "retryable", error=ERROR),
        ack(killed, "cancelled", error=ERROR, killed=True),
    ]
    pg_store.run("UPDATE {jobs} SET state = 'cancelled' WHERE id = :id", id=killed.id)
    pg_store.insert(Job.new(worker="w"))
    with locking(pg_store, locked, killed):
        with pytest.raises(TransientError):
            hand.turn(acks, lock_timeout=0.05)
        turn = hand.turn(acks, 1, careful=True)
        assert (turn.settled, turn.stale) == (ids(done, failed), frozenset())
        assert turn.blocked == {locked.id, killed.id}
        assert len(turn.jobs) == 1

    assert hand.turn(acks, careful=True).settled == {
        job.id for job in (locked, done, failed, killed)
    }
    assert pg_store.get(killed).errors == [ERROR]
    assert pg_store.get(locked).state == "completed"


def test_plain_turn_waits(pg_store: Store) -> None:
    """A plain turn waits for a lock, and looks at the row again before it writes."""
    hand = Hand(pg_store)
    pg_store.insert(Job.new(worker="w"), Job.new(worker="w"))
    cancelled, kept = hand.fetch()
    cancel = text(f"UPDATE {pg_store.jobs} SET state = 'cancelled' WHERE id = :id")
    with (
        ThreadPoolExecutor() as pool,
        pg_store.repo.engine.connect() as other,
    ):
        other.exec_driver_sql("BEGIN")
        other.execute(cancel, {"id": cancelled.id})
        turning = pool.submit(hand.turn, [ack(cancelled), ack(kept)])
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database() AND query LIKE '%acked%'"
        )
        wait_until(
            lambda: pg_store.repo.transaction(lambda c: c.execute(waiting).scalar()) or None,
            message="the turn waits",
        )
        other.exec_driver_sql("COMMIT")
        turn = turning.result(30)

    assert (turn.settled, turn.stale) == (ids(kept), ids(cancelled))
    assert pg_store.get(cancelled).state == "cancelled"


def test_two_claimants(store: Store) -> None:
    """Of producers that fetch and acknowledge at the same time, no two get the same job."""
    count, hands = 400, [Hand(store, Claimant("n", f"u{place}")) for place in range(4)]
    store.insert(*(Job.new({"n": n}, worker="w") for n in range(count)))
    start = threading.Barrier(len(hands))

    def drain(hand: Hand) -> list[int]:
        start.wait(30)
        got: list[int] = []
        turn = hand.turn(limit=7)
        while turn.jobs:
            got += [job.args["n"] for job in turn.jobs]
            acks = [ack(job) for job in turn.jobs]
            turn = hand.turn(acks, 7)
            assert turn.settled == {each.job_id for each in acks}
        return got

    with ThreadPoolExecutor(len(hands)) as pool:
        got = [n for part in pool.map(drain, hands) for n in part]

    assert sorted(got) == list(range(count))
    assert store.run("SELECT DISTINCT state FROM {jobs}") == [("completed",)]


# In a worker's own transaction


def test_complete_job(store: Store, hand: Hand) -> None:
    """A worker can complete its job itself, once; the acknowledgement after that is settled."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    fence = claimed.attempted_at or NOON

    def complete(claimant: Claimant, at: datetime) -> bool:
        return store.repo.transaction(
            lambda c: store.engine.complete_job(c, claimant, job.id or 0, at, NOON)
        )

    assert not complete(OTHER, fence)
    assert not complete(hand.claimant, NOON)
    assert complete(hand.claimant, fence)
    assert (store.get(job).state, store.get(job).completed_at) == ("completed", NOON)
    assert not complete(hand.claimant, fence)
    assert hand.turn([ack(claimed)]).settled == {job.id}


def test_record_error(store: Store, hand: Hand) -> None:
    """An error can be added to a job that runs on, by who has it."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    fence = claimed.attempted_at or NOON

    def record(claimant: Claimant, at: datetime) -> bool:
        return store.repo.transaction(
            lambda c: store.engine.record_error(c, claimant, job.id or 0, at, ERROR)
        )

    assert record(hand.claimant, fence)
    assert not record(OTHER, fence)
    assert not record(hand.claimant, NOON)
    assert (store.get(job).state, store.get(job).errors) == ("executing", [ERROR])
    assert hand.turn([ack(claimed)]).settled == {job.id}
    assert not record(hand.claimant, fence)


@pytest.mark.parametrize("careful", [False, True])
def test_an_error_is_added_once(store: Store, hand: Hand, *, careful: bool) -> None:
    """Said again, by whoever does not know that it stands there, it is the same one."""
    (job,) = store.insert(Job.new(worker="w"))
    (claimed,) = hand.fetch()
    at, other = claimed.attempted_at or NOON, {**ERROR, "attempt": 2}
    for _ in range(2):
        assert store.repo.transaction(
            lambda c: store.engine.record_error(c, hand.claimant, job.id or 0, at, ERROR)
        )

    hand.turn([ack(claimed, "retryable", error=ERROR)], careful=careful)

    assert (store.get(job).state, store.get(job).errors) == ("retryable", [ERROR])
    store.run("UPDATE {jobs} SET state = 'available'")
    hand.turn([ack(hand.fetch()[0], "retryable", error=other)], careful=careful)
    assert store.get(job).errors == [ERROR, other]


@contextmanager
def locking(store: Store, *jobs: Job) -> Iterator[None]:
    """Hold the rows of jobs locked."""
    lock = text(f"SELECT id FROM {store.jobs} WHERE id = ANY (:ids) FOR UPDATE")
    with store.repo.engine.connect() as other:
        other.exec_driver_sql("BEGIN")
        other.execute(lock, {"ids": [job.id for job in jobs]})
        yield
        other.exec_driver_sql("ROLLBACK")
