"""Which way rescuing goes: by the primary keys and the compound index only, in any table."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.test_plans import COMPOUND, NOON, SHOWN, explained, fill, pages_touched
from tests.engines.turning import Hand

PRIMARY = "oban_jobs_pkey"
COUNTED = "(ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF)"


def works(hand: Hand, jobs: list[Job]) -> dict[str, Callable[[Connection], Any]]:
    """Give all that is done for a producer that is dead and has these jobs."""
    engine, uuid, queue = hand.store.engine, hand.claimant.uuid, hand.queue
    ids = [job.id or 0 for job in jobs]

    def orphans(age: float | None) -> Callable[[Connection], Any]:
        return lambda c: engine.find_orphans(c, uuid, queue, 100, [1, 2], age=age, now=NOON)

    return {
        "report": lambda c: engine.report_producers(c, "me", 60.0, None),
        "hold": lambda c: engine.hold_producer(c, uuid, "x"),
        "orphans": orphans(None),
        "aged": orphans(60.0),
        "used up": lambda c: engine.find_used_up(c, queue, 100, [1, 2]),
        "rescue": lambda c: engine.rescue_jobs(c, ids, "executing", "gone", None),
        "settle": lambda c: engine.settle_producer(c, uuid, "x", [queue]),
    }


USED = {
    "report": {COMPOUND},
    "hold": set(),
    "orphans": {COMPOUND},
    "aged": {COMPOUND},
    "used up": {COMPOUND, PRIMARY},
    "rescue": {PRIMARY},
    "settle": {COMPOUND},
}


def check_plans(store: Store) -> None:
    """Nothing is scanned, sorted or joined but by these indexes, however many rows are claimed."""
    store.run("INSERT INTO {jobs} (queue, worker) SELECT 'q1', 'w' FROM generate_series(1, 300)")
    hand = Hand(store, queue="q1")
    for name, work in works(hand, hand.fetch(200)).items():
        plan = explained(store, work, options=SHOWN)
        lines = plan.splitlines()
        used = {
            line.split("Scan using ")[1].split(" ")[0]
            for line in lines
            if "oban_jobs" in line and "Scan using" in line
        }
        assert used == USED[name], (name, plan)
        for word in ("Seq Scan on oban_jobs", "Sort", "Hash Join", "Merge Join", "Bitmap"):
            assert word not in plan, (name, plan)
        for place, line in enumerate(lines):
            if f"using {COMPOUND}" in line:
                assert "(state = " in lines[place + 1], plan
                assert name == "report" or "(queue = " in lines[place + 1], plan
    store.run("UPDATE {jobs} SET state = 'completed' WHERE state = 'executing'")


@pytest.mark.slow
def test_plans(pg_store: Store) -> None:
    """On an empty, full, badly known, well known and truncated table, plans are the same."""
    pg_store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    check_plans(pg_store)
    fill(pg_store, "completed", 50_000)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "available", 50_000)
    check_plans(pg_store)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "executing", 20_000)
    check_plans(pg_store)
    pg_store.run("TRUNCATE {jobs}")
    check_plans(pg_store)


@pytest.mark.slow
def test_costs_are_flat(pg_store: Store) -> None:
    """What is read does not grow with the backlog, nor with what has ended."""
    fill(pg_store, "available", 100_000)
    fill(pg_store, "completed", 50_000)
    pg_store.run("ANALYZE {jobs}")
    hand = Hand(pg_store, queue="q1")
    for name, work in works(hand, hand.fetch(10)).items():
        pages = pages_touched(explained(pg_store, work, options=COUNTED))
        assert pages, name
        assert max(pages) < 500, (name, pages)


@pytest.mark.slow
def test_sqlite_plans(sqlite_store: Store) -> None:
    """SQLite goes by the same indexes, before and after it has counted its rows."""
    hand = Hand(sqlite_store, queue="q1")
    for analyzed in (False, True):
        if analyzed:
            sqlite_store.run(
                "INSERT INTO {jobs} (state, worker, queue) "
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) "
                "SELECT iif(i % 2, 'completed', 'available'), 'w', 'q' || (i % 5) FROM n"
            )
            sqlite_store.run("ANALYZE")
        sqlite_store.insert(*(Job.new(worker="w", queue="q1") for _ in range(20)))
        for name, work in works(hand, hand.fetch(10)).items():
            plan = explained(sqlite_store, work, options="QUERY PLAN")
            for line in plan.splitlines():
                if "oban_jobs" not in line:
                    continue
                primary = "USING INTEGER PRIMARY KEY" in line
                assert primary or f"{COMPOUND} (state=?" in line, (name, plan)
            assert "TEMP B-TREE FOR ORDER" not in plan, (name, plan)
