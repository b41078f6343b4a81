"""Rows that another program wrote into an SQLite file, whose columns hold anything."""

from datetime import UTC, datetime

import pytest

from oban_actors import InvalidJob
from oban_actors.engines.prune import EndedGroup
from tests.engines.conftest import Store
from tests.support.instances import Starter

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LONG = "q" * 8000


@pytest.fixture
def file_store(store: Store) -> Store:
    """A store on SQLite."""
    if store.repo.dialect != "sqlite":
        pytest.skip("for SQLite")
    return store


def test_what_is_no_queue_is_passed_over(file_store: Store) -> None:
    """Whoever prunes or rescues by queues sees those that have a name."""
    store = file_store
    for state in ("completed", "executing"):
        for queue in ("'a'", "x'00ff'", "'b'"):
            store.run(
                f"INSERT INTO {{jobs}} (worker, state, queue) VALUES ('w', '{state}', {queue})"
            )
    store.run(
        "INSERT INTO {jobs} (worker, state, queue, priority) VALUES ('w', 'completed', 'c', 'high')"
    )

    groups = store.repo.transaction(store.engine.ended_groups)
    report = store.repo.transaction(lambda c: store.engine.report_producers(c, None, 60.0, NOON))

    assert groups == [EndedGroup("completed", queue, 0) for queue in ("a", "b")]
    assert [claims.queue for claims in report.claims] == ["a", "b"]


def test_what_no_queue_is_called_is_not_told(start_sqlite: Starter) -> None:
    """A job of such a queue can be changed like any other, and nobody is told of it."""
    oban = start_sqlite.make()
    start_sqlite.tables.execute(
        "INSERT INTO {jobs} (worker, state, queue) VALUES ('w', 'discarded', :queue)", queue=LONG
    )
    assert oban.retry_job(1)
    assert start_sqlite.tables.states() == {1: "available"}


@pytest.mark.parametrize("moment", ["x'00'", "'0001-01-01T00:00:00+02:00'", "'soon'"])
def test_times_that_nobody_can_read(start_sqlite: Starter, moment: str) -> None:
    """The row is named by the error that all unreadable rows have."""
    oban = start_sqlite.make()
    start_sqlite.tables.execute(
        f"INSERT INTO {{jobs}} (worker, inserted_at) VALUES ('w', {moment})"
    )
    with pytest.raises(InvalidJob, match="job 1 can't be read"):
        oban.all_jobs()
    with pytest.raises(InvalidJob, match="job 1 can't be read"):
        oban.get_job(1)
    assert oban.all_jobs(skip_unreadable=True) == []
