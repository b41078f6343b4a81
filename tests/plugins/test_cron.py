"""Cron on a database: each due minute's job exactly once, whoever is there and whatever fails."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Evaluate, Oban, Reconnected
from oban_actors.actors import SystemClock
from oban_actors.plugins import Cron
from tests.plugins.crontabs import (
    CRON,
    QUIET,
    Moody,
    Warm,
    clock_at,
    crash,
    crons,
    evaluate,
    minutes,
    only_one,
    report,
    runs,
    start,
)
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, Tables, starter
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

EVERY_MINUTE = ("* * * * *", report)
NINE = ("0 9 * * *", report)


def _of_cron(event: Event) -> bool:
    return event.metadata.get("plugin") is Cron


def test_a_due_minute_inserts_a_job(start_oban: Starter, events: Recorder) -> None:
    """It has the entry's options, the worker's own where there are none, and Oban's meta."""
    clock = clock_at("2026-03-02 08:59:30")
    options = {"args": {"to": "all"}, "priority": 2, "meta": {"team": "a"}}
    oban = start(start_oban, clock, ("0 9 * * MON", report, options))
    assert evaluate(oban) == []

    clock.advance(31)
    wait_until(lambda: start_oban.tables.count("available") == 1)

    (job,) = oban.all_jobs()
    assert (job.worker, job.queue, job.args) == ("tests.cron.report", "alpha", {"to": "all"})
    assert (job.priority, job.max_attempts, job.tags) == (2, 3, ["daily"])
    assert job.meta == {
        "team": "a",
        "cron": True,
        "cron_expr": "0 9 * * MON",
        "cron_name": "tests.cron.report 0 9 * * MON Etc/UTC",
        "cron_tz": "Etc/UTC",
        "cron_at": "2026-03-02T09:00:00Z",
    }
    stop = events.wait_for("oban.plugin.stop", lambda e: _of_cron(e) and bool(e.metadata["jobs"]))
    assert [each.id for each in stop.metadata["jobs"]] == [job.id]
    assert evaluate(oban) == []


