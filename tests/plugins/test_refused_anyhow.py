"""Rows that the database refuses to plugins by whatever error: they stop no others."""

import logging

import pytest

from oban_actors import Evaluate
from oban_actors.plugins import Pruner
from tests.engines.conftest import Store
from tests.plugins.crontabs import CRON, NINE, Warm, clock_at, evaluate, only_one, runs, start
from tests.plugins.pruning import ask, ended, ids
from tests.plugins.rescue import scene
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter, starter
from tests.support.refusing import NO_TABLE, OF_THEIR_OWN, PLAIN, keep_history, refuse
from tests.support.waiting import wait_until

BAD_JSON = "SELECT json_extract('{', '$.a')"
KINDS = pytest.mark.parametrize(
    ("body", "kind"),
    [(OF_THEIR_OWN, "row"), (NO_TABLE, "row"), (PLAIN, "deferred")],
    ids=["a class of their own", "no table", "at the commit"],
)


def body_on(start: Starter, body: str) -> str:
    """Give a trigger's body that SQLite has too."""
    return body if start.database.kind == "postgresql" else BAD_JSON


@KINDS
def test_a_job_of_a_dead_node(
    start_oban: Starter, events: Recorder, caplog: pytest.LogCaptureFixture, body: str, kind: str
) -> None:
    """All others are rescued, and it is named once."""
    if start_oban.database.kind == "sqlite" and body != NO_TABLE:
        pytest.skip("SQLite has one kind of trigger")
    one = scene(start_oban, events, interval=10)
    dead = one.node()
    guilty = one.insert(7)[3].id
    dead.beat()
    dead.claim()
    when = f"NEW.id = {guilty} AND OLD.state = 'executing'"
    refuse(start_oban, body_on(start_oban, body), when, kind)

    assert one.wait(70) == (6, 0)
    assert one.states() == ["available"] * 3 + ["executing"] + ["available"] * 3
    assert len([text for text in caplog.messages if f"job {guilty} can't be rescued" in text]) == 1


def test_jobs_of_two_queues_with_deferred_constraints(start_pg: Starter, events: Recorder) -> None:
    """What is looked at for one queue's jobs is deferred again for the next one's."""
    one = scene(start_pg, events, interval=10)
    dead = one.node()
    other = one.node("beta", dead.claimant.uuid)
    one.insert(3)
    one.insert(3, "beta")
    dead.beat()
    dead.claim()
    other.claim()
    keep_history(start_pg)

    assert one.wait(70) == (6, 0)


