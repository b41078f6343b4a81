"""Cron when something fails: no run is lost, none is doubled, none stops another."""

import pytest
import sqlalchemy as sa

from oban_actors import Evaluate, Job, Oban
from oban_actors.plugins.cron_evaluator import Evaluator
from tests.plugins.crontabs import (
    CRON,
    NINE,
    Moody,
    Replacing,
    Unstorable,
    Warm,
    alone,
    clock_at,
    crash,
    crons,
    evaluate,
    locked,
    of_cron,
    only_one,
    report,
    runs,
    start,
)
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, Tables, starter, wait_until_idle
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

ONLY = "tests.cron.only_one"


def test_an_entry_that_is_refused_stops_no_other(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """Its run is not lost: it is tried again until the database takes it."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE, ("0 9 * * *", Warm))
    _refuse(start_oban.tables, "tests.cron.warm")

    clock.advance(31)
    evaluate(oban)
    evaluate(oban)
    assert runs(start_oban.tables) == ["02 09:00"]
    assert runs(start_oban.tables, "tests.cron.warm") == []
    lines = [record for record in caplog.records if "was refused" in record.message]
    assert len(lines) == 1
    assert "tests.cron.warm 0 9 * * *" in lines[0].message

    on = " ON {jobs}" if start_oban.tables.schema else ""
    start_oban.tables.execute(f"DROP TRIGGER refusing{on}")
    clock.advance(16)
    wait_until(lambda: runs(start_oban.tables, "tests.cron.warm") == ["02 09:00"])
    assert runs(start_oban.tables) == ["02 09:00"]


def _refuse(tables: Tables, worker: str) -> None:
    if tables.schema:
        tables.execute(
            f'CREATE FUNCTION "{tables.schema}".refuse() RETURNS trigger LANGUAGE plpgsql AS '
            "$$ BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = '23514'; END $$"
        )
        tables.execute(
            f"CREATE TRIGGER refusing BEFORE INSERT ON {{jobs}} FOR EACH ROW "
            f"WHEN (NEW.worker = '{worker}') EXECUTE FUNCTION \"{tables.schema}\".refuse()"
        )
    else:
        tables.execute(
            f"CREATE TRIGGER refusing BEFORE INSERT ON {{jobs}} WHEN NEW.worker = '{worker}' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )


def test_a_worker_that_builds_no_job_stops_no_other(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """A host's own `new` may fail when it is called, which is that entry's affair."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, ("0 9 * * *", Moody), NINE)
    Moody.fails = True
    try:
        clock.advance(31)
        evaluate(oban)
    finally:
        Moody.fails = False

    assert runs(start_oban.tables) == ["02 09:00"]
    assert "bad mood" in caplog.text
    clock.advance(16)
    wait_until(lambda: runs(start_oban.tables, "tests.cron.moody") == ["02 09:00"])


@pytest.mark.db
@pytest.mark.parametrize("how", ["unstorable", "codec"])
def test_a_job_that_can_not_be_stored_stops_no_other(
    start_oban: Starter, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """What is refused on its way to the table is that entry's affair, too, and no crash."""
    clock = clock_at("2026-03-02 08:59:30")
    worker = Unstorable if how == "unstorable" else locked
    oban = start(start_oban, clock, ("0 9 * * *", worker), NINE)
    clock.advance(31)
    evaluate(oban)
    evaluate(oban)

    assert runs(start_oban.tables) == ["02 09:00"]
    assert [each for each in caplog.messages if "was refused" in each] != []
    assert [node.last_crash for node in oban.tree().walk() if node.last_crash] == []


def test_a_row_that_is_no_text_stops_no_other(start_sqlite: Starter) -> None:
    """A unique job that is looked for among such rows stands in the way of its own entry only."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_sqlite, clock, NINE, ("0 9 * * *", alone))
    oban.insert(alone.new({"a": 1}))
    start_sqlite.tables.execute("UPDATE {jobs} SET args = cast(x'ff' AS TEXT)")

    clock.advance(31)
    evaluate(oban)

    assert runs(start_sqlite.tables) == ["02 09:00"]


@pytest.mark.db
def test_an_open_transaction_with_the_same_unique_job_stops_no_other(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """That entry alone waits for it, and its run is not lost."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("on SQLite who has inserted one has the whole file")
    clock = clock_at("2026-03-02 08:59:30")
    unique = ("0 9 * * *", only_one, {"missed": "skip"})
    oban = start(start_oban, clock, unique, ("0 9 * * *", Warm), NINE)
    with start_oban.tables.engine.connect() as host:
        oban.insert(only_one.new({}), connection=host)
        clock.advance(31)
        evaluate(oban)
        assert runs(start_oban.tables) == ["02 09:00"]
        assert runs(start_oban.tables, "tests.cron.warm") == ["02 09:00"]
        assert evaluate(oban) == []
        assert runs(start_oban.tables, ONLY) == []
        host.rollback()
    lines = [each for each in caplog.messages if "has to wait" in each]
    assert len(lines) == 1
    assert f"{ONLY} 0 9 * * *" in lines[0]

    clock.advance(4)
    wait_until(lambda: runs(start_oban.tables, ONLY) == ["02 09:00"])
    assert runs(start_oban.tables) == ["02 09:00"]


@pytest.mark.db
def test_a_locked_row_that_a_unique_job_replaces_stops_no_other(start_oban: Starter) -> None:
    """It is that entry's affair who has locked it, and for how long."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite locks no rows")
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, ("0 9 * * *", Replacing), NINE)
    there = oban.insert(Replacing.new({}, meta={"cron_at": "2026-03-01T09:00:00Z"}))
    with start_oban.tables.engine.connect() as host:
        start_oban.tables.on(host, "SELECT 1 FROM {jobs} WHERE id = :id FOR UPDATE", id=there.id)
        clock.advance(31)
        evaluate(oban)
        assert runs(start_oban.tables) == ["02 09:00"]
        host.rollback()

    clock.advance(4)
    wait_until(lambda: runs(start_oban.tables, "tests.cron.replacing") == ["02 09:00"])
    assert runs(start_oban.tables) == ["02 09:00"]


def test_a_minute_that_is_due_while_the_server_is_away(
    own_server: PostgresServer, own_database: Database, events: Recorder
) -> None:
    """It is caught as soon as the server is back, and is not missed."""
    with starter(own_database) as one:
        clock = clock_at("2026-03-02 08:59:30")
        entry = ("0 9 * * *", report, {"missed": "skip"})
        nodes = [start(one, clock, entry, leader=n == 0) for n in range(2)]
        own_server.stop("immediate")
        clock.advance(35)
        events.wait_for_count(2, "oban.plugin.stop", lambda e: of_cron(e) and _failed(e))
        clock.advance(120)
        own_server.start()

        def caught() -> bool:
            clock.advance(5)
            for node in nodes:
                # So that time goes on no faster than they look.
                _works(node)
            return runs(one.tables) == ["02 09:00"]

        wait_until(caught)
        for node in nodes:
            wait_until(lambda node=node: _works(node))  # type: ignore[misc]  # bound now
        assert runs(one.tables) == ["02 09:00"]


def _failed(event: Event) -> bool:
    return event.metadata.get("error") is not None


def _works(oban: Oban) -> bool:
    return oban.ask(CRON, Evaluate(), timeout=60).error is None


def test_a_crash_of_the_actor_loses_and_doubles_nothing(start_oban: Starter) -> None:
    """Its successor looks at once, and finds the mark."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE)
    crash(oban)

    clock.advance(31)
    wait_until(lambda: runs(start_oban.tables) == ["02 09:00"])
    crash(oban)
    assert evaluate(oban) == []


def test_one_that_crashes_in_each_look_ends_no_tree(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again later, and inserts what was missed once it can."""
    clock = clock_at("2026-03-02 08:59:30")
    evaluate_it = Evaluator.evaluate

    def fail(_evaluator: Evaluator, _run: object) -> list[Job]:
        raise RuntimeError("a bug")

    oban = start(start_oban, clock, NINE)
    monkeypatch.setattr(Evaluator, "evaluate", fail)
    clock.advance(31)
    for number, delay in enumerate((15, 30), start=1):
        events.wait_for_count(number, "oban.plugin.exception", of_cron)
        events.wait_for_count(number + 1, "oban.plugin.init", of_cron)
        wait_until_idle(oban, CRON)
        clock.advance(delay - 1)
        assert len(events.all("oban.plugin.exception", of_cron)) == number
        if number == 2:
            monkeypatch.setattr(Evaluator, "evaluate", evaluate_it)
        clock.advance(1)
    wait_until(lambda: runs(start_oban.tables) == ["02 09:00"])


def test_a_transaction_that_does_not_commit_claims_nothing(start_oban: Starter) -> None:
    """Mark and job stand and fall together."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite has no constraint that is checked only at the commit")
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE)
    _at_the_commit(start_oban.tables, "RAISE EXCEPTION 'not now'")

    clock.advance(31)
    result = oban.ask(CRON, Evaluate(), timeout=60)
    assert result.error is not None
    assert runs(start_oban.tables) == []
    start_oban.tables.execute(f"DROP TRIGGER marked ON {crons(start_oban.tables)}")
    evaluate(oban)
    assert runs(start_oban.tables) == ["02 09:00"]


@pytest.mark.db
def test_a_commit_whose_answer_is_lost(pg: Database, events: Recorder) -> None:
    """What became of it is found out: the jobs are told, and are not inserted again."""
    url = sa.make_url(pg.url)
    with TcpProxy(url.port or 5432) as proxy:
        far = url.set(host=proxy.host, port=proxy.port).render_as_string(hide_password=False)
        with starter(Database("postgresql", far, pg.prefix)) as one:
            clock = clock_at("2026-03-02 08:59:30")
            oban = start(one, clock, NINE, connect_timeout=2.0)
            near = Tables(pg)
            with near.engine.connect() as holder:
                _wait_at_the_commit(near, holder)
                clock.advance(31)
                wait_until(lambda: near.execute(WAITING))
                proxy.freeze()
                holder.rollback()
                wait_until(lambda: runs(near))
            proxy.drop()
            proxy.thaw()

            said = events.wait_for(
                "oban.plugin.stop", lambda e: of_cron(e) and bool(e.metadata.get("jobs")), 60
            )
            assert [job.meta["cron_at"] for job in said.metadata["jobs"]] == [
                "2026-03-02T09:00:00Z"
            ]
            evaluate(oban)
            assert runs(near) == ["02 09:00"]


WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"


def _wait_at_the_commit(tables: Tables, holder: sa.Connection) -> None:
    """Let the next COMMIT of a run's mark wait until the holder's transaction ends."""
    _at_the_commit(tables, "PERFORM pg_advisory_xact_lock(4711)")
    holder.execute(sa.text("SELECT pg_advisory_xact_lock(4711)"))


def _at_the_commit(tables: Tables, body: str) -> None:
    """Have something done at the COMMIT of a run's mark, also where constraints are immediate."""
    for statement in _GATES.format(schema=f'"{tables.schema}"', body=body).split("\n\n"):
        tables.execute(statement)


_GATES = """
CREATE TABLE {schema}.gates ()

CREATE FUNCTION {schema}.gate() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN {body}; RETURN NULL; END $$

CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON {schema}.gates DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION {schema}.gate()

CREATE FUNCTION {schema}.marked() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  SET CONSTRAINTS {schema}.gate DEFERRED;
  INSERT INTO {schema}.gates DEFAULT VALUES;
  RETURN NULL;
END $$

CREATE TRIGGER marked AFTER UPDATE ON {schema}.oban_actors_crons
FOR EACH ROW EXECUTE FUNCTION {schema}.marked()
"""