def test_a_job_of_cron_runs(start_oban: Starter) -> None:
    """The queue is told when the transaction commits."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE, queues={"alpha": 1})

    clock.advance(31)
    wait_until(lambda: start_oban.tables.count("completed") == 1)

    assert oban.all_jobs()[0].attempt == 1


def test_a_new_entry_has_no_past(start_oban: Starter) -> None:
    """It begins when a node first has it."""
    clock = clock_at("2026-03-02 09:00:00")
    oban = start(start_oban, clock, NINE, EVERY_MINUTE)

    assert evaluate(oban) == []
    minutes([oban], clock, 2)
    assert runs(start_oban.tables) == ["02 09:01", "02 09:02"]


@pytest.mark.parametrize("count", [2, 3])
def test_exactly_once_with_several_nodes(start_oban: Starter, count: int) -> None:
    """All evaluate the same due minutes at the same time."""
    clock = clock_at("2026-03-02 08:59:30")
    nodes = [start(start_oban, clock, EVERY_MINUTE, leader=n == 0) for n in range(count)]

    for _ in range(12):
        clock.advance(60)
        threads = [threading.Thread(target=evaluate, args=[node]) for node in nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert runs(start_oban.tables) == [f"02 09:{minute:02}" for minute in range(12)]


def test_the_leader_goes_first_and_others_look_after_it(
    start_oban: Starter, events: Recorder
) -> None:
    """Two seconds later, and then they only read."""
    clock = clock_at("2026-03-02 08:59:30")
    leader = start(start_oban, clock, NINE)
    other = start(start_oban, clock, NINE, leader=False)
    statements = _statements(other)
    events.clear()

    clock.advance(31)
    stop = events.wait_for("oban.plugin.stop", _of_cron)
    assert stop.metadata["conf"] is leader.config
    assert len(stop.metadata["jobs"]) == 1
    assert statements == []
    clock.advance(2)
    events.wait_for_count(2, "oban.plugin.stop", _of_cron)
    assert len(statements) == 1
    assert "SELECT" in statements[0]
    assert "UPDATE" not in statements[0]


def _statements(oban: Oban) -> list[str]:
    """Record what a node does with the marks."""
    found: list[str] = []

    def listen(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "oban_actors_crons" in statement:
            found.append(statement)

    sa.event.listen(oban.repo.engine, "before_cursor_execute", listen)
    return found


def test_others_go_where_the_leader_does_not(start_oban: Starter) -> None:
    """No run waits for a leader: also with none, or one that has no such entry."""
    clock = clock_at("2026-03-02 08:59:30")
    start(start_oban, clock, ("0 12 * * *", report))
    start(start_oban, clock, NINE, leader=False)

    clock.advance(33)
    wait_until(lambda: runs(start_oban.tables) == ["02 09:00"])


def test_a_change_of_leader_loses_and_doubles_nothing(start_oban: Starter) -> None:
    """Each node that stops leaves the next minute to another one."""
    clock = clock_at("2026-03-02 08:59:30")
    nodes = [start(start_oban, clock, EVERY_MINUTE, leader=n == 0) for n in range(3)]

    minutes(nodes, clock, 2)
    nodes[0].stop()
    minutes(nodes[1:], clock, 2)
    nodes[1].stop()
    nodes.append(start(start_oban, clock, EVERY_MINUTE, leader=True))
    minutes(nodes[2:], clock, 2)

    assert runs(start_oban.tables) == [f"02 09:{minute:02}" for minute in range(6)]


def test_a_restart_catches_what_was_due_meanwhile(start_oban: Starter) -> None:
    """A run that is a few minutes late is not missed, whatever the entry says of those."""
    clock = clock_at("2026-03-02 08:58:30")
    entry = ("0 9 * * *", report, {"missed": "skip"})
    start(start_oban, clock, entry).stop()
    clock.advance(5 * 60)
    oban = start(start_oban, clock, entry)
    evaluate(oban)

    assert runs(start_oban.tables) == ["02 09:00"]
    assert oban.all_jobs()[0].inserted_at == datetime(2026, 3, 2, 9, 3, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("missed", "found"),
    [
        ("skip", ["05 09:00"]),
        ("once", ["04 09:00", "05 09:00"]),
        ("all", ["02 09:00", "03 09:00", "04 09:00", "05 09:00"]),
    ],
)
def test_missed_runs(start_oban: Starter, missed: str, found: list[str]) -> None:
    """Nobody was there for days: the entry says what becomes of what was due."""
    clock = clock_at("2026-03-02 08:00:00")
    entry = ("0 9 * * *", report, {"missed": missed})
    start(start_oban, clock, entry).stop()
    clock.advance(timedelta(days=2, hours=4))

    oban = start(start_oban, clock, entry)
    assert runs(start_oban.tables) == found[:-1]
    clock.advance(timedelta(hours=21))
    wait_until(lambda: runs(start_oban.tables) == found)
    assert evaluate(oban) == []


def test_missed_runs_are_bounded(start_oban: Starter, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand at most are caught up, the latest ones."""
    clock = clock_at("2026-03-02 00:00:00")
    entry = ("* * * * *", report, {"missed": "all"})
    start(start_oban, clock, entry).stop()
    clock.advance(timedelta(days=2))

    start(start_oban, clock, entry)

    found = runs(start_oban.tables)
    assert (len(found), found[-1]) == (1_005, "04 00:00")
    assert "only the latest missed runs" in caplog.text


def test_changes_to_summer_and_winter_time(start_oban: Starter) -> None:
    """Half past two comes late once and twice once, and is run once each time."""
    entries = [
        ("30 2 * * *", report, {"timezone": "Europe/Berlin"}),
        ("30 * * * *", Warm, {"timezone": "Europe/Berlin"}),
    ]
    for text in ("2026-03-28 23:45:10", "2026-10-24 22:45:10"):
        clock = clock_at(text)
        node = start(start_oban, clock, *entries, cron={"missed": "skip"})
        minutes([node], clock, 4 * 60)
        node.stop()

    # 2:30 is skipped in March: 3:00 +0200. In October it is 2:30 +0200, not again at +0100.
    assert runs(start_oban.tables) == ["29 01:00", "25 00:30"]
    assert runs(start_oban.tables, "tests.cron.warm") == [
        *("29 00:30", "29 01:30", "29 02:30", "29 03:30"),
        *("24 23:30", "25 00:30", "25 01:30", "25 02:30"),
    ]


