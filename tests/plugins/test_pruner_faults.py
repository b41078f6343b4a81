"""The Pruner when the database goes away, leadership goes, or a message comes at a bad time."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from oban_actors import Prune
from oban_actors.plugins import PluginResult, Pruner
from tests.engines.conftest import Store
from tests.plugins.pruning import ask, ended, ids
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, starter
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

DAY = 86_400.0
OLD = """
INSERT INTO {jobs} (state, queue, worker, scheduled_at, completed_at)
SELECT 'completed', 'q', 'w', at, at
FROM (SELECT timestamp '2020-01-01' AS at FROM generate_series(1, 2000)) AS each
"""


@pytest.fixture
def start_oban(store: Store, database: Database) -> Iterator[Starter]:
    """Start instances on the same database."""
    with starter(database) as one:
        yield one


def _is_pruner(event: Event) -> bool:
    return event.metadata.get("plugin") is Pruner


def _failed(event: Event) -> bool:
    return _is_pruner(event) and event.metadata.get("error") is not None


def _failed_or_idle(event: Event) -> bool:
    # The Peer may have noticed first.
    return _failed(event) or (_is_pruner(event) and event.metadata["leader"] is False)


def test_told_many_times_it_does_it_once(
    store: Store, start_oban: Starter, events: Recorder
) -> None:
    """Each message is a run; all but the first find nothing, and the timer is one."""
    made = [ended(store, "completed", DAY) for _ in range(3)]
    oban = start_oban.leading(plugins=[Pruner(interval=3600)])
    for _ in range(5):
        oban.tell(("plugin", "pruner"), Prune())

    runs = events.wait_for_count(5, "oban.plugin.stop", _is_pruner)
    named = [job.id for run in runs for job in run.metadata["pruned_jobs"]]
    assert sorted(named) == made
    assert ask(oban).extra["pruned_count"] == 0
    assert len(events.all("oban.plugin.stop", _is_pruner)) == 6


def test_a_lease_lost_between_two_batches_ends_the_run(
    store: Store, start_oban: Starter, events: Recorder
) -> None:
    """Each batch reads the lease: the next one deletes nothing, and what is done stays done."""
    for _ in range(5):
        ended(store, "completed", DAY)
    options = {"advisory_lock": False, "lease": 600, "renew": 200}
    # Without a Stager, which would notice it too, and have the Peer lead anew.
    plugins = [Pruner(interval=3600, limit=2)]
    oban = start_oban.leading(plugins=plugins, peer=options, stager=None)
    pruning: set[int] = set()
    stolen: list[bool] = []

    def notice(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "DELETE FROM" in statement and "oban_jobs" in statement:
            pruning.add(threading.get_ident())

    def steal(_: Any) -> None:
        # Not while others begin: the batch that is open keeps the row of the lease.
        if threading.get_ident() in pruning and not stolen:
            stolen.append(True)
            start_oban.tables.execute("DELETE FROM {peers}")

    event.listen(oban.repo.engine, "before_cursor_execute", notice)
    event.listen(oban.repo.engine, "begin", steal)

    assert ask(oban) == PluginResult(leader=False)
    assert stolen
    assert len(ids(store)) == 3
    batches_told = events.all("oban.engine.prune_jobs.stop")
    assert [len(each.metadata["jobs"]) for each in batches_told] == [2, 0]
    assert events.all("oban.engine.prune_jobs.exception") == []


@pytest.mark.slow
def test_a_server_that_restarts(
    own_server: PostgresServer, own_database: Database, events: Recorder
) -> None:
    """The run fails, is told as such, is tried again by itself, and all that is old goes."""
    with starter(own_database) as one:
        oban = one.leading(plugins=[Pruner(interval=3600)])
        one.tables.execute(OLD)
        actor = oban.whereis(("plugin", "pruner"))
        own_server.stop("immediate")
        oban.tell(("plugin", "pruner"), Prune())
        events.wait_for("oban.plugin.stop", _failed_or_idle, 60)
        own_server.start()

        def gone() -> bool:
            oban.tell(("plugin", "pruner"), Prune())
            return one.tables.count("completed") == 0

        wait_until(gone, 120, "all are gone")
        assert oban.whereis(("plugin", "pruner")) == actor


def test_a_server_that_falls_silent(
    own_server: PostgresServer, own_database: Database, events: Recorder
) -> None:
    """The batch is given up in its time, the actor lives, and another run does the rest."""
    with starter(own_database) as one:
        oban = one.leading(
            plugins=[Pruner(interval=3600)], statement_timeout=1, peer="isolated", stager=None
        )
        one.tables.execute(OLD)
        own_server.pause()
        try:
            oban.tell(("plugin", "pruner"), Prune())
            events.wait_for("oban.plugin.stop", _failed, 60)
        finally:
            own_server.resume()

        wait_until(lambda: one.tables.count("completed") == 0, 60, "it was tried again")
