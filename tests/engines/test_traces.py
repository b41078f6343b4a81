"""Traces of transactions, by which it is told what became of them."""

from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text

from oban_actors.engines import JobEngine
from oban_actors.job import Job
from oban_actors.repo.commits import Fate, Trace, fate, take
from tests.engines.conftest import Store

Write = Callable[[JobEngine, Connection, int], object]

WRITES: dict[str, Write] = {
    "insert": lambda e, c, _: e.insert_jobs(c, [Job.new(worker="w")], None),
    "insert later": lambda e, c, _: e.insert_jobs(c, [Job.new(worker="w", schedule_in=9)], None),
    "cancel": lambda e, c, there: e.cancel_jobs(c, [there], (), None, wait=True),
    "retry": lambda e, c, there: e.retry_jobs(c, [there], (), None, wait=True),
    "update": lambda e, c, there: e.update_job(c, there, {"priority": 3}),
    "delete": lambda e, c, there: e.delete_jobs(c, [there], (), wait=True),
}

WRITING = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


class Undone(Exception):
    """Undoes the transaction that it is raised in."""


def traced(store: Store, write: Write, *, undone: bool = False) -> Trace:
    """Write something, with a job there to write to, and give the trace of it."""
    (there,) = store.insert(Job.new(worker="w", schedule_in=60))
    traces: list[Trace | None] = []

    def work(connection: Connection) -> None:
        write(store.engine, connection, there.id or 0)
        traces.append(take(connection))
        if undone:
            raise Undone

    if undone:
        with pytest.raises(Undone):
            store.repo.transaction(work)
    else:
        store.repo.transaction(work)
    (trace,) = traces
    assert trace is not None
    return trace


def asked(store: Store, trace: Trace) -> Fate:
    """Ask what became of it."""
    return store.repo.transaction(lambda connection: fate(connection, trace))


def given_again(store: Store, trace: Trace) -> Trace:
    """Give the trace that it would be if its id were another transaction's, which took place."""
    statement = text("SELECT cast(pg_current_xact_id() AS text)")
    other = store.repo.transaction(lambda connection: connection.execute(statement).scalar())
    return Trace(str(other), trace.stands)


@WRITING
def test_committed(pg_store: Store, write: Write) -> None:
    """What took place is known to have."""
    assert asked(pg_store, traced(pg_store, write)) == "committed"


@WRITING
def test_undone(pg_store: Store, write: Write) -> None:
    """What was undone is known to have been."""
    assert asked(pg_store, traced(pg_store, write, undone=True)) == "aborted"


@WRITING
def test_id_of_another(pg_store: Store, write: Write) -> None:
    """An id that another transaction was given after a crash proves nothing."""
    trace = traced(pg_store, write, undone=True)

    assert asked(pg_store, given_again(pg_store, trace)) == "unknown"


def test_rows_of_another(pg_store: Store) -> None:
    """Nor does a row whose id was given again."""
    trace = traced(pg_store, WRITES["insert"])
    pg_store.run("UPDATE {jobs} SET inserted_at = inserted_at + interval '1 second'")

    assert asked(pg_store, given_again(pg_store, trace)) == "unknown"


@pytest.mark.parametrize("write", [WRITES["insert"], WRITES["insert later"]], ids=["now", "later"])
def test_row_that_went_on(pg_store: Store, write: Write) -> None:
    """An inserted job is known whatever became of it."""
    trace = traced(pg_store, write)
    pg_store.run("UPDATE {jobs} SET state = 'completed', completed_at = now()")

    assert asked(pg_store, trace) == "committed"
