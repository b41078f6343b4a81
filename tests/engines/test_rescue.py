"""What rescuing asks of the job stores: who beats, whose jobs are left, and to give them back."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, text

from oban_actors import DatabaseError
from oban_actors.claim import Claimant
from oban_actors.engines.rescue import (
    ClaimGroup,
    ProducerReport,
    Rescued,
    RescuedJob,
    RescueState,
)
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.turning import Hand, ack

T = TypeVar("T")

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = Claimant("web.2", "00000000-0000-8000-8000-000000000002")
BOOM = "** (ProcessDied) boom"


@pytest.fixture
def hand(store: Store) -> Hand:
    """A producer of the queue `default`."""
    return Hand(store)


def do(store: Store, work: Callable[[Connection], T]) -> T:
    """Do work in a transaction."""
    return store.repo.transaction(work)


def report(store: Store, age: float = 60.0, now: datetime = NOON) -> ProducerReport:
    """Read who beats."""
    return do(store, lambda c: store.engine.report_producers(c, "lifeline:me", age, now))


def orphans(store: Store, hand: Hand, limit: int = 100, **more: Any) -> list[int]:
    """Find what a producer has left."""
    aside = more.pop("aside", [])
    return do(
        store,
        lambda c: store.engine.find_orphans(
            c, hand.claimant.uuid, hand.queue, limit, aside, **more
        ),
    )


def rescue(store: Store, ids: list[int], state: RescueState = "executing") -> Rescued:
    """Rescue jobs at noon."""
    return do(store, lambda c: store.engine.rescue_jobs(c, ids, state, BOOM, NOON))


def producers(store: Store) -> list[str]:
    """Name who has a row."""
    table = store.jobs.replace("oban_jobs", "oban_actors_producers")
    return [row[0] for row in store.run(f"SELECT uuid FROM {table} ORDER BY uuid")]


def test_report(store: Store, hand: Hand) -> None:
    """It names those that beat and all that have claims, in few words, and leaves nothing."""
    other = Hand(store, OTHER, "other")
    store.insert(*(Job.new(worker="w", queue=queue) for queue in ("default", "other") * 2))
    hand.fetch(1, now=NOON - timedelta(seconds=61))
    hand.fetch(1, now=NOON)
    other.fetch(2, now=NOON)
    do(store, lambda c: store.engine.beat(c, [hand.beat()], NOON))

    found = report(store)

    assert list(found.beats) == [hand.claimant.uuid]
    assert sorted(found.claims, key=lambda group: group.queue) == [
        ClaimGroup(hand.claimant.uuid, "default", aged=True),
        ClaimGroup(OTHER.uuid, "other", aged=False),
    ]
    assert producers(store) == [hand.claimant.uuid]
    assert report(store) == found
    do(store, lambda c: store.engine.beat(c, [hand.beat()], NOON + timedelta(microseconds=1)))
    assert report(store).beats != found.beats
    assert report(store).server == found.server


def test_the_report_needs_to_write(store: Store) -> None:
    """Where a beat could not be written there is no report, though all can be read."""
    table = store.jobs.replace("oban_jobs", "oban_actors_producers")
    if store.repo.dialect == "postgresql":
        store.run(f"ALTER TABLE {table} ADD CHECK (uuid IS NULL) NOT VALID")
    else:
        store.run(
            f"CREATE TRIGGER full BEFORE INSERT ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )

    with pytest.raises(DatabaseError):
        report(store)


def test_the_report_waits_for_nobody_who_keeps_all_from_writing(sqlite_store: Store) -> None:
    """SQLite goes on reading while another process has its only lock."""
    with sqlite_store.repo.engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError):
            sqlite_store.repo.transaction(
                lambda c: sqlite_store.engine.report_producers(c, "lifeline:me", 60.0, None),
                attempts=1,
                lock_timeout=0.05,
                statement_timeout=0.2,
            )
        other.exec_driver_sql("ROLLBACK")


def test_hold(store: Store, hand: Hand) -> None:
    """Only with the beat that was seen; one that is absent is held while it stays so."""
    uuid = hand.claimant.uuid

    def beat(now: datetime) -> None:
        do(store, lambda c: store.engine.beat(c, [hand.beat()], now))

    def held(seen: str | None, *queues: str) -> bool:
        def work(connection: Connection) -> bool:
            found = store.engine.hold_producer(connection, uuid, seen)
            if found:
                store.engine.settle_producer(connection, uuid, seen, queues)
            return found

        return do(store, work)

    assert held(None)
    assert not held("x")
    assert producers(store) == []
    # What stands in for a row goes, also where jobs are left.
    store.insert(Job.new(worker="w"))
    hand.fetch()
    assert held(None, "default")
    assert producers(store) == []
    beat(NOON)
    seen = report(store).beats[uuid]
    assert not held(None)
    beat(NOON + timedelta(seconds=10))
    assert not held(seen)
    assert producers(store) == [uuid]
    assert held(report(store).beats[uuid])
    assert producers(store) == []


def test_rescue(store: Store, hand: Hand) -> None:
    """Attempts are kept; where none is left it is discarded, with an error in Oban's form."""
    kept, used_up, ended = store.insert(
        Job.new(worker="w"), Job.new(worker="w", max_attempts=1), Job.new(worker="w")
    )
    hand.fetch()
    store.run("UPDATE {jobs} SET state = 'cancelled' WHERE id = :id", id=ended.id)
    ids = [job.id or 0 for job in (kept, used_up, ended)]

    done = rescue(store, ids)

    assert done == Rescued(
        (RescuedJob(ids[0], "default", "executing"),), (RescuedJob(ids[1], "default", "executing"),)
    )
    assert len(done) == 2
    job = store.get(kept)
    assert (job.state, job.attempt, job.errors, job.discarded_at) == ("available", 1, [], None)
    job = store.get(used_up)
    assert (job.state, job.attempt, job.discarded_at) == ("discarded", 1, NOON)
    assert job.errors == [{"at": "2026-11-24T12:00:00.000000Z", "attempt": 1, "error": BOOM}]
    assert store.get(ended).state == "cancelled"
    assert rescue(store, ids) == Rescued()
    assert [job.id for job in hand.fetch()] == [kept.id]


