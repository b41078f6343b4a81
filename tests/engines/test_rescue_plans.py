"""Which way rescuing goes: by the primary keys and the compound index only, in any table."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.producer_plans import (
    PRIMARY,
    check_costs,
    check_producer_plans,
    check_sqlite_plans,
    in_any_table,
)
from tests.engines.test_plans import COMPOUND, NOON
from tests.engines.turning import Hand


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


@pytest.mark.slow
def test_plans(pg_store: Store) -> None:
    """On an empty, full, badly known, well known and truncated table, plans are the same."""
    for _ in in_any_table(pg_store):
        check_producer_plans(pg_store, works, USED, ("report",))


@pytest.mark.slow
def test_costs_are_flat(pg_store: Store) -> None:
    """What is read does not grow with the backlog, nor with what has ended."""
    check_costs(pg_store, works)


@pytest.mark.slow
def test_sqlite_plans(sqlite_store: Store) -> None:
    """SQLite goes by the same indexes, before and after it has counted its rows."""
    check_sqlite_plans(sqlite_store, works, ("report",))
