"""Making due jobs available."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from oban_actors.errors import DatabaseError
from oban_actors.job import Job
from tests.engines.conftest import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def due(seconds: float, queue: str = "default", state: str = "scheduled") -> Job:
    """Make a job that is due so many seconds after noon."""
    at = NOON + timedelta(seconds=seconds)
    return Job.new(worker="w", queue=queue, scheduled_at=at, state=state)


def test_only_what_is_due(store: Store) -> None:
    """Due jobs become available, scheduled and retryable ones alike, and no others."""
    late, failed, exact, soon, held, done = store.insert(
        due(-9), due(-5, state="retryable"), due(0), due(0.000001),
        due(-9, state="suspended"), due(-9, state="completed"),
    )  # fmt: skip

    staged = store.stage(now=NOON)

    assert [(job.id, job.state) for job in staged.jobs] == [
        (late.id, "scheduled"),
        (failed.id, "retryable"),
        (exact.id, "scheduled"),
    ]
    assert staged.next_due_in == pytest.approx(0.000001, abs=1e-6)
    assert staged.now == NOON
    states = [store.get(job).state for job in (late, failed, exact, soon, held, done)]
    assert states == ["available"] * 3 + ["scheduled", "suspended", "completed"]


def test_database_clock(store: Store) -> None:
    """Without a given time the database's decides."""
    past, future = store.insert(
        Job.new(worker="w", schedule_in=-1), Job.new(worker="w", schedule_in=3600)
    )

    staged = store.stage()

    assert [job.id for job in staged.jobs] == [past.id]
    assert staged.next_due_in is not None
    assert 3000 < staged.next_due_in <= 3600
    assert store.get(future).state == "scheduled"


def test_nothing_there(store: Store) -> None:
    """An empty table is no error."""
    staged = store.stage()

    assert (staged.jobs, staged.next_due_in) == ([], None)


def test_oldest_first(store: Store) -> None:
    """Up to the limit the earliest go first, whatever their ids, so that none starves."""
    jobs = store.insert(due(-1), due(-3), due(-2), due(-3))

    staged = store.stage(limit=3, now=NOON)

    assert [job.id for job in staged.jobs] == [jobs[1].id, jobs[3].id, jobs[2].id]
    assert staged.next_due_in == -1
    assert [job.id for job in store.stage(limit=3, now=NOON).jobs] == [jobs[0].id]


def test_aside(store: Store) -> None:
    """Jobs to be left out are, also of what is due next."""
    first, second, third = store.insert(due(-3), due(-2), due(60))
    ids = [job.id or 0 for job in (first, third)]

    assert store.repo.transaction(lambda c: store.engine.first_due(c, NOON, [])) == first.id
    assert store.repo.transaction(lambda c: store.engine.first_due(c, NOON, ids)) == second.id
    staged = store.stage(now=NOON, aside=(ids[0], ids[1]))

    assert [job.id for job in staged.jobs] == [second.id]
    assert staged.next_due_in is None
    assert store.repo.transaction(lambda c: store.engine.first_due(c, NOON, ids)) is None


def test_queues(store: Store) -> None:
    """Each queue with an available job is named once, in order, and no other."""
    assert store.repo.transaction(store.engine.check_available) == []
    store.insert(*(Job.new(worker="w", queue=queue) for queue in ("b", "a", "ü", "b", "A")))
    store.insert(due(60, queue="later"), due(-1, queue="staged"))
    store.stage(now=NOON)

    assert set(store.repo.transaction(store.engine.check_available)) == {
        "a",
        "b",
        "A",
        "ü",
        "staged",
    }


def test_staged_queues_are_available(store: Store) -> None:
    """The queues of jobs staged in a transaction are named in that same transaction."""
    store.insert(due(-1, queue="mine"))

    def work(connection: Connection) -> list[str]:
        store.engine.stage_jobs(connection, 10, NOON, [])
        return store.engine.check_available(connection)

    assert store.repo.transaction(work) == ["mine"]


def test_locked_jobs_are_passed_over(pg_store: Store) -> None:
    """A job that somebody works on waits for the next pass, and is known to be due."""
    locked, free = pg_store.insert(due(-2), due(-1))
    with pg_store.repo.engine.connect() as other, other.begin():
        other.exec_driver_sql("BEGIN")
        query = text(f"SELECT 1 FROM {pg_store.jobs} WHERE id = :id FOR UPDATE")
        other.execute(query, {"id": locked.id})

        staged = pg_store.stage(now=NOON)

    assert [job.id for job in staged.jobs] == [free.id]
    assert staged.next_due_in == -2
    assert [job.id for job in pg_store.stage(now=NOON).jobs] == [locked.id]


