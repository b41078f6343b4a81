"""The Reindexer: what it rebuilds, when, and what it does where it can't."""

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from oban_actors import ConfigError, Oban, Reindex, VirtualClock
from oban_actors.plugins import PluginResult, Reindexer
from oban_actors.repo import reindexing
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, starter, wait_until_idle, wait_until_leader
from tests.support.waiting import wait_until

COMPOUND = "oban_jobs_state_queue_priority_scheduled_at_id_index"
STAGING = "oban_actors_staging_index"
FILENODES = """
SELECT c.relname, c.relfilenode FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relkind = 'i' AND c.relname LIKE 'oban\\_%'
"""


def ask(oban: Oban) -> PluginResult:
    """Have it run."""
    result = oban.ask(("plugin", "reindexer"), Reindex(), timeout=60)
    assert isinstance(result, PluginResult)
    return result


def filenodes(one: Starter) -> dict[str, int]:
    """Where the indexes are stored, by name: elsewhere once they were rebuilt."""
    rows = one.tables.execute(FILENODES, schema=one.database.prefix)
    return {name: node for name, node in rows if name != "oban_jobs_pkey"}


def _ran(event: Event) -> bool:
    return event.metadata.get("plugin") is Reindexer


def test_it_rebuilds_the_indexes_of_the_jobs(start_oban: Starter, events: Recorder) -> None:
    """All but the primary key, and says which."""
    oban = start_oban.leading(plugins=[Reindexer()])

    result = ask(oban)

    assert result.error is None
    assert {COMPOUND, STAGING} <= set(result.extra["reindexed"])
    assert result.extra["reindexed_count"] == len(result.extra["reindexed"])
    assert "oban_jobs_pkey" not in result.extra["reindexed"]
    assert [result.extra[name] for name in ("dropped", "failed", "missing")] == [(), (), ()]
    stop = events.wait_for("oban.plugin.stop", _ran)
    assert stop.metadata["reindexed"] == result.extra["reindexed"]


def test_they_are_really_built_anew(start_pg: Starter) -> None:
    """Each one of those that were asked for, and no other."""
    oban = start_pg.leading(plugins=[Reindexer(indexes=[STAGING])])
    before = filenodes(start_pg)

    assert ask(oban).extra["reindexed"] == (STAGING,)

    after = filenodes(start_pg)
    assert {name for name in before if before[name] != after[name]} == {STAGING}


def test_what_is_not_there_is_named(start_oban: Starter, caplog: pytest.LogCaptureFixture) -> None:
    """It stops none of the others."""
    oban = start_oban.leading(plugins=[Reindexer(indexes=["nowhere", STAGING])])

    extra = ask(oban).extra

    assert (extra["reindexed"], extra["missing"]) == ((STAGING,), ("nowhere",))
    assert [r for r in caplog.records if "no indexes nowhere to rebuild" in r.message]


def test_what_a_failed_build_left_is_dropped(start_pg: Starter) -> None:
    """Of all our tables; valid ones, and others' tables, are left alone."""
    oban = start_pg.leading(plugins=[Reindexer(indexes=[])])
    schema = start_pg.database.prefix
    left = (f"{STAGING}_ccnew", "oban_jobs_args_index_ccold1", "oban_peers_pkey_ccnew")
    tables = ("oban_jobs", "oban_jobs", "oban_peers")
    for name, table in zip(left, tables, strict=True):
        column = "name" if table == "oban_peers" else "queue"
        start_pg.tables.execute(f'CREATE INDEX {name} ON "{schema}".{table} ({column})')
    start_pg.tables.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ("
        "SELECT oid FROM pg_class WHERE relname = ANY (:names) AND relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = :schema))",
        names=list(left),
        schema=schema,
    )
    start_pg.tables.execute(f'CREATE INDEX valid_ccnew ON "{schema}".oban_jobs (queue)')
    start_pg.tables.execute(f'CREATE TABLE "{schema}".hosts (a integer)')
    start_pg.tables.execute(f'CREATE INDEX hosts_ccnew ON "{schema}".hosts (a)')

    assert sorted(ask(oban).extra["dropped"]) == sorted(left)
    assert reindexing.leftovers(oban.repo) == []
    rows = start_pg.tables.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = :schema", schema=schema
    )
    assert {"valid_ccnew", "hosts_ccnew"} <= {row[0] for row in rows}


def test_one_that_others_are_in_the_way_of_is_left(start_pg: Starter) -> None:
    """It fails in its time, what it left is dropped, and the table works on."""
    oban = start_pg.leading(plugins=[Reindexer(indexes=[COMPOUND], timeout=0.5)])
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(oban.repo.raw_connection()) as connection, connection.transaction():
            connection.execute(
                f'LOCK TABLE "{start_pg.database.prefix}".oban_jobs IN ROW EXCLUSIVE MODE'.encode()
            )
            holding.set()
            assert done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert holding.wait(30)
        result = ask(oban)
    finally:
        done.set()
        holder.join(30)

    assert result.error is None
    assert (result.extra["reindexed"], result.extra["failed"]) == ((), (COMPOUND,))
    tries = [result]
    # Half a second may be too little for it on a busy machine too.
    wait_until(lambda: (tries.append(ask(oban)), tries[-1].extra["reindexed"])[1] == (COMPOUND,))
    assert sum(len(each.extra["dropped"]) for each in tries) >= 1
    assert reindexing.leftovers(oban.repo) == []