def test_the_late_ack_of_a_rescued_job_is_stale(store: Store, hand: Hand) -> None:
    """Whoever comes back from the dead writes nothing."""
    store.insert(Job.new(worker="w"))
    (mine,) = hand.fetch(now=NOON)
    rescue(store, [mine.id or 0])

    assert hand.turn([ack(mine)]).stale == {mine.id}
    (theirs,) = Hand(store, OTHER).fetch()
    assert hand.turn([ack(mine, "discarded", error={"error": "x"})]).stale == {mine.id}
    assert store.get(theirs).state == "executing"


def test_orphans(store: Store, hand: Hand) -> None:
    """Those of one claimant and queue, in the order of the index, some left out, perhaps by age."""
    jobs = store.insert(*(Job.new(worker="w", priority=3 - n) for n in range(3)))
    order = [job.id or 0 for job in reversed(jobs)]
    hand.fetch(2, now=NOON - timedelta(seconds=61))
    hand.fetch(1, now=NOON)

    assert orphans(store, hand) == order
    assert orphans(store, hand, 2) == order[:2]
    assert orphans(store, hand, aside=order[:1]) == order[1:]
    assert orphans(store, hand, age=60.0, now=NOON) == order[:2]
    assert orphans(store, Hand(store, OTHER)) == []
    assert orphans(store, Hand(store, queue="other")) == []


def test_settle(store: Store, hand: Hand) -> None:
    """A producer's row goes once it has nothing left in the queues that are named."""
    store.insert(Job.new(worker="w"))
    (job,) = hand.fetch()
    do(store, lambda c: store.engine.beat(c, [hand.beat()], NOON))
    uuid = hand.claimant.uuid

    def settle(*queues: str) -> bool:
        return do(store, lambda c: store.engine.settle_producer(c, uuid, "x", queues))

    assert not settle("default", "other")
    assert producers(store) == [uuid]
    rescue(store, [job.id or 0])
    assert settle("default", "other")
    assert producers(store) == []


