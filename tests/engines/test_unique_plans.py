"""Which way the looks for unique jobs go, whatever the table's state."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection

from oban_actors.job import Job
from oban_actors.repo import indexes
from oban_actors.repo.key_indexes import KeyIndex
from oban_actors.repo.message import Rows, send
from tests.engines.conftest import Store
from tests.engines.test_plans import SHOWN, explained, prepared_plan

COUNT = 50_000
FILL = """
INSERT INTO {jobs} (state, queue, worker, args, meta)
SELECT cast('{state}' AS {type}), 'q', '{worker}', jsonb_build_object('id', n, 'kind', 'x'),
  jsonb_build_object('order', n)
FROM generate_series(1, {count}) AS n
"""
WHOLE: dict[str, Any] = {"period": None}
WAYS = {
    "args": WHOLE,
    "period": {"period": 60},
    "keys": {"period": None, "keys": ["id"]},
    "meta": {"period": None, "fields": ["worker", "meta"]},
    "keys of meta": {"period": None, "fields": ["worker", "meta"], "keys": ["order"]},
    "other workers": {"period": None, "fields": ["args"]},
}
NEED_JSON = ("keys", "meta", "keys of meta")
KEYS = {"keys": ("id",), "keys of meta": ("order",)}
BUFFERS = "(ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF)"
MOST_PAGES = 700
"""Of 8 kB; the table has more than 1,500, and two hundred rows of a worker are looked at twice."""


ELIXIR = (
    "CREATE INDEX oban_jobs_args_index ON {jobs} USING gin (args)",
    "CREATE INDEX oban_jobs_meta_index ON {jobs} USING gin (meta)",
)


def add_elixir_indexes(store: Store) -> None:
    """Make the indexes on JSON, as `elixir_indexes=True` does."""
    for statement in ELIXIR:
        store.run(statement)


def fill(store: Store, state: str, worker: str = "w", count: int = COUNT) -> None:
    """Put many rows in."""
    kind = f"{store.repo.config.prefix}.oban_job_state"
    store.run(FILL.format(state=state, worker=worker, type=kind, count=count, jobs="{jobs}"))


def job(way: str, number: int = COUNT * 2) -> Job:
    """Make a job that is unique in this way and not there, unless its number is."""
    args = {"id": number, "kind": "x"}
    return Job.new(args, worker="w", queue="q", meta={"order": number}, unique=WAYS[way])


def plan(store: Store, way: str, options: str = SHOWN) -> str:
    """Tell how it is looked for."""
    return explained(store, lambda c: store.engine.find_same(c, [job(way)], None), options=options)


class Undone(Exception):
    """Nothing is kept of what was explained."""


def message_plan(store: Store, way: str, options: str = SHOWN) -> str:
    """Tell how it is looked for by the one message, where a session has prepared that."""
    shown: list[str] = []

    def work(connection: Connection) -> None:
        def explain(statements: Sequence[str], values: Mapping[str, Any]) -> list[Rows]:
            *before, last = statements
            send(connection, "; ".join(before), values)
            shown.append(prepared_plan(connection, last, values, options))
            raise Undone

        new = job(way)
        insert = store.engine.unique_insert(new)
        assert insert is not None
        insert(connection, explain, new, None, {"channel": "c", "payloads": "[]"})

    with pytest.raises(Undone):
        store.repo.transaction(work)
    return shown[0]


def done(plan: str) -> Iterator[str]:
    """Leave out what was planned for an index that is not there, and is never done."""
    kept = True
    for line in plan.splitlines():
        if "->" in line:
            kept = "never executed" not in line
        if kept:
            yield line


def check(store: Store, *, full: bool) -> None:
    """Each way has its index, and none reads the table."""
    for way in WAYS:
        for tell in (plan, message_plan):
            found = "\n".join(done(tell(store, way)))
            for part in ("unfinished", "finished"):
                assert f"using oban_actors_{part}_index" in found, f"{way}: {found}"
            assert not re.search(r"using oban_jobs_pkey|Sort Key", found), f"{way}: {found}"
            if full:
                assert "Seq Scan" not in found, f"{way}: {found}"
    if full:
        for tell in (plan, message_plan):
            assert "oban_jobs_args_index" in tell(store, "keys")
            assert "oban_jobs_meta_index" in tell(store, "meta")


@pytest.mark.slow
def test_plans(pg_store: Store) -> None:
    """On an empty, full, badly known, well known and truncated table, plans are the same."""
    pg_store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    add_elixir_indexes(pg_store)
    check(pg_store, full=False)
    pg_store.run("ANALYZE {jobs}")
    fill(pg_store, "completed")
    check(pg_store, full=True)
    pg_store.run("ANALYZE {jobs}")
    fill(pg_store, "available")
    check(pg_store, full=True)
    pg_store.run("ANALYZE {jobs}")
    check(pg_store, full=True)
    pg_store.run("TRUNCATE {jobs}")
    check(pg_store, full=False)
    fill(pg_store, "scheduled")
    check(pg_store, full=True)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_costs_are_flat(pg_store: Store, way: str) -> None:
    """A look touches few pages of a large table, whether it finds something or not.

    What is unique by a part of a document needs Elixir's indexes for that.
    """
    if way in NEED_JSON:
        add_elixir_indexes(pg_store)
    for state in ("completed", "available"):
        fill(pg_store, state)
    pg_store.run("ANALYZE {jobs}")

    for tell in (plan, message_plan):
        found = tell(pg_store, way, BUFFERS)
        pages = [int(each) for each in re.findall(r"(?:hit|read)=(\d+)", found)]
        # Entries that the index on JSON has not sorted in yet stand in a list of up to 4 MB.
        assert max(pages) < MOST_PAGES + (600 if way in NEED_JSON else 0), found
    there = pg_store.repo.transaction(
        lambda c: pg_store.engine.find_same(c, [job(way), job(way, 7)], None)
    )
    assert list(there) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("way", KEYS)
def test_an_index_for_keys(pg_store: Store, way: str) -> None:
    """With one of our own a look for them is flat too, on a badly known table and on any other."""
    pg_store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    index = KeyIndex("args" if way == "keys" else "meta", KEYS[way])
    indexes.ensure(pg_store.repo, pg_store.repo.config.prefix, [index])
    name = index.name
    for state in ("completed", "available"):
        fill(pg_store, state)
        assert name in plan(pg_store, way)
        assert name in message_plan(pg_store, way)
        pg_store.run("ANALYZE {jobs}")

    for tell in (plan, message_plan):
        found = tell(pg_store, way, BUFFERS)

        assert name in found
        pages = [int(each) for each in re.findall(r"(?:hit|read)=(\d+)", found)]
        assert max(pages) < MOST_PAGES, found
    there = pg_store.repo.transaction(
        lambda c: pg_store.engine.find_same(c, [job(way), job(way, 7)], None)
    )
    assert list(there) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("way", NEED_JSON)
def test_without_an_index_on_json(pg_store: Store, way: str) -> None:
    """The worker's rows are looked at, and only they, and what is there is found."""
    fill(pg_store, "completed", "w", 1_000)
    fill(pg_store, "completed", "v")
    pg_store.run("ANALYZE {jobs}")

    found = plan(pg_store, way, BUFFERS)

    pages = [int(each) for each in re.findall(r"(?:hit|read)=(\d+)", found)]
    assert max(pages) < 5_000, found
    there = pg_store.repo.transaction(
        lambda c: pg_store.engine.find_same(c, [job(way), job(way, 7), job(way, 5_000)], None)
    )
    assert list(there) == [1]


