"""Cron on a database: each due minute's job exactly once, whoever is there."""

import threading
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Oban, Reconnected
from tests.plugins.crontabs import (
    CRON,
    EVERY_MINUTE,
    NINE,
    clock_at,
    crons,
    evaluate,
    minutes,
    of_cron,
    only_one,
    report,
    runs,
    start,
)
from tests.support.events import Recorder
from tests.support.instances import Starter, wait_until_idle
from tests.support.waiting import wait_until


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
    stop = events.wait_for("oban.plugin.stop", lambda e: of_cron(e) and bool(e.metadata["jobs"]))
    assert [each.id for each in stop.metadata["jobs"]] == [job.id]
    assert evaluate(oban) == []


def test_a_jobof_cron_runs(start_oban: Starter) -> None:
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
    stop = events.wait_for("oban.plugin.stop", of_cron)
    assert stop.metadata["conf"] is leader.config
    assert len(stop.metadata["jobs"]) == 1
    assert statements == []
    clock.advance(2)
    events.wait_for_count(2, "oban.plugin.stop", of_cron)
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


def test_a_unique_worker_is_honoured(start_oban: Starter, events: Recorder) -> None:
    """Where another job is there the run is done, and that one is told."""
    clock = clock_at("2026-03-02 08:59:30")
    oban = start(start_oban, clock, ("* * * * *", only_one))

    minutes([oban], clock, 2)

    stops = events.all("oban.plugin.stop", lambda e: of_cron(e) and bool(e.metadata["jobs"]))
    first, second = (job for stop in stops for job in stop.metadata["jobs"])
    assert (first.conflict, second.conflict, second.id) == (False, True, first.id)
    assert runs(start_oban.tables, "tests.cron.only_one") == ["02 09:00"]


def test_an_idle_node_looks_once_an_hour(start_oban: Starter, events: Recorder) -> None:
    """Timers stand still while a machine sleeps, so it does not wait for longer."""
    clock = clock_at("2026-03-02 09:00:30")
    oban = start(start_oban, clock, NINE, leader=False)
    events.clear()

    for hour in range(1, 8):
        clock.advance(3590)
        clock.advance(15)
        events.wait_for_count(hour, "oban.plugin.stop", of_cron)
        # Its timer is armed once it has said so.
        wait_until_idle(oban, CRON)
    assert len(events.all("oban.plugin.stop", of_cron)) == 7


def test_a_reconnect_is_a_reason_to_look(start_oban: Starter, events: Recorder) -> None:
    """The machine may have slept."""
    clock = clock_at("2026-03-02 09:00:30")
    oban = start(start_oban, clock, NINE, leader=False)
    events.clear()

    oban.tell(CRON, Reconnected())

    events.wait_for("oban.plugin.stop", of_cron)


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