def test_a_unique_worker_is_honoured(start_oban: Starter, events: Recorder) -> None:
    """Where another job is there the run is done, and that one is told."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, ("* * * * *", only_one))

    minutes([oban], clock, 2)

    stops = events.all("oban.plugin.stop", lambda e: _of_cron(e) and bool(e.metadata["jobs"]))
    first, second = (job for stop in stops for job in stop.metadata["jobs"])
    assert (first.conflict, second.conflict, second.id) == (False, True, first.id)
    assert runs(start_oban.tables, "tests.cron.only_one") == ["02 09:00"]


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

    start_oban.tables.execute("DROP TRIGGER refusing ON {jobs}" if _schema(start_oban) else DROP)
    clock.advance(16)
    wait_until(lambda: runs(start_oban.tables, "tests.cron.warm") == ["02 09:00"])
    assert runs(start_oban.tables) == ["02 09:00"]


DROP = "DROP TRIGGER refusing"


def _schema(one: Starter) -> str | None:
    return one.tables.schema


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
        events.wait_for_count(2, "oban.plugin.stop", lambda e: _of_cron(e) and _failed(e))
        clock.advance(120)
        own_server.start()

        def caught() -> bool:
            clock.advance(5)
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


def test_a_transaction_that_does_not_commit_claims_nothing(start_oban: Starter) -> None:
    """Mark and job stand and fall together."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite has no constraint that is checked only at the commit")
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE)
    schema = start_oban.tables.schema
    start_oban.tables.execute(
        f'CREATE FUNCTION "{schema}".refuse() RETURNS trigger LANGUAGE plpgsql AS '
        "$$ BEGIN RAISE EXCEPTION 'not now'; END $$"
    )
    start_oban.tables.execute(
        "CREATE CONSTRAINT TRIGGER refusing AFTER INSERT ON {jobs} DEFERRABLE INITIALLY DEFERRED "
        f'FOR EACH ROW EXECUTE FUNCTION "{schema}".refuse()'
    )

    clock.advance(31)
    result = oban.ask(CRON, Evaluate(), timeout=60)
    assert result.error is not None
    start_oban.tables.execute("DROP TRIGGER refusing ON {jobs}")
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
                "oban.plugin.stop", lambda e: _of_cron(e) and bool(e.metadata.get("jobs")), 60
            )
            assert [job.meta["cron_at"] for job in said.metadata["jobs"]] == [
                "2026-03-02T09:00:00Z"
            ]
            evaluate(oban)
            assert runs(near) == ["02 09:00"]


WAITING = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"


def _wait_at_the_commit(tables: Tables, holder: sa.Connection) -> None:
    """Let the next COMMIT of a job wait until the holder's transaction ends."""
    tables.execute(
        f'CREATE FUNCTION "{tables.schema}".gate() RETURNS trigger LANGUAGE plpgsql AS '
        "$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$"
    )
    tables.execute(
        "CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON {jobs} DEFERRABLE INITIALLY DEFERRED "
        f'FOR EACH ROW EXECUTE FUNCTION "{tables.schema}".gate()'
    )
    holder.execute(sa.text("SELECT pg_advisory_xact_lock(4711)"))


def test_an_idle_node_looks_once_an_hour(start_oban: Starter, events: Recorder) -> None:
    """Timers stand still while a machine sleeps, so it does not wait for longer."""
    clock = clock_at("2026-03-02 09:00:30")
    start(start_oban, clock, NINE, leader=False)
    events.clear()

    for hour in range(1, 8):
        clock.advance(3590)
        clock.advance(15)
        events.wait_for_count(hour, "oban.plugin.stop", _of_cron)
    assert len(events.all("oban.plugin.stop", _of_cron)) == 7