@pytest.mark.slow
def test_sqlite_plans(sqlite_store: Store) -> None:
    """SQLite goes by the index, before and after it has counted its rows."""
    for analyzed in (False, True):
        if analyzed:
            sqlite_store.run("ANALYZE")
        for way, count in (("args", "<expr>=?"), ("period", "<expr>>?"), ("keys", "state=?")):
            found = plan(sqlite_store, way, "QUERY PLAN")
            assert "USING INDEX oban_actors_unique_index" in found, found
            assert count in found, found
            assert "SCAN oban_jobs" not in found, found


@pytest.mark.slow
@pytest.mark.parametrize("analyzed", [False, True])
def test_sqlite_plan_for_many_numbers(sqlite_store: Store, *, analyzed: bool) -> None:
    """So many that not each way to write them is looked for, but those that rows begin with."""
    if analyzed:
        sqlite_store.run("ANALYZE")
    numbers = Job.new({str(n): n for n in range(9)}, worker="w", queue="q", unique=True)
    found = explained(
        sqlite_store,
        lambda c: sqlite_store.engine.find_same(c, [numbers], None),
        options="QUERY PLAN",
    )

    index = r"SEARCH oban_jobs USING (COVERING )?INDEX oban_actors_unique_index"
    way = r"worker=\? AND state=\? AND <expr>"
    assert re.search(rf"{index} \({way}=\?\)", found), found
    assert re.search(rf"{index} \({way}>\? AND <expr><\?\)", found), found
    assert "SCAN oban_jobs" not in found, found