def test_stopping_does_not_wait_for_a_build(start_pg: Starter) -> None:
    """The statement that holds the actor is cancelled when its time to end is over.

    What that leaves is dropped by the next run.
    """
    oban = start_pg.leading(plugins=[Reindexer(indexes=[COMPOUND])])
    schema = start_pg.database.prefix
    with psycopg.connect(start_pg.database.url.replace("+psycopg", "")) as blocker:
        blocker.execute(f'LOCK TABLE "{schema}".oban_jobs IN ROW EXCLUSIVE MODE'.encode())
        oban.tell(("plugin", "reindexer"), Reindex())
        wait_until(
            lambda: start_pg.tables.execute(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REINDEX%' "
                "AND query LIKE :like AND state = 'active'",
                like=f"%{schema}%",
            ),
            message="a build that waits",
        )
        oban.stop()
        left = start_pg.tables.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REINDEX%' "
            "AND query LIKE :like AND state = 'active'",
            like=f"%{schema}%",
        )
        assert left == []
    assert reindexing.leftovers(oban.repo) == [f"{COMPOUND}_ccnew"]
    oban.start()
    wait_until_leader(oban)
    assert ask(oban).extra["dropped"] == (f"{COMPOUND}_ccnew",)


def test_without_the_right_it_says_what_to_grant(start_pg: Starter) -> None:
    """It is the only duty that needs to own the table."""
    oban = start_pg.make(plugins=[Reindexer()])
    schema, role = start_pg.database.prefix, f"{start_pg.database.prefix}_lesser"
    for statement in (
        f"CREATE ROLE {role}",
        f'GRANT USAGE ON SCHEMA "{schema}" TO {role}',
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {role}',
    ):
        start_pg.tables.execute(statement)
    try:

        def act(connection: Any, _entry: object) -> None:
            connection.execute(f"SET ROLE {role}")

        event.listen(oban.repo.engine, "connect", act)
        oban.repo.engine.dispose()
        event.listen(oban.repo.engine.pool, "connect", act)
        oban.start()
        wait_until(lambda: ask(oban).leader, message="leadership")
        error = ask(oban).error
    finally:
        oban.stop()
        oban.repo.close()
        start_pg.tables.execute(f"DROP OWNED BY {role}")
        start_pg.tables.execute(f"DROP ROLE {role}")

    assert error is not None
    assert error.sqlstate == "42501"
    assert f"It has to own {schema}.oban_jobs" in str(error)
    assert f"GRANT MAINTAIN ON {schema}.oban_jobs" in str(error)


def test_only_the_leader_does(start_oban: Starter) -> None:
    """Another node does nothing."""
    oban = start_oban(peer=False, plugins=[Reindexer()])

    assert ask(oban) == PluginResult(leader=False)


def test_it_keeps_its_schedule(sqlite: Database, events: Recorder) -> None:
    """Once for each due time, in the time zone that was asked for."""
    clock = VirtualClock(datetime(2026, 11, 24, 22, 59, tzinfo=UTC))
    with starter(sqlite) as one:
        oban = one.leading(
            plugins=[Reindexer(timezone="Europe/Berlin")],
            clock=clock,
            peer={"kind": "isolated"},
            stager=None,
        )
        events.wait_for("oban.plugin.init", _ran)
        assert oban.ask(("plugin", "reindexer"), Reindex(), timeout=60).error is None
        for days in (1, 2):
            clock.advance(61.0 if days == 1 else 86_400.0)
            events.wait_for_count(days + 1, "oban.plugin.stop", _ran)
            # Its timer is armed after the event.
            wait_until_idle(oban, ("plugin", "reindexer"))
        clock.advance(3600.0)
        assert ask(oban).error is None

        assert len(events.all("oban.plugin.stop", _ran)) == 4


def test_a_timer_that_is_early_makes_no_run_twice() -> None:
    """The wall's clock and the timer's differ by a little."""
    reindexer = Reindexer().fresh()
    midnight = datetime(2026, 11, 25, tzinfo=UTC)
    due = reindexer._due
    assert due is not None

    assert due.delay(midnight - timedelta(hours=1)) == 3600
    assert due.delay(midnight - timedelta(minutes=1)) == 60
    assert due.delay(midnight - timedelta(milliseconds=5)) == pytest.approx(86_400.005)
    assert due.delay(midnight) == 86_400


def test_a_clock_that_was_ahead_keeps_it_from_no_run() -> None:
    """Once it is right again, the next run is when it would have been."""
    due = Reindexer().fresh()._due
    assert due is not None
    noon = datetime(2026, 11, 25, 12, tzinfo=UTC)

    due.delay(noon + timedelta(days=400))
    assert due.delay(noon) == 12 * 3600
    assert due.delay(noon + timedelta(hours=12)) == 86_400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "often"}, "'schedule': expected a cron expression"),
        ({"schedule": "@reboot"}, "'schedule': expected times that come again, got: '@reboot'"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"timeout": 0}, "'timeout': expected a positive number of seconds, got: 0"),
        ({"indexes": "oban"}, "'indexes': expected a list of names of indexes, or None"),
        ({"indexes": [""]}, r"'indexes\[0\]': expected a non-blank string"),
        ({"indexes": ["a", "a"]}, "found duplicate indexes: \\['a'\\]"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    """Before anything starts, naming the option, the value and what was expected."""
    with pytest.raises(ConfigError, match=message):
        Oban("sqlite:///jobs.db", plugins=[Reindexer(**options)])


def test_sqlite_names_are_quoted(sqlite: Database) -> None:
    """A host's own index may have any name."""
    with starter(sqlite) as one:
        oban = one.leading(plugins=[Reindexer()])
        with oban.repo.engine.begin() as connection:
            connection.execute(sa.text('CREATE INDEX "a ""b""" ON oban_jobs (queue)'))

        assert 'a "b"' in ask(oban).extra["reindexed"]
