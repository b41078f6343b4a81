"""Checks of how what is done for a producer finds its rows, in any table."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.test_plans import COMPOUND, SHOWN, explained, fill, pages_touched
from tests.engines.turning import Hand

PRIMARY = "oban_jobs_pkey"
COUNTED = "(ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF)"
MOST_PAGES = 500

Work = Callable[[Connection], Any]
Works = Callable[[Hand, list[Job]], Mapping[str, Work]]
"""Gives all that is done for a producer that has these jobs, by name."""


def check_producer_plans(
    store: Store,
    works: Works,
    used: Mapping[str, set[str]],
    everywhere: Collection[str] = (),
    shown: Callable[..., str] = explained,
) -> None:
    """Nothing is scanned, sorted or joined but by these indexes, however many rows are claimed.

    Args:
        store: on PostgreSQL.
        works: what is done.
        used: by which indexes each finds rows.
        everywhere: which of them look at all queues.
        shown: gives the plans of one of them.

    """
    store.run("INSERT INTO {jobs} (queue, worker) SELECT 'q1', 'w' FROM generate_series(1, 300)")
    hand = Hand(store, queue="q1")
    for name, work in works(hand, hand.fetch(200)).items():
        plan = shown(store, work, options=SHOWN)
        lines = plan.splitlines()
        found = {
            line.split("Scan using ")[1].split(" ")[0]
            for line in lines
            if "oban_jobs" in line and "Scan using" in line
        }
        assert found == used[name], (name, plan)
        for word in ("Seq Scan on oban_jobs", "Sort", "Hash Join", "Merge Join", "Bitmap"):
            assert word not in plan, (name, plan)
        for place, line in enumerate(lines):
            if f"using {COMPOUND}" in line:
                assert "(state = " in lines[place + 1], plan
                assert name in everywhere or "(queue = " in lines[place + 1], plan
    store.run("UPDATE {jobs} SET state = 'completed' WHERE state = 'executing'")


def in_any_table(store: Store) -> Iterator[None]:
    """Let the table be empty, full, badly known, well known and truncated, one after the other."""
    store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    yield
    fill(store, "completed", 50_000)
    store.run("ANALYZE {jobs}")
    yield
    fill(store, "available", 50_000)
    fill(store, "scheduled", 50_000)
    yield
    store.run("ANALYZE {jobs}")
    yield
    fill(store, "executing", 20_000)
    yield
    store.run("TRUNCATE {jobs}")
    yield


def check_costs(store: Store, works: Works, but: Collection[str] = ()) -> None:
    """What is read does not grow with the backlog, nor with what has ended.

    Args:
        store: on PostgreSQL.
        works: what is done.
        but: of which what others measure.

    """
    fill(store, "available", 100_000)
    fill(store, "completed", 50_000)
    store.run("ANALYZE {jobs}")
    hand = Hand(store, queue="q1")
    for name, work in works(hand, hand.fetch(10)).items():
        if name in but:
            continue
        pages = pages_touched(explained(store, work, options=COUNTED))
        assert pages, name
        assert max(pages) < MOST_PAGES, (name, pages)


def check_sqlite_plans(store: Store, works: Works, everywhere: Collection[str] = ()) -> None:
    """SQLite goes by the same indexes, before and after it has counted its rows."""
    hand = Hand(store, queue="q1")
    for analyzed in (False, True):
        if analyzed:
            store.run(
                "INSERT INTO {jobs} (state, worker, queue) "
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) "
                "SELECT iif(i % 2, 'completed', 'available'), 'w', 'q' || (i % 5) FROM n"
            )
            store.run("ANALYZE")
        store.insert(*(Job.new(worker="w", queue="q1") for _ in range(20)))
        for name, work in works(hand, hand.fetch(10)).items():
            plan = explained(store, work, options="QUERY PLAN")
            columns = "state=?" if name in everywhere else "state=? AND queue=?"
            for line in plan.splitlines():
                if "oban_jobs" not in line:
                    continue
                primary = "USING INTEGER PRIMARY KEY" in line
                assert primary or f"{COMPOUND} ({columns}" in line, (name, plan)
            assert "TEMP B-TREE FOR ORDER" not in plan, (name, plan)
