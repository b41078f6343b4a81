"""What one batch deletes, and how the databases find it."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from oban_actors.engines.prune import ENDED, EndedGroup, Position, PruneLook, PruneLooked
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.test_plans import COMPOUND, SHOWN, explained, fill
from tests.plugins.pruning import NOON, ended, ids

MINUTE = 60.0


def prune(
    store: Store,
    group: EndedGroup,
    after: Position | None = None,
    rows: int = 100,
    age: float | None = MINUTE,
    aside: tuple[int, ...] = (),
) -> PruneLooked:
    """Do one batch."""
    look = PruneLook(group, after, rows)
    return store.repo.transaction(lambda c: store.engine.prune_jobs(c, look, age, aside, NOON))


def groups(store: Store) -> list[EndedGroup]:
    """Find the groups."""
    return store.repo.transaction(store.engine.ended_groups, read_only=True)


@pytest.mark.parametrize("state", ENDED)
def test_by_the_time_at_which_it_ended(store: Store, state: str) -> None:
    """However early a job was due: its age counts from its end, by the state's own column."""
    early = NOON - timedelta(days=9)
    old = ended(store, state, 61, due=early)
    exact = ended(store, state, 60, due=early)
    young = ended(store, state, 59.9, due=early - timedelta(days=1))
    others = [ended(store, other, 61, due=early) for other in ENDED if other != state]

    looked = prune(store, EndedGroup(state, "default", 0))  # type: ignore[arg-type]  # one of ENDED

    assert (looked.seen, looked.pruned) == (3, (old, exact))
    assert ids(store) == [young, *others]


def test_without_the_time_by_the_latest_other_one(store: Store) -> None:
    """A row that lacks it, as others may write one, goes by when it last showed life."""
    later = NOON + timedelta(days=1)
    group = EndedGroup("completed", "default", 0)
    gone = ended(store, "completed", 61, completed_at=None)
    tried = ended(store, "completed", 61, completed_at=None, attempted_at=NOON)
    cancelled = ended(store, "cancelled", 61, cancelled_at=None, attempted_at=None, due=later)
    store.run("UPDATE {jobs} SET attempted_at = NULL WHERE id = :id", id=gone)
    never = ended(store, "completed", 61, completed_at=None, attempted_at=None, due=later)

    assert prune(store, group).pruned == (gone,)
    assert prune(store, EndedGroup("cancelled", "default", 0)).pruned == (cancelled,)
    assert ids(store) == sorted([tried, never])


def test_what_has_not_ended_stays(store: Store) -> None:
    """No state but the three is looked at, whatever times its rows have."""
    states = ("available", "scheduled", "retryable", "executing", "suspended")
    alive = [ended(store, "completed", 86_400) for _ in states]
    for job_id, state in zip(alive, states, strict=True):
        store.run(f"UPDATE {{jobs}} SET state = '{state}' WHERE id = :id", id=job_id)

    assert groups(store) == []
    for state in ENDED:
        assert prune(store, EndedGroup(state, "default", 0)).seen == 0
    assert ids(store) == alive


