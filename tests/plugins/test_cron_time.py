"""Cron and time: missed runs, changes of clocks, and clocks that are wrong."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_actors.actors import SystemClock
from oban_actors.plugins import Cron
from tests.plugins.crontabs import (
    EVERY_MINUTE,
    NINE,
    QUIET,
    Warm,
    clock_at,
    crons,
    evaluate,
    minutes,
    report,
    runs,
    start,
)
from tests.support.instances import Starter
from tests.support.waiting import wait_until


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
    # A little beyond, as the look that is armed to the moment comes a little after it.
    clock.advance(timedelta(hours=21, seconds=1))
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


def test_a_clock_set_back_a_little_repeats_nothing(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """What was evaluated once is not looked at again, and that nothing is due meanwhile is told."""
    clock = clock_at("2026-03-02 08:59:30")
    first = start(start_oban, clock, EVERY_MINUTE)
    minutes([first], clock, 3)
    first.stop()
    back = clock_at("2026-03-02 08:59:30")
    second = start(start_oban, back, EVERY_MINUTE)
    minutes([second], back, 5)

    assert runs(start_oban.tables) == [f"02 09:0{minute}" for minute in range(5)]
    assert len([text for text in caplog.messages if "by a clock that is ahead" in text]) == 1


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
    with start_oban.tables.engine.begin() as connection:
        # From here on nobody else gets at the mark: a minute that came just now has no run either.
        start_oban.tables.on(connection, f"UPDATE {table} SET evaluated_at = '{at}'")
        start_oban.tables.on(connection, "DELETE FROM {jobs}")

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