def test_cancel_is_never_undone(pg_store: Store) -> None:
    """However cancelling and staging meet, a job that was cancelled stays so."""
    count = 3000
    jobs = pg_store.insert(*(due(-count + n) for n in range(count)))
    ready = threading.Barrier(3)

    def cancel() -> set[int]:
        cancelled: set[int] = set()
        ready.wait(30)
        for job in jobs[::3]:
            rows = pg_store.run(
                "UPDATE {jobs} SET state = 'cancelled' WHERE id = :id "
                "AND state IN ('scheduled', 'retryable') RETURNING id",
                id=job.id,
            )
            cancelled.update(row[0] for row in rows)
        return cancelled

    def stage() -> set[int]:
        staged: set[int] = set()
        ready.wait(30)
        while (done := pg_store.stage(limit=7, now=NOON)).next_due_in is not None:
            staged.update(job.id for job in done.jobs)
        return staged | {job.id for job in done.jobs}

    with ThreadPoolExecutor(3) as threads:
        cancelling = threads.submit(cancel)
        stagings = [threads.submit(stage) for _ in range(2)]
        cancelled = cancelling.result(60)
        first, second = (each.result(60) for each in stagings)

    assert first & second == set()
    assert (first | second) & cancelled == set()
    rows = dict(pg_store.run("SELECT id, cast(state AS text) FROM {jobs}"))
    assert {job_id for job_id, state in rows.items() if state == "cancelled"} == cancelled
    assert {job_id for job_id, state in rows.items() if state == "available"} == first | second
    assert len(first | second | cancelled) == count


def test_put_off_meanwhile(pg_store: Store) -> None:
    """A job that was put off while staging looked at it keeps its new time."""
    (job,) = pg_store.insert(due(-1))
    later = text(f"UPDATE {pg_store.jobs} SET scheduled_at = '2030-01-01' WHERE id = :id")
    with pg_store.repo.engine.connect() as other, other.begin():
        other.exec_driver_sql("BEGIN")
        other.execute(later, {"id": job.id})
        assert pg_store.stage(now=NOON).jobs == []

    assert pg_store.stage(now=NOON).jobs == []
    assert pg_store.get(job).state == "scheduled"


def test_a_row_that_fails(store: Store) -> None:
    """A row that can't be staged fails the pass, can be named, and be left out."""
    bad, good = store.insert(due(-2, queue="bad"), due(-1))
    if store.repo.dialect == "sqlite":
        store.run(
            "CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs WHEN new.queue = 'bad' "
            "BEGIN SELECT raise(ABORT, 'refused'); END"
        )
    else:
        store.run("ALTER TABLE {jobs} ADD CHECK (queue <> 'bad' OR state <> 'available')")

    with pytest.raises(DatabaseError):
        store.stage(now=NOON)

    found = store.repo.transaction(lambda c: store.engine.first_due(c, NOON, []))
    assert found == bad.id
    assert [job.id for job in store.stage(now=NOON, aside=(found or 0,)).jobs] == [good.id]


def test_a_row_that_a_trigger_keeps(pg_store: Store) -> None:
    """It is not said to be staged, and is known to be due still."""
    kept, staged = pg_store.insert(due(-2, queue="kept"), due(-1, state="retryable"))
    schema = pg_store.repo.config.prefix
    pg_store.run(
        f"CREATE FUNCTION {schema}.keep() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RETURN NULL; END $$"
    )
    pg_store.run(
        "CREATE TRIGGER keep BEFORE UPDATE ON {jobs} FOR EACH ROW WHEN (old.queue = 'kept') "
        f"EXECUTE FUNCTION {schema}.keep()"
    )

    done = pg_store.stage(now=NOON)

    assert [(job.id, job.queue, job.state) for job in done.jobs] == [
        (staged.id, "default", "retryable")
    ]
    assert done.next_due_in == -2
    assert pg_store.get(kept).state == "scheduled"


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-24T12:00:00Z",
        "2026-11-24T12:00:00.5Z",
        "2026-11-24T12:00:00.500000Z",
        "2026-11-24 12:00:00.5",
        "2026-11-24T12:00:00",
        "2026-11-24T12:00:00+00:00",
    ],
)
def test_however_times_are_written(sqlite_store: Store, written: str) -> None:
    """In SQLite times with any number of digits, and in other forms, sort and compare right."""
    values = "VALUES ('scheduled', 'w', :at) RETURNING id"
    insert = f"INSERT INTO {{jobs}} (state, worker, scheduled_at) {values}"
    ((job_id,),) = sqlite_store.run(insert, at=written)
    moment = sqlite_store.get(job_id).scheduled_at
    assert moment is not None
    before, after = sqlite_store.insert(
        *(
            Job.new(worker="w", scheduled_at=moment + timedelta(milliseconds=shift))
            for shift in (-1, 1)
        )
    )

    early = sqlite_store.stage(now=moment - timedelta(milliseconds=1))
    assert [job.id for job in early.jobs] == [before.id]
    assert early.next_due_in == pytest.approx(0.001, abs=1e-6)
    late = sqlite_store.stage(now=moment + timedelta(milliseconds=1))
    assert [job.id for job in late.jobs] == [job_id, after.id]


def test_unreadable_time(sqlite_store: Store) -> None:
    """A time that nobody can read never comes, and hinders no other."""
    sqlite_store.run(
        "INSERT INTO {jobs} (state, worker, scheduled_at) VALUES ('scheduled', 'w', 'soon')"
    )
    sqlite_store.insert(due(-1))

    staged = sqlite_store.stage(now=NOON)

    assert len(staged.jobs) == 1
    assert staged.next_due_in is None
