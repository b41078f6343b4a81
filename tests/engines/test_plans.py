"""Which way the databases go: every hot statement by an index, whatever the table's state."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, event

from oban_actors.repo.message import message_of, send
from tests.engines.conftest import Store

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COMPOUND = "oban_jobs_state_queue_priority_scheduled_at_id_index"
STAGING = "oban_actors_staging_index"

# Without ANALYZE, PostgreSQL does not show the recursive part's own plan.
SHOWN = "(ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"

FILL = """
INSERT INTO {jobs} (state, queue, worker, scheduled_at)
SELECT cast('{state}' AS {type}), 'q' || (n % 5), 'w', timestamp '{noon}' + n * interval '{step}'
FROM generate_series(1, {count}) AS n
"""


def fill(store: Store, state: str, count: int, step: str = "1 second") -> None:
    """Put many rows in."""
    store.run(
        FILL.format(
            jobs="{jobs}",
            state=state,
            type=f"{store.repo.config.prefix}.oban_job_state",
            noon="2026-11-24 12:00:00",
            step=step,
            count=count,
        )
    )


def explained(store: Store, work: Callable[[Connection], Any], *, options: str) -> str:
    """Do the work with EXPLAIN before each of its statements, and roll it back."""
    plans: list[str] = []

    def before(
        connection: Connection, cursor: Any, statement: str, parameters: Any, *_: object
    ) -> None:
        if statement.lstrip().startswith(("WITH", "SELECT", "UPDATE", "DELETE")):
            # Of many, the first stands for all.
            values = parameters[0] if isinstance(parameters, list) else parameters
            cursor.execute(f"EXPLAIN {options} {statement}", values)
            plans.extend(str(row) for row in cursor.fetchall())

    event.listen(store.repo.engine, "before_cursor_execute", before)
    try:
        with pytest.raises(ZeroDivisionError):
            store.repo.transaction(lambda connection: (work(connection), 1 // 0))
    finally:
        event.remove(store.repo.engine, "before_cursor_execute", before)
    return "\n".join(plans)


def stage_plan(store: Store) -> str:
    """Tell how staging goes."""
    return explained(store, lambda c: store.engine.stage_jobs(c, 5000, NOON, [1, 2]), options=SHOWN)


def available_plan(store: Store) -> str:
    """Tell how queues with work are found."""
    return explained(store, store.engine.check_available, options=SHOWN)


def prepared_plan(
    connection: Connection, statement: str, values: Mapping[str, Any], options: str = SHOWN
) -> str:
    """Tell how a statement of a message goes where a session has prepared it."""
    one = message_of((), (statement,), commit=False)
    (name,) = one.names
    send(connection, one.preparing([name]).removesuffix("COMMIT"), None)
    setting, call = one.short.split("; ", 1)
    rows, *_ = send(connection, f"{setting}; EXPLAIN {options} {call}; DEALLOCATE {name}", values)
    return "\n".join(map(str, rows))


def message_plans(store: Store, *, prepared: bool) -> list[str]:
    """Tell how each statement of a pass in one message goes."""
    values = {
        "now": NOON.replace(tzinfo=None),
        "limit": 5000,
        "aside": [1, 2],
        "insert_channel": "a",
        "beat_channel": "b",
        "beat": "{}",
    }

    def explain(connection: Connection) -> list[str]:
        connection.exec_driver_sql("SELECT set_config('oban_actors.leads', 'yes', true)")
        assert store.engine.pass_sql is not None
        if prepared:
            return [prepared_plan(connection, each, values) for each in store.engine.pass_sql]
        return [
            "\n".join(map(str, send(connection, f"EXPLAIN {SHOWN} {statement}", values)[0]))
            for statement in store.engine.pass_sql
        ]

    return store.repo.transaction(explain)


def check_plans(store: Store) -> None:
    """Only the staging index, the primary key and one condition on the state are used."""
    check_paths(stage_plan(store), available_plan(store))
    for prepared in (False, True):
        stage, tell, _, next_due = message_plans(store, prepared=prepared)
        check_paths(f"{stage}\n{next_due}", tell)


def check_paths(staging: str, available: str) -> None:
    """What is due is found by one index and written where it is, and queues by another index."""
    assert staging.count(f"using {STAGING}") == 2, staging
    assert "Tid Scan on oban_jobs" in staging, staging
    assert COMPOUND not in staging, staging
    for word in ("Seq Scan", "Sort", "Hash Join", "Merge Join"):
        assert word not in staging, staging
    assert available.count(f"using {COMPOUND}") == 2, available
    assert "Seq Scan" not in available, available


@pytest.mark.slow
def test_plans(pg_store: Store) -> None:
    """On an empty, full, badly known, well known and truncated table, plans are the same."""
    pg_store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    check_plans(pg_store)
    fill(pg_store, "completed", 100_000)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "scheduled", 100_000)
    fill(pg_store, "available", 50_000)
    check_plans(pg_store)
    fill(pg_store, "retryable", 20_000, step="-1 second")
    check_plans(pg_store)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    pg_store.run("TRUNCATE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "scheduled", 1000)
    check_plans(pg_store)


def pages_touched(plan: str) -> list[int]:
    """Read how many pages each step of running touched; those of planning stand apart."""
    pages, planning = [], False
    for line in plan.splitlines():
        if "Buffers:" in line and not planning:
            words = (word.rstrip("',)") for word in line.split())
            pages += [
                int(word.split("=")[1]) for word in words if word.startswith(("hit=", "read="))
            ]
        planning = "Planning:" in line
    return pages


def test_pages_of_planning_do_not_count() -> None:
    """They stand on the line after the word, and those of every other step do count."""
    steps = ("A", "Buffers: shared hit=2 read=300", "Planning:", "Buffers: shared hit=113")
    plan = "\n".join([*steps, "B", "Buffers: shared hit=3"])

    assert pages_touched(plan) == [2, 300, 3]


@pytest.mark.slow
def test_costs_are_flat(pg_store: Store) -> None:
    """A pass with nothing due, and the list of queues, touch a few pages of a large table."""
    for state in ("scheduled", "available"):
        fill(pg_store, state, 100_000)
    pg_store.run("ANALYZE {jobs}")

    for work in (
        lambda c: pg_store.engine.stage_jobs(c, 5000, NOON, []),
        pg_store.engine.check_available,
    ):
        plan = explained(
            pg_store, work, options="(ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF)"
        )
        pages = pages_touched(plan)
        assert pages, plan
        assert max(pages) < 100, plan


@pytest.mark.slow
def test_sqlite_plans(sqlite_store: Store) -> None:
    """SQLite goes by the same indexes, before and after it has counted its rows."""
    for analyzed in (False, True):
        if analyzed:
            sqlite_store.run(
                "INSERT INTO {jobs} (state, worker, queue) "
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) "
                "SELECT iif(i % 2, 'scheduled', 'available'), 'w', 'q' || (i % 5) FROM n"
            )
            sqlite_store.run("ANALYZE")
        staging = explained(
            sqlite_store,
            lambda c: sqlite_store.engine.stage_jobs(c, 50, datetime(2100, 1, 1, tzinfo=UTC), []),
            options="QUERY PLAN",
        )
        assert staging.count(STAGING) == 2, staging
        assert "USING INDEX oban_jobs_state" not in staging, staging
        assert "TEMP B-TREE" not in staging, staging
        available = explained(
            sqlite_store, sqlite_store.engine.check_available, options="QUERY PLAN"
        )
        assert available.count(f"USING COVERING INDEX {COMPOUND}") == 2, available
