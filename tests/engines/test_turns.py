"""Turns of producers: claims and acknowledgements."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from oban_actors.claim import Ack, Claimant
from oban_actors.errors import TransientError
from oban_actors.job import Job, JobState
from oban_actors.repo.times import to_text
from tests.engines.conftest import Store
from tests.engines.turning import ERROR, Hand, ack, ids
from tests.support.waiting import wait_until

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


# The fence


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


def test_claimed_again_by_the_same(store: Store, hand: Hand) -> None:
    """An earlier claim of the same producer does not count for the later one."""
    (job,) = store.insert(Job.new(worker="w"))
    (first,) = hand.fetch(now=NOON)
    hand.release()
    (second,) = hand.fetch(now=NOON + timedelta(microseconds=1))

    assert hand.turn([ack(first)]).stale == {job.id}
    assert store.get(job) == second
    assert hand.turn([ack(second)]).settled == {job.id}


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
        at = to_text(NOON) if store.repo.dialect == "sqlite" else NOON.replace(tzinfo=None)
        store.run("UPDATE {jobs} SET state = 'cancelled', cancelled_at = :at", at=at)
    later = NOON + timedelta(minutes=1)
    killed = ack(claimed, "cancelled", error=ERROR, killed=True)

    for _ in range(2):
        assert hand.turn([killed], now=later).settled == {job.id}

    stored = store.get(job)
    assert (stored.state, stored.errors) == ("cancelled", [ERROR])
    assert stored.cancelled_at == (NOON if cancelled else later)


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


# Rows of others


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


def test_attempted_at_of_sqlite(sqlite_store: Store) -> None:
    """The fence is text with six digits, the same after it was read and written again."""
    sqlite_store.insert(Job.new(worker="w"))
    (job,) = Hand(sqlite_store).fetch()

    ((text_, by),) = sqlite_store.run("SELECT attempted_at, attempted_by FROM {jobs}")

    assert job.attempted_at is not None
    assert text_ == to_text(job.attempted_at)
    assert len(text_) == len("2026-11-24T12:00:00.000000Z")
    assert by == f'["web.1","{job.attempted_by[1]}"]'


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


@contextmanager
def locking(store: Store, *jobs: Job) -> Iterator[None]:
    """Hold the rows of jobs locked."""
    lock = text(f"SELECT id FROM {store.jobs} WHERE id = ANY (:ids) FOR UPDATE")
    with store.repo.engine.connect() as other:
        other.exec_driver_sql("BEGIN")
        other.execute(lock, {"ids": [job.id for job in jobs]})
        yield
        other.exec_driver_sql("ROLLBACK")
