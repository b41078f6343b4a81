"""Which way turns and beats go: by the primary key and the compound index only, in any table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from oban_actors.claim import Ack
from oban_actors.job import Job
from tests.engines.conftest import Store
from tests.engines.producer_plans import (
    PRIMARY,
    check_costs,
    check_producer_plans,
    check_sqlite_plans,
    in_any_table,
)
from tests.engines.test_plans import COMPOUND, NOON, prepared_plan
from tests.engines.turning import ERROR, Hand, ack


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
        "claimed": lambda c: engine.claimed_ids(c, claimant, queue),
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
    "claimed": {COMPOUND},
    "beat": {COMPOUND},
    "forget": {COMPOUND},
    "complete one": {PRIMARY},
    "record one": {PRIMARY},
}


@pytest.mark.slow
def test_plans(pg_store: Store) -> None:
    """On an empty, full, badly known, well known and truncated table, plans are the same."""
    for _ in in_any_table(pg_store):
        check_producer_plans(pg_store, works, USED)


def messages(hand: Hand, jobs: list[Job]) -> dict[str, Callable[[Connection], Any]]:
    """Give the plans of turns that are one message, as sessions keep them."""
    engine, claimant, queue = hand.store.engine, hand.claimant, hand.queue
    acks = {
        "fetch": [],
        "complete": [ack(job) for job in jobs],
        "record": [ack(job, "retryable", error=ERROR) for job in jobs],
    }

    def plan(acks: list[Ack]) -> Callable[[Connection], str]:
        message = engine.turn_message(claimant, queue, acks, 50, None)
        assert message is not None
        return lambda c: prepared_plan(c, message.statement, message.parameters)

    return {name: plan(each) for name, each in acks.items()}


@pytest.mark.slow
def test_plans_that_sessions_keep(pg_store: Store) -> None:
    """They are the same, whatever the table was when they were made."""
    for _ in in_any_table(pg_store):
        check_producer_plans(pg_store, messages, USED, shown=planned)


def planned(store: Store, work: Callable[[Connection], Any], *, options: str) -> str:
    """Give the plan that the work gives, and roll back what it did."""
    plans: list[str] = []

    def look(connection: Connection) -> None:
        plans.append(work(connection))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.repo.transaction(look)
    return plans[0]


@pytest.mark.slow
def test_costs_are_flat(pg_store: Store) -> None:
    """What a turn or a beat reads does not grow with the backlog, nor with others' backlogs."""
    check_costs(pg_store, works, ("fetch", "complete", "record", "careful", "stale"))


@pytest.mark.slow
def test_sqlite_plans(sqlite_store: Store) -> None:
    """SQLite goes by the same indexes, before and after it has counted its rows."""
    check_sqlite_plans(sqlite_store, works)
