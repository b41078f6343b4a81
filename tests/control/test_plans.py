"""Which way PostgreSQL goes: to the jobs by the index, to each batch by the primary key."""

from collections.abc import Iterator

import pytest

from oban_actors.engines.control import CANCELLABLE
from oban_actors.filters import choose
from tests.engines.conftest import Store, store_on
from tests.engines.test_plans import COMPOUND, SHOWN, explained, fill
from tests.support.databases import Database


@pytest.fixture
def pg_store(pg: Database) -> Iterator[Store]:
    """A job store on PostgreSQL."""
    yield from store_on(pg)


def check_plans(store: Store) -> None:
    """To the jobs of a queue only by the index with it; to a batch only by the primary key."""
    for filters in ({"state": "available", "queue": "q1"}, {"queue": ["q1", "q2"]}):
        chosen = choose(store.engine.table, "postgresql", None, filters)
        looking = explained(
            store,
            lambda c: store.engine.find_jobs(c, chosen, CANCELLABLE),  # noqa: B023 (called at once)
            options=SHOWN,
        )
        assert looking.count(" on oban_jobs") == 1, looking
        assert f"using {COMPOUND}" in looking, looking
        assert "(queue = " in looking.partition("Index Cond")[2].splitlines()[0], looking
        changing = explained(
            store,
            lambda c: store.engine.cancel_jobs(c, [1, 2, 3], chosen.holding, None, wait=False),  # noqa: B023 (as above)
            options=SHOWN,
        )
        assert "using oban_jobs_pkey" in changing, changing
        assert COMPOUND not in changing, changing
        assert "Seq Scan" not in changing, changing
        assert "Sort" not in changing, changing


@pytest.mark.slow
@pytest.mark.db
def test_plans(pg_store: Store) -> None:
    """On an empty, full, badly known, well known and truncated table, the way is the same."""
    pg_store.run("ALTER TABLE {jobs} SET (autovacuum_enabled = off)")
    check_plans(pg_store)
    fill(pg_store, "completed", 100_000)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "available", 50_000)
    check_plans(pg_store)
    pg_store.run("ANALYZE {jobs}")
    check_plans(pg_store)
    pg_store.run("TRUNCATE {jobs}")
    check_plans(pg_store)
    fill(pg_store, "available", 1_000)
    check_plans(pg_store)