def test_a_reconnect_is_a_reason_to_look(start_oban: Starter, events: Recorder) -> None:
    """The machine may have slept."""
    clock = clock_at("2026-03-02 09:00:30")
    oban = start(start_oban, clock, NINE, leader=False)
    events.clear()

    oban.tell(CRON, Reconnected())

    events.wait_for("oban.plugin.stop", _of_cron)


def test_marks_of_entries_that_nobody_has_are_kept_for_long(start_oban: Starter) -> None:
    """Another node may have them; only after 90 days they go, and other instances' never."""
    clock = clock_at("2026-03-02 09:00:30")
    start(start_oban, clock, NINE).stop()
    start(start_oban, clock, EVERY_MINUTE, name="other").stop()
    table = crons(start_oban.tables)

    def keys() -> list[str]:
        return sorted(row[0] for row in start_oban.tables.execute(f"SELECT entry FROM {table}"))

    clock.advance(timedelta(days=89))
    start(start_oban, clock, ("0 5 * * *", report)).stop()
    assert len(keys()) == 3
    clock.advance(timedelta(days=2))
    start(start_oban, clock, ("0 5 * * *", report)).stop()
    assert keys() == ["tests.cron.report * * * * * Etc/UTC", "tests.cron.report 0 5 * * * Etc/UTC"]


def test_two_instances_of_one_database_have_their_own_runs(start_oban: Starter) -> None:
    """A mark belongs to an instance's name."""
    clock = clock_at("2026-03-02 08:59:30")
    nodes = [start(start_oban, clock, NINE, name=name) for name in ("one", "two")]

    minutes(nodes, clock, 1)
    assert runs(start_oban.tables) == ["02 09:00", "02 09:00"]


def test_a_mark_of_a_clock_far_ahead_is_set_back(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nothing would be due before that time has come."""
    ahead = clock_at("2031-03-02 08:59:30")
    start(start_oban, ahead, NINE).stop()
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, NINE)

    assert "a clock far ahead" in caplog.text
    minutes([oban], clock, 1)
    assert runs(start_oban.tables) == ["02 09:00"]


def test_a_clock_set_back_a_little_repeats_nothing(start_oban: Starter) -> None:
    """What was evaluated once is not looked at again."""
    clock = clock_at("2026-03-02 08:59:30")
    first = start(start_oban, clock, EVERY_MINUTE)
    minutes([first], clock, 3)
    first.stop()
    back = clock_at("2026-03-02 08:59:30")
    second = start(start_oban, back, EVERY_MINUTE)
    minutes([second], back, 5)

    assert runs(start_oban.tables) == [f"02 09:0{minute}" for minute in range(5)]


class TenMinutesFast(SystemClock):
    """A machine's clock that is wrong."""

    def __init__(self, minutes: int) -> None:
        super().__init__()
        self._wrong = timedelta(minutes=minutes)

    def now(self) -> datetime:
        """The wrong time."""
        return super().now() + self._wrong


def test_clocks_that_are_wrong_make_no_difference(start_oban: Starter) -> None:
    """The database's clock decides: nodes ten minutes apart have one run of each minute."""
    options: dict[str, Any] = {"plugins": [Cron([EVERY_MINUTE])], **QUIET}
    nodes = [
        start_oban(
            clock=TenMinutesFast(wrong), peer={"kind": "isolated", "leader": not wrong}, **options
        )
        for wrong in (0, 10, -10)
    ]
    for node in nodes:
        evaluate(node)
    table = crons(start_oban.tables)
    begun = SystemClock().now()
    since = (begun - timedelta(minutes=4)).replace(second=30, microsecond=0)
    at = since.strftime("%Y-%m-%dT%H:%M:%S.%f") + ("" if start_oban.tables.schema else "Z")
    start_oban.tables.execute(f"UPDATE {table} SET evaluated_at = '{at}'")

    threads = [threading.Thread(target=evaluate, args=[node]) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    found = runs(start_oban.tables)
    first = since.replace(second=0) + timedelta(minutes=1)
    expected = [(first + timedelta(minutes=n)).strftime("%d %H:%M") for n in range(len(found))]
    assert found == expected
    assert len(found) in (3, 4, 5)