def test_a_rescue_that_fails_without_any_row(
    start_pg: Starter, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """No job is taken for refused, and all are rescued when that goes again."""
    one = scene(start_pg, events, interval=10)
    dead = one.node()
    one.insert(3)
    dead.beat()
    dead.claim()
    refuse(start_pg, NO_TABLE, kind="statement")

    assert one.wait(70) == (0, 0)
    assert "can't be rescued and is left out" not in caplog.text
    start_pg.tables.execute("DROP TRIGGER refuse ON {jobs}")
    assert one.wait(70) == (3, 0)


@KINDS
def test_an_ended_job(
    store: Store, database: Database, caplog: pytest.LogCaptureFixture, body: str, kind: str
) -> None:
    """All others are deleted, and it is named once."""
    with starter(database) as start_oban:
        if start_oban.database.kind == "sqlite" and body != NO_TABLE:
            pytest.skip("SQLite has one kind of trigger")
        made = [ended(store, "completed", 86_400 + n) for n in range(9)]
        body = body_on(start_oban, body)
        refuse(start_oban, body, f"OLD.id = {made[4]}", kind, event="DELETE")
        oban = start_oban.leading(plugins=[Pruner(interval=3600)])

        for count in (8, 0):
            result = ask(oban)
            assert result.error is None
            assert result.extra["pruned_count"] == count
        assert ids(store) == [made[4]]
        told = [text for text in caplog.messages if f"job {made[4]} can't be deleted" in text]
        assert len(told) == 1


def test_deletes_that_fail_for_every_row(
    store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """No row is taken for refused, and the run has failed."""
    with starter(database) as start_oban:
        made = [ended(store, "completed", 86_400 + n) for n in range(9)]
        if database.kind == "sqlite":
            refuse(start_oban, "INSERT INTO audit_of_nobody VALUES (1)", event="DELETE")
        else:
            refuse(start_oban, NO_TABLE, kind="statement", event="DELETE")
        oban = start_oban.leading(plugins=[Pruner(interval=3600)])

        assert ask(oban).error is not None
        assert ids(store) == made
        assert "can't be deleted" not in caplog.text


@KINDS
def test_a_due_run(
    start_oban: Starter, caplog: pytest.LogCaptureFixture, body: str, kind: str
) -> None:
    """All others are inserted, and it is tried again until the database takes it."""
    if start_oban.database.kind == "sqlite" and body != NO_TABLE:
        pytest.skip("SQLite has one kind of trigger")
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE, ("0 9 * * *", Warm))
    body = body_on(start_oban, body)
    refuse(start_oban, body, "NEW.worker = 'tests.cron.warm'", kind, event="INSERT")

    clock.advance(31)
    evaluate(oban)
    assert runs(start_oban.tables) == ["02 09:00"]
    assert runs(start_oban.tables, "tests.cron.warm") == []
    assert len([text for text in caplog.messages if "was refused" in text]) == 1
    on = " ON {jobs}" if start_oban.database.kind == "postgresql" else ""
    start_oban.tables.execute(f"DROP TRIGGER refuse{on}")
    clock.advance(16)
    wait_until(lambda: runs(start_oban.tables, "tests.cron.warm") == ["02 09:00"])


def test_due_runs_with_deferred_constraints(
    start_pg: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """Each entry for itself, with one that is refused: the others' are deferred as before."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_pg, clock, NINE, ("0 9 * * *", Warm), ("0 9 * * *", only_one))
    keep_history(start_pg)
    refuse(start_pg, PLAIN, "NEW.worker = 'tests.cron.warm'", event="INSERT")

    clock.advance(31)
    evaluate(oban)
    assert [text for text in caplog.messages if "was refused" in text and "warm" not in text] == []
    for worker in ("tests.cron.report", "tests.cron.only_one"):
        assert runs(start_pg.tables, worker) == ["02 09:00"]


def test_runs_that_have_to_wait_for_the_table(
    start_pg: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """That nobody may write for a while is no error: each entry waits, and is tried again."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_pg, clock, NINE, ("0 9 * * *", Warm), lock_timeout=0.5)
    with start_pg.tables.engine.connect() as other:
        start_pg.tables.on(other, "LOCK TABLE {jobs} IN SHARE MODE")
        clock.advance(31)
        assert evaluate(oban) == []
    assert len([text for text in caplog.messages if "has to wait" in text]) == 2
    assert "cron failed" not in caplog.text
    clock.advance(4)
    wait_until(lambda: runs(start_pg.tables) == ["02 09:00"])


def test_runs_that_can_not_be_inserted_at_all(
    start_pg: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails for all of them alike is an error of the evaluation, and no entry's."""
    caplog.set_level(logging.WARNING, "oban_actors")
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_pg, clock, NINE, ("0 9 * * *", Warm))
    refuse(start_pg, NO_TABLE, kind="statement", event="INSERT")

    clock.advance(31)
    assert oban.ask(CRON, Evaluate(), timeout=60).error is not None
    assert "was refused" not in caplog.text
    start_pg.tables.execute("DROP TRIGGER refuse ON {jobs}")
    evaluate(oban)
    assert runs(start_pg.tables) == runs(start_pg.tables, "tests.cron.warm") == ["02 09:00"]
