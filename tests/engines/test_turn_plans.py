"""Which way turns and beats go: by the primary key and the compound index only, in any table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from oban_actors.claim import Ack
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.test_plans import COMPOUND, NOON, SHOWN, explained, fill
from tests.engines.turning import ERROR, Hand, ack

PRIMARY = "oban_jobs_pkey"
COUNTED = "(ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF)"


def works(hand: Hand, jobs: list[Job]) -> dict[str, Callable[[Connection], Any]]:
    """Give all that is done on behalf of a producer, with these jobs of its own."""
    engine, claimant, queue = hand.store.engine, hand.claimant, hand.queue
    completed = [ack(job) for job in jobs]
    failed = [ack(job, "retryable", error=ERROR) for job in jobs]
    held = [job.id or 0 for job in jobs[:5]]

    def turn(acks: list[Ack], *, careful: bool = False) -> Callable[[Connection], Any]:
        return lambda c: engine.take_turn(c, claimant, queue, acks, 50, None, careful=careful)

    job_id, at = jobs[0].id or 0, jobs[0].attempted_at or NOON
    return {
        "fetch": turn([]),
        "complete": turn(completed),
        "record": turn(failed),
        "careful": turn(failed, careful=True),
        "stale": turn([replace(each, job_id=-each.job_id) for each in completed]),
        "release": lambda c: engine.release_jobs(c, claimant, queue, held, None),
        "beat": lambda c: engine.beat(c, [hand.beat()], None),
        "forget": lambda c: engine.forget_producer(c, claimant),
        "complete one": lambda c: engine.complete_job(c, claimant, job_id, at, None),
        "record one": lambda c: engine.record_error(c, claimant, job_id, at, ERROR),
    }


USED = {
    "fetch": {COMPOUND, PRIMARY},
    "complete": {COMPOUND, PRIMARY},
    "record": {COMPOUND, PRIMARY},
    "careful": {COMPOUND, PRIMARY},
    "stale": {COMPOUND, PRIMARY},
    "release": {COMPOUND, PRIMARY},
    "beat": {COMPOUND},
    "forget": {COMPOUND},
    "complete one": {PRIMARY},
    "record one": {PRIMARY},
}


def check_plans(store: Store) -> None:
    """Nothing is scanned, sorted or joined but by these indexes, however many rows are claimed."""
    store.run("INSERT INTO {jobs} (queue, worker) SELECT 'q1', 'w' FROM generate_series(1, 300)")
    hand = Hand(store, queue="q1")
    for name, work in works(hand, hand.fetch(200)).items():
        plan = explained(store, work, options=SHOWN)
        lines = plan.splitlines()
        used = {
            index
            for line in lines
            if "oban_jobs" in line and "Scan using" in line
            for index in [line.split("Scan using ")[1].split(" ")[0]]
        }
        assert used == USED[name], (name, plan)
        for word in ("Seq Scan on oban_jobs", "Sort", "Hash Join", "Merge Join", "Bitmap"):
            assert word not in plan, plan
        scans = [place for place, line in enumerate(lines) if f"using {COMPOUND}" in line]
        for place in scans:
            assert "(state = " in lines[place + 1], plan
            assert "(queue = " in lines[place + 1], plan
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
    fill(pg_store, "scheduled", 50_000)
    check_plans(pg_store)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "executing", 20_000)
    check_plans(pg_store)
    pg_store.run("TRUNCATE {jobs}")
    check_plans(pg_store)


@pytest.mark.slow
def test_costs_are_flat(pg_store: Store) -> None:
    """What a turn or a beat reads does not grow with the backlog, nor with others' backlogs."""
    fill(pg_store, "available", 100_000)
    fill(pg_store, "completed", 50_000)
    pg_store.run("ANALYZE {jobs}")
    hand = Hand(pg_store, queue="q1")
    jobs = hand.fetch(10)
    for name, work in works(hand, jobs).items():
        if name in ("fetch", "complete", "record", "careful", "stale"):
            continue
        plan = explained(pg_store, work, options=COUNTED)
        pages = [
            int(word.split("=")[1].rstrip("',)"))
            for line in plan.splitlines()
            if "Planning" not in line
            for word in line.split()
            if word.startswith(("hit=", "read="))
        ]
        assert max(pages) < 500, (name, plan)


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
                assert primary or f"{COMPOUND} (state=? AND queue=?" in line, (name, plan)
            assert "TEMP B-TREE FOR ORDER" not in plan, (name, plan)