def test_on_from_where_a_look_stopped(store: Store) -> None:
    """In the index's order, and no row twice nor none, also among those of one moment."""
    group = EndedGroup("completed", "default", 0)
    made = [ended(store, "completed", 61, due=NOON - timedelta(hours=n // 3)) for n in range(9)]
    wanted = sorted(made, key=lambda each: (-((each - made[0]) // 3), each))

    found, after = [], None
    while (looked := prune(store, group, after, rows=2)).seen:
        found += sorted(looked.pruned, key=wanted.index)
        after = looked.last

    assert found == wanted
    assert looked == PruneLooked(0, None, ())


def test_a_look_that_deletes_nothing(store: Store) -> None:
    """Without an age, and of rows that are set aside, none goes; it tells where they stand."""
    job_id = ended(store, "discarded", 61)
    group = EndedGroup("discarded", "default", 0)

    looked = prune(store, group, age=None)
    assert looked.last is not None
    assert (looked.seen, looked.pruned, looked.last.job_id) == (1, (), job_id)
    assert prune(store, group, aside=(job_id,)).pruned == ()
    assert ids(store) == [job_id]


def test_groups_are_found_from_one_to_the_next(store: Store) -> None:
    """Each state, queue and priority that has an ended job, once."""
    for queue in ("b", "a", "ü"):
        for priority in (3, 0):
            for _ in range(2):
                job_id = ended(store, "completed", 61, queue)
                store.run("UPDATE {jobs} SET priority = :p WHERE id = :id", p=priority, id=job_id)
    ended(store, "discarded", 61, "a")
    store.insert(Job.new(worker="w", queue="waiting"))

    assert sorted(groups(store)) == sorted(
        [EndedGroup("completed", queue, p) for queue in ("a", "b", "ü") for p in (0, 3)]
        + [EndedGroup("discarded", "a", 0)]
    )


def test_times_as_others_write_them(sqlite_store: Store) -> None:
    """With few digits or a blank, with or without a Z; what is no time falls back."""
    for value, gone in (
        ("2026-11-24 11:58:59", True),
        ("2026-11-24T11:59:00Z", True),
        ("2026-11-24T11:59:00.5Z", False),
        ("2026-11-24 11:59:01", False),
        ("soon", True),
        (1764000000, True),
    ):
        job_id = ended(sqlite_store, "completed", 61)
        sqlite_store.run(
            "UPDATE {jobs} SET completed_at = :value WHERE id = :id", value=value, id=job_id
        )
        looked = prune(sqlite_store, EndedGroup("completed", "default", 0))
        assert looked.pruned == ((job_id,) if gone else ()), value
        sqlite_store.run("DELETE FROM {jobs}")


def test_times_without_end(pg_store: Store) -> None:
    """PostgreSQL's infinities, which Python can't read, stop no look."""
    group = EndedGroup("completed", "default", 0)
    first = ended(pg_store, "completed", 61)
    pg_store.run("UPDATE {jobs} SET scheduled_at = '-infinity', completed_at = '-infinity'")
    last = ended(pg_store, "completed", 61)
    pg_store.run(
        "UPDATE {jobs} SET scheduled_at = 'infinity', completed_at = 'infinity' WHERE id = :id",
        id=last,
    )

    looked = prune(pg_store, group)
    assert looked.pruned == (first,)
    assert prune(pg_store, group, looked.last).seen == 0
    assert ids(pg_store) == [last]


def test_locked_rows_are_passed_over(pg_store: Store) -> None:
    """It waits for nobody: what somebody has locked is left for another time."""
    group = EndedGroup("completed", "default", 0)
    held, free = ended(pg_store, "completed", 62), ended(pg_store, "completed", 61)
    locked, done = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        table = pg_store.jobs
        connection.execute(text(f"SELECT id FROM {table} WHERE id = {held} FOR KEY SHARE"))
        locked.set()
        assert done.wait(60)

    holder = threading.Thread(target=pg_store.repo.transaction, args=(hold,))
    holder.start()
    try:
        assert locked.wait(30)
        assert prune(pg_store, group).pruned == (free,)
    finally:
        done.set()
        holder.join(30)
    assert prune(pg_store, group).pruned == (held,)


def test_a_job_that_was_retried_meanwhile_stays(pg_store: Store) -> None:
    """The state is looked at again once the row is locked: what lives by then is not deleted."""
    job_id = ended(pg_store, "discarded", 61)
    group = EndedGroup("discarded", "default", 0)
    found: list[PruneLooked] = []

    def retry(connection: Connection) -> None:
        table = pg_store.jobs
        statement = f"UPDATE {table} SET state = 'available' WHERE id = {job_id}"
        connection.execute(text(statement))
        found.append(prune(pg_store, group))

    pg_store.repo.transaction(retry)

    assert found[0].pruned == ()
    assert prune(pg_store, group).seen == 0
    assert ids(pg_store) == [job_id]


def plan(store: Store, options: str) -> str:
    """Tell how a batch, and the look for groups, go."""
    look = PruneLook(EndedGroup("completed", "q1", 0), None, 5000)
    batch = explained(
        store, lambda c: store.engine.prune_jobs(c, look, MINUTE, [1], NOON), options=options
    )
    return batch + explained(store, store.engine.ended_groups, options=options)


def check_plan(found: str) -> None:
    """Each row is read through the index for fetching or by its id, and nothing is sorted."""
    for word in ("Seq Scan", "Bitmap", "Hash Join", "Merge Join", "staging_index"):
        assert word not in found, found
    assert found.count(f"using {COMPOUND}") == 1 + 2 * len(ENDED), found
    assert found.count("oban_jobs_pkey") == 2, found
    assert found.count("Sort Key") == 1, found


@pytest.mark.slow
def test_plans(pg_store: Store) -> None:
    """The same on an empty, full, badly known and well known table."""
    pg_store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    check_plan(plan(pg_store, SHOWN))
    fill(pg_store, "completed", 50_000, step="-1 second")
    check_plan(plan(pg_store, SHOWN))
    pg_store.run("ANALYZE {jobs}")
    check_plan(plan(pg_store, SHOWN))
    fill(pg_store, "available", 50_000)
    fill(pg_store, "scheduled", 50_000)
    check_plan(plan(pg_store, SHOWN))
    pg_store.run("ANALYZE {jobs}")
    check_plan(plan(pg_store, SHOWN))


def test_sqlite_plans(sqlite_store: Store) -> None:
    """SQLite goes by the same index, into its middle, and sorts nothing."""
    for _ in range(2):
        found = plan(sqlite_store, "QUERY PLAN")
        assert "TEMP B-TREE" not in found, found
        assert "(state=? AND queue=? AND priority=? AND scheduled_at>?)" in found, found
        assert found.count("(state=? AND queue=? AND priority>?)") == len(ENDED), found
        assert found.count("(state=? AND queue>?)") == len(ENDED), found
        assert "SCAN oban_jobs" not in found, found
        for _ in range(20):
            ended(sqlite_store, "completed", 61, "q1")
        sqlite_store.run("ANALYZE")