def test_used_up(store: Store, hand: Hand) -> None:
    """Jobs without an attempt left are found among the next ones, and discarded."""
    jobs = store.insert(*(Job.new(worker="w") for _ in range(6)), Job.new(worker="w", queue="q"))
    ids = [job.id or 0 for job in jobs]
    store.run("UPDATE {jobs} SET attempt = 20 WHERE id % 2 = :odd", odd=ids[0] % 2)
    spent = [ids[0], ids[2], ids[4]]

    def find(limit: int, *aside: int) -> list[int]:
        return do(store, lambda c: store.engine.find_used_up(c, "default", limit, aside))

    assert find(100) == spent
    assert find(3) == spent[:2]
    assert find(3, spent[0]) == spent[1:2]
    assert len(rescue(store, ids, "available").discarded) == 3 + (ids[6] in ids[::2])
    assert find(100) == []
    assert [job.id for job in hand.fetch()] == [ids[1], ids[3], ids[5]]


def test_rows_of_others(store: Store) -> None:
    """Claims of strangers, whatever they hold, are found by age and rescued."""
    lite = store.repo.dialect == "sqlite"
    owners = ("nothing", '["web.1"]', '["web.1","e"]') if lite else (None, "{web.1}", "{web.1,e}")
    moments = ("soon", None, "2026-11-24T10:00:00Z") if lite else ("infinity", None, "-infinity")
    kind, array = ("text", "text") if lite else ("timestamp", "text[]")
    for by in owners:
        for at in moments:
            store.run(
                "INSERT INTO {jobs} (state, worker, attempt, attempted_at, attempted_by) VALUES "
                f"('executing', 'w', 1, cast(:at AS {kind}), cast(:by AS {array}))",
                at=at,
                by=by,
            )
    if lite:
        store.run("UPDATE {jobs} SET errors = 'no JSON', max_attempts = 1 WHERE id = 3")

    claims = report(store).claims

    assert sorted(claims, key=str) == [
        ClaimGroup("e", "default", aged=True),
        ClaimGroup(None, "default", aged=True),
    ]
    found: list[int] = []
    for group in claims:
        found += do(
            store,
            lambda c, uuid=group.uuid: store.engine.find_orphans(  # type: ignore[misc]  # bound
                c, uuid, "default", 100, [], age=60.0, now=NOON
            ),
        )
    assert sorted(found) == [3, 6, 9]
    done = rescue(store, found)
    assert len(done) == 3
    if lite:
        (errors,) = store.run("SELECT errors FROM {jobs} WHERE id = 3")[0]
        assert json.loads(json.loads(errors)[0])["error"] == BOOM


def test_claims_without_a_time(store: Store) -> None:
    """What was inserted as executing, and claimed by nobody, is as old as its row."""
    ids = [job.id for job in store.insert(*(Job.new(worker="w", state="executing"),) * 2)]
    at = "2026-11-24T11:00:00Z"
    column = "cast(:at AS timestamp)" if store.repo.dialect == "postgresql" else ":at"
    store.run(f"UPDATE {{jobs}} SET inserted_at = {column} WHERE id = :id", at=at, id=ids[1])

    assert report(store).claims == [ClaimGroup(None, "default", aged=True)]
    found = do(
        store,
        lambda c: store.engine.find_orphans(c, None, "default", 100, [], age=60.0, now=NOON),
    )
    assert found == ids[1:]


def test_locked_rows_are_passed_over(pg_store: Store) -> None:
    """What somebody has locked waits for another time; a producer that beats now is none."""
    hand = Hand(pg_store)
    pg_store.insert(Job.new(worker="w"), Job.new(worker="w"), Job.new(worker="w"))
    locked, free = hand.fetch(2)
    do(pg_store, lambda c: pg_store.engine.beat(c, [hand.beat()], NOON))
    pg_store.run("UPDATE {jobs} SET attempt = 20 WHERE state = 'available'")
    seen = report(pg_store).beats[hand.claimant.uuid]
    with pg_store.repo.engine.connect() as other:
        other.exec_driver_sql("BEGIN")
        lock = f"SELECT id FROM {pg_store.jobs} WHERE id <> :free FOR UPDATE"
        other.execute(text(lock), {"free": free.id})
        pg_store.engine.beat(other, [hand.beat()], NOON + timedelta(seconds=10))
        assert orphans(pg_store, hand) == [free.id]
        used_up = do(pg_store, lambda c: pg_store.engine.find_used_up(c, "default", 100, []))
        assert used_up == []
        assert not do(
            pg_store, lambda c: pg_store.engine.hold_producer(c, hand.claimant.uuid, seen)
        )
        other.exec_driver_sql("ROLLBACK")

    assert orphans(pg_store, hand) == [locked.id, free.id]
