"""The Reindexer when the database goes away, or leadership does, in the middle of a run."""

from typing import Any

import psycopg
import pytest

from oban_actors import Oban, Reindex
from oban_actors.plugins import PluginResult, Reindexer
from oban_actors.repo import reindexing
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import starter, wait_until_leader
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

COMPOUND = "oban_jobs_state_queue_priority_scheduled_at_id_index"
BUILDING = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REINDEX%' AND state = 'active'"


def ask(oban: Oban) -> PluginResult:
    """Have it run."""
    result = oban.ask(("plugin", "reindexer"), Reindex(), timeout=60)
    assert isinstance(result, PluginResult)
    return result


def _failed(event: Event) -> bool:
    return event.metadata.get("plugin") is Reindexer and event.metadata.get("error") is not None


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle(
    own_server: PostgresServer, own_database: Database, events: Recorder
) -> None:
    """The actor lives on, and the next run drops what the build has left and builds."""
    with starter(own_database) as one:
        oban = one.leading(plugins=[Reindexer(indexes=[COMPOUND])])
        actor = oban.whereis(("plugin", "reindexer"))
        blocker = psycopg.connect(own_database.url.replace("+psycopg", ""))
        blocker.execute("LOCK TABLE public.oban_jobs IN ROW EXCLUSIVE MODE")
        oban.tell(("plugin", "reindexer"), Reindex())
        wait_until(lambda: one.tables.execute(BUILDING), message="a build that waits")
        own_server.kill()
        events.wait_for("oban.plugin.stop", _failed, 60)
        own_server.start()
        blocker.close()

        wait_until_leader(oban)

        def rebuilt() -> bool:
            found = ask(oban)
            return found.error is None and found.extra.get("reindexed") == (COMPOUND,)

        wait_until(rebuilt, 60, "it was built after all")
        assert reindexing.leftovers(oban.repo) == []
        assert oban.whereis(("plugin", "reindexer")) == actor


def test_a_lease_lost_between_two_indexes_ends_the_run(database: Database) -> None:
    """It is read before each one."""
    with starter(database) as one:
        options = {"advisory_lock": False, "lease": 600, "renew": 200}
        oban = one.leading(plugins=[Reindexer()], peer=options, stager=None)
        built: list[str] = []
        work = reindexing.reindex

        def reindex(*arguments: Any) -> None:
            work(*arguments)
            built.append(arguments[1])
            one.tables.execute("DELETE FROM {peers}")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reindexing, "reindex", reindex)
            assert ask(oban) == PluginResult(leader=False)

        assert len(built) == 1
        assert len(reindexing.indexes(oban.repo)) > 1


def test_told_twice_it_runs_twice(database: Database, events: Recorder) -> None:
    """Which does no harm, and moves no schedule."""
    with starter(database) as one:
        oban = one.leading(plugins=[Reindexer()])
        for _ in range(2):
            oban.tell(("plugin", "reindexer"), Reindex())

        runs = events.wait_for_count(2, "oban.plugin.stop", lambda e: bool(_names(e)), 60)
        assert _names(runs[0]) == _names(runs[1])
        assert ask(oban).error is None


def _names(event: Event) -> tuple[str, ...]:
    found: tuple[str, ...] = event.metadata.get("reindexed", ())
    return found
