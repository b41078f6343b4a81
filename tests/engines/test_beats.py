"""Producers' beats, and claims that nobody holds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from oban_actors.claim import Claimant
from oban_actors.engines import BeatReport, ProducerBeat
from oban_actors.engines.engine import TableClaim
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.turning import Hand

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = Claimant("web.2", "00000000-0000-8000-8000-000000000002")


@pytest.fixture
def hand(store: Store) -> Hand:
    """A producer of the queue `default`."""
    return Hand(store)


def beat(store: Store, *beats: ProducerBeat, now: datetime | None = None) -> BeatReport:
    """Beat in a transaction."""
    return store.repo.transaction(lambda c: store.engine.beat(c, beats, now))


def producers(store: Store) -> list[Any]:
    """Read the table of producers."""
    table = store.jobs.replace("oban_jobs", "oban_actors_producers")
    return store.run(
        "SELECT uuid, identity, name, node, queue, queue_limit, paused, running, started_at, "
        f"beat_at FROM {table} ORDER BY uuid"
    )


def test_beats(store: Store, hand: Hand) -> None:
    """Any number of producers show themselves at once, and stay the same rows."""
    other = Hand(store, OTHER, "other")
    later = NOON + timedelta(seconds=10)

    beat(store, hand.beat(), other.beat(), now=NOON)
    beat(store, hand.beat(limit=20, paused=True, running=3), now=later)

    mine, theirs = producers(store)
    assert tuple(mine[:8]) == (hand.claimant.uuid, "i", "Oban", "web.1", "default", 20, True, 3)
    assert tuple(theirs[:8]) == (OTHER.uuid, "i", "Oban", "web.2", "other", 10, False, 0)
    assert str(mine.started_at)[:19].replace("T", " ") == "2026-11-24 12:00:00"
    assert str(mine.beat_at)[:19].replace("T", " ") == "2026-11-24 12:00:10"
    assert str(theirs.beat_at)[:19].replace("T", " ") == "2026-11-24 12:00:00"


def test_report(store: Store, hand: Hand) -> None:
    """A beat learns which rows are claimed for its producers, and which queues have work."""
    store.insert(*(Job.new(worker="w", queue=queue) for queue in ("default", "other") * 2))
    store.insert(Job.new(worker="w", queue="third"))
    other = Hand(store, OTHER, "other")
    mine, theirs = hand.fetch(2), other.fetch(1)
    stranger = Hand(store, Claimant("web.3", "3"), "other").fetch(1)
    assert stranger
    store.insert(Job.new(worker="w", queue="other"))

    report = beat(store, hand.beat(), other.beat())

    assert set(report.claims) == {
        TableClaim(job.attempted_by[1], job.id or 0, job.attempted_at or NOON)
        for job in (*mine, *theirs)
    }
    assert report.busy == {"other"}
    assert len(report.claims) == 3


def test_nobody_beats(store: Store) -> None:
    """Without producers there is nothing to do."""
    assert beat(store) == BeatReport([], frozenset())


def test_release(store: Store, hand: Hand) -> None:
    """What is claimed and not held is available again, with its attempt given back."""
    store.insert(*(Job.new(worker="w") for _ in range(3)))
    jobs = hand.fetch()

    released = hand.release(jobs[1].id or 0)

    assert released == [jobs[0].id, jobs[2].id]
    assert [(job.state, job.attempt) for job in map(store.get, jobs)] == [
        ("available", 0),
        ("executing", 1),
        ("available", 0),
    ]
    assert [job.id for job in hand.fetch()] == released
    assert hand.release(*(job.id or 0 for job in jobs)) == []


def test_forget(store: Store, hand: Hand) -> None:
    """A producer is forgotten once no job is executing under its identity."""
    store.insert(Job.new(worker="w"))
    hand.fetch()
    beat(store, hand.beat(), Hand(store, OTHER).beat())

    def forget() -> list[str]:
        store.repo.transaction(lambda c: store.engine.forget_producer(c, hand.claimant))
        return [row.uuid for row in producers(store)]

    assert forget() == [hand.claimant.uuid, OTHER.uuid]
    hand.release()
    assert forget() == [OTHER.uuid]
    assert forget() == [OTHER.uuid]


def test_rows_of_others(store: Store, hand: Hand) -> None:
    """Executing rows of others, whatever they hold, are nobody's claims and stay as they are."""
    moments = {"sqlite": ("soon", None), "postgresql": ("infinity", None)}[store.repo.dialect]
    owners = {
        "sqlite": ("nothing", '["web.1"]', f'["web.1","{hand.claimant.uuid}"]'),
        "postgresql": (None, "{web.1}", f"{{web.1,{hand.claimant.uuid}}}"),
    }[store.repo.dialect]
    kind, array = ("text", "text") if store.repo.dialect == "sqlite" else ("timestamp", "text[]")
    for at in moments:
        for by in owners:
            store.run(
                "INSERT INTO {jobs} (state, worker, attempt, attempted_at, attempted_by) VALUES "
                f"('executing', 'w', 1, cast(:at AS {kind}), cast(:by AS {array}))",
                at=at,
                by=by,
            )
    store.insert(Job.new(worker="w"))
    (mine,) = hand.fetch()

    report = beat(store, hand.beat())

    assert report.claims == [
        TableClaim(hand.claimant.uuid, mine.id or 0, mine.attempted_at or NOON)
    ]
    assert len(hand.release(mine.id or 0)) == 2
    assert store.run("SELECT count(*) FROM {jobs} WHERE state = 'executing'") == [(5,)]


def test_release_passes_over_locked_rows(pg_store: Store) -> None:
    """A row that somebody has locked is released another time, and holds up no other."""
    hand = Hand(pg_store)
    pg_store.insert(Job.new(worker="w"), Job.new(worker="w"))
    locked, free = hand.fetch()
    lock = text(f"SELECT id FROM {pg_store.jobs} WHERE id = :id FOR UPDATE")
    with pg_store.repo.engine.connect() as other:
        other.exec_driver_sql("BEGIN")
        other.execute(lock, {"id": locked.id})
        assert hand.release() == [free.id]
        other.exec_driver_sql("ROLLBACK")

    assert hand.release() == [locked.id]


def test_many_producers(store: Store) -> None:
    """A beat of many producers reports each one's claims, and one given twice counts once."""
    hands = [Hand(store, Claimant("n", f"u{place:03}"), f"q{place % 10}") for place in range(50)]
    store.insert(*(Job.new(worker="w", queue=each.queue) for each in hands for _ in range(2)))
    claimed = {each.claimant.uuid: each.fetch(1)[0].id for each in hands}

    report = beat(store, hands[0].beat(limit=1), *(each.beat(limit=2) for each in hands))

    assert {claim.uuid: claim.job_id for claim in report.claims} == claimed
    assert len(report.claims) == len(hands)
    assert report.busy == {f"q{place}" for place in range(10)}
    assert [row.queue_limit for row in producers(store)] == [2] * len(hands)
