"""Turns among rows that other writers left: what is no job is named, and hides no other."""

from datetime import UTC, datetime

import pytest

from oban_actors.claim import Ack, Claimant
from oban_actors.job import Job, JobState
from oban_actors.repo.times import to_text
from tests.engines.conftest import Store
from tests.engines.turning import ERROR, Hand

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OTHER = Claimant("web.2", "00000000-0000-8000-8000-000000000002")


@pytest.fixture
def hand(store: Store) -> Hand:
    """A producer of the queue `default`."""
    return Hand(store)


@pytest.mark.parametrize("args", ["[1]", '"text"', "null", "1"])
def test_unreadable(store: Store, hand: Hand, args: str) -> None:
    """A row whose args are no object is claimed, named, and hides no other."""
    store.run(
        "INSERT INTO {jobs} (worker, args) VALUES ('bad', :args)".replace(":args", f"'{args}'")
    )
    (good,) = store.insert(Job.new(worker="w"))

    turn = hand.turn(limit=10)

    assert [job.id for job in turn.jobs] == [good.id]
    (row,) = turn.unreadable
    assert (row.worker, row.attempt, row.max_attempts) == ("bad", 1, 20)
    assert row.attempted_at == turn.jobs[0].attempted_at
    assert "args" in row.reason
    end = Ack(row.job_id, row.attempted_at, JobState.DISCARDED, error=ERROR)
    assert hand.turn([end]).settled == {row.job_id}


def test_deep_and_huge(store: Store, hand: Hand) -> None:
    """JSON that Python can't read makes its row unreadable, and no other."""
    kind = "text" if store.repo.dialect == "sqlite" else "jsonb"
    for args in ('{"n": ' + "9" * 5000 + "}", '{"n": ' + "[" * 3000 + "]" * 3000 + "}"):
        insert = f"INSERT INTO {{jobs}} (worker, args) VALUES ('w', cast(:args AS {kind}))"
        store.run(insert, args=args)
    (good,) = store.insert(Job.new(worker="w"))

    turn = hand.turn(limit=10)

    assert good.id in [job.id for job in turn.jobs]
    assert len(turn.unreadable) >= 1
    assert len(turn.unreadable) + len(turn.jobs) == 3


def test_rows_of_elixir(pg_store: Store) -> None:
    """NULL tags and meta, and errors that are no objects, can be run."""
    pg_store.run(
        "INSERT INTO {jobs} (worker, tags, meta, errors, priority) VALUES "
        "('Elixir.W', NULL, NULL, cast(ARRAY['[1]', NULL, :text] AS jsonb[]), 12), "
        "('w', ARRAY[NULL, :tag], 'null', cast(ARRAY[] AS jsonb[]), 0)",
        text='"x"',
        tag='a,"b',
    )

    second, first = Hand(pg_store).fetch()

    assert (first.tags, first.meta, first.priority) == ([], {}, 12)
    assert first.errors == [{"error": "[1]"}, {"error": "None"}, {"error": "x"}]
    assert second.tags == ['a,"b']
    assert second.meta == {}


def test_times_that_python_has_not(pg_store: Store) -> None:
    """A row that is due at a time that Python can't hold is unreadable."""
    pg_store.run(
        "INSERT INTO {jobs} (worker, scheduled_at) VALUES ('a', '-infinity'), "
        "('b', '0044-03-15 BC')"
    )
    good = pg_store.insert(Job.new(worker="w"), Job.new(worker="w"))

    turn = Hand(pg_store).turn(limit=10)

    assert [job.id for job in turn.jobs] == [job.id for job in good]
    assert {row.worker for row in turn.unreadable} == {"a", "b"}
    reason = "ValueError: expected scheduled_at to be in the years 1 to 9999"
    assert {row.reason for row in turn.unreadable} == {reason}


def test_anything_in_sqlite(sqlite_store: Store) -> None:
    """Columns of SQLite hold any type; what is no job is named, and hides no other."""
    hand = Hand(sqlite_store)
    for column, value in {
        "worker": b"\xff",
        "args": "{",
        "meta": "[]",
        "tags": "{}",
        "errors": "nothing",
        "priority": "low",
        "max_attempts": "many",
        "scheduled_at": "soon",
        "inserted_at": 1,
    }.items():
        columns, places = (
            (column, ":value") if column == "worker" else (f"{column}, worker", ":value, 'w'")
        )
        sqlite_store.run(f"INSERT INTO {{jobs}} ({columns}) VALUES ({places})", value=value)
    (good,) = sqlite_store.insert(Job.new(worker="w", tags=["a"]))

    turn = hand.turn(limit=100)

    assert [job.id for job in turn.jobs] == [good.id]
    assert len(turn.unreadable) == 9
    acks = [Ack(row.job_id, row.attempted_at, JobState.DISCARDED, ERROR) for row in turn.unreadable]
    assert len(hand.turn(acks).settled) == 9


def test_text_that_is_none(sqlite_store: Store) -> None:
    """Text that is not UTF-8 makes its row unreadable, and no other."""
    sqlite_store.run(
        "INSERT INTO {jobs} (worker, args) VALUES ('w', cast(x'7b22ff227d' AS TEXT)), "
        "(cast(x'ff' AS TEXT), :empty)",
        empty="{}",
    )
    (good,) = sqlite_store.insert(Job.new(worker="w"))

    turn = Hand(sqlite_store).turn(limit=10)

    assert [job.id for job in turn.jobs] == [good.id]
    assert len(turn.unreadable) == 2


def test_a_number_that_json_has_not(sqlite_store: Store) -> None:
    """An infinite number makes its row unreadable, and no other."""
    sqlite_store.run("INSERT INTO {jobs} (worker, priority) VALUES ('w', 1e999)")
    (good,) = sqlite_store.insert(Job.new(worker="w"))

    turn = Hand(sqlite_store).turn(limit=10)

    assert [job.id for job in turn.jobs] == [good.id]
    assert len(turn.unreadable) == 1


def test_a_claim_that_was_written_anew(sqlite_store: Store) -> None:
    """A claim is the same however another program has spaced its JSON."""
    sqlite_store.insert(Job.new(worker="w"))
    hand = Hand(sqlite_store)
    (job,) = hand.fetch()
    sqlite_store.run("UPDATE {jobs} SET attempted_by = replace(attempted_by, ',', ' , ')")
    assert job.id is not None
    assert job.attempted_at is not None

    turn = hand.turn([Ack(job.id, job.attempted_at, JobState.COMPLETED)])

    assert turn.settled == {job.id}
    assert sqlite_store.run("SELECT state FROM {jobs}") == [("completed",)]


def test_attempted_at_of_sqlite(sqlite_store: Store) -> None:
    """The fence is text with six digits, the same after it was read and written again."""
    sqlite_store.insert(Job.new(worker="w"))
    (job,) = Hand(sqlite_store).fetch()

    ((text_, by),) = sqlite_store.run("SELECT attempted_at, attempted_by FROM {jobs}")

    assert job.attempted_at is not None
    assert text_ == to_text(job.attempted_at)
    assert len(text_) == len("2026-11-24T12:00:00.000000Z")
    assert by == f'["web.1","{job.attempted_by[1]}"]'
