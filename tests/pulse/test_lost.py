"""A node that can't beat: others will take it for dead, so its jobs are told to end before that."""

from collections.abc import Iterator
from typing import Any

import pytest

from oban_actors import Beat, DatabaseUnavailable, Oban, pulse
from oban_actors.actors import VirtualClock
from oban_actors.pulse import BEAT_TIME, FILE_TIME
from oban_actors.queues.foreman import MARGIN
from oban_actors.queues.heart import LOST_AFTER
from oban_actors.repo.repo import GRACE
from tests.queues.test_crashes import crash
from tests.queues.work import Work, claims, jobs, renew
from tests.support.instances import Starter
from tests.support.waiting import wait_until


@pytest.fixture
def work() -> Iterator[Work]:
    """This test's work; what still waits at its end is let go."""
    one = renew()
    yield one
    one.open()


def mute(patch: pytest.MonkeyPatch, oban: Oban) -> None:
    """Let all beats of an instance fail."""

    def failing(*_: Any) -> Any:
        raise DatabaseUnavailable("put in")

    patch.setattr(oban._engine, "beat", failing)


def test_who_has_never_beat_is_lost_too(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what begins later is told to end, while no beat comes through."""
    clock = VirtualClock()
    oban = start_oban.make(clock=clock, queues={"alpha": 5}, stager=None)
    mute(monkeypatch, oban)
    oban.start()
    for count in (1, 2):
        oban.insert(jobs("sync", 1, "heed")[0])
        wait_until(lambda: len(work.ran) == count)  # noqa: B023 (asked at once)
        clock.advance(46)
        oban.ask("pulse", Beat(), timeout=30)
        wait_until(lambda: len(work.told) == count)  # noqa: B023 (as above)

    assert set(work.told.values()) == {"shutdown"}


def test_a_pulse_that_crashes_is_no_beat(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its successor counts on from the last beat that there was, as others do."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, queues={"alpha": 5}, stager=None)
    oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(1)
    oban.ask("pulse", Beat(), timeout=30)
    mute(monkeypatch, oban)
    clock.advance(40)
    crash(monkeypatch, oban.whereis("pulse"))
    wait_until(lambda: oban._runtime.registry.whereis("pulse") is not None)
    clock.advance(6)
    oban.ask("pulse", Beat(), timeout=30)

    wait_until(lambda: list(work.told.values()) == ["shutdown"])


def test_beats_that_come_sooner_are_missed_sooner(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever watches this node may wait for no more than six of them."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, queues={"alpha": 5}, stager=None, pulse={"interval": 1.0})
    oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(1)
    oban.ask("pulse", Beat(), timeout=30)
    mute(monkeypatch, oban)
    clock.advance(4)
    oban.ask("pulse", Beat(), timeout=30)
    assert work.inside == 1
    clock.advance(1)
    oban.ask("pulse", Beat(), timeout=30)

    wait_until(lambda: list(work.told.values()) == ["shutdown"])


def test_a_file_that_somebody_keeps_is_not_lost(
    start_sqlite: Starter,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those who could rescue have it no more than this node; what breaks is another matter."""
    monkeypatch.setattr(pulse, "FILE_TIME", 0.001)
    clock = VirtualClock()
    oban = start_sqlite(clock=clock, queues={"alpha": 5}, stager=None)
    oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(1)
    oban.ask("pulse", Beat(), timeout=30)
    with start_sqlite.tables.engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        for _ in range(3):
            clock.advance(46)
            oban.ask("pulse", Beat(), timeout=60)
        other.rollback()
    assert "the pulse failed and will be tried again: database is locked" in caplog.text
    assert [claim.running.cancelled for claim in claims(oban).values()] == [False]
    mute(monkeypatch, oban)
    oban.ask("pulse", Beat(), timeout=30)

    wait_until(lambda: list(work.told.values()) == ["shutdown"])


def test_a_beat_that_hangs_ends_in_time() -> None:
    """However long the server is silent, what runs in processes ends before others run it."""
    assert LOST_AFTER + BEAT_TIME + GRACE + MARGIN < 60
    # For a file it waits as often as that fits in.
    assert BEAT_TIME % FILE_TIME == 0
