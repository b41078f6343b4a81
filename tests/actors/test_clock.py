"""Time as a parameter."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from oban_actors.actors import Clock, SystemClock, VirtualClock


def test_system_clock() -> None:
    """The system's clocks go forward; its wall clock is aware and UTC."""
    clock: Clock = SystemClock()
    assert clock.virtual is False
    assert clock.monotonic() <= clock.monotonic()
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    assert clock.boottime() >= clock.monotonic() - 1
    assert clock.now().tzinfo is UTC
    assert abs(clock.system_time_ns() / 1e9 - clock.now().timestamp()) < 60


def test_boottime_counts_suspends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the clock that does, where the system has one; no test can suspend it."""
    shown = {getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC): 7200.5}
    monkeypatch.setattr(time, "clock_gettime", shown.__getitem__)

    assert SystemClock().boottime() == 7200.5


def test_virtual_clock_moves_only_when_moved() -> None:
    """All its clocks move together, by what they are moved."""
    clock: Clock = VirtualClock(datetime(2026, 11, 24, 12, tzinfo=UTC))
    assert clock.virtual is True
    assert (clock.monotonic(), clock.boottime(), clock.monotonic_ns()) == (0, 0, 0)
    assert isinstance(clock, VirtualClock)
    clock.advance(1.5)
    clock.advance(timedelta(seconds=58.5))
    assert (clock.monotonic(), clock.boottime(), clock.monotonic_ns()) == (60, 60, 60 * 10**9)
    assert clock.now() == datetime(2026, 11, 24, 12, 1, tzinfo=UTC)
    assert clock.system_time_ns() == int(clock.now().timestamp()) * 10**9


def test_virtual_clock_begins_now() -> None:
    """Without a start it begins at the present time."""
    assert abs(VirtualClock().now() - datetime.now(UTC)) < timedelta(minutes=5)  # noqa: TID251 -- to compare


@pytest.mark.parametrize("seconds", [-0.1, timedelta(microseconds=-1)])
def test_time_never_goes_back(seconds: float | timedelta) -> None:
    """It can't be moved back."""
    with pytest.raises(ValueError, match="expected zero or more seconds"):
        VirtualClock().advance(seconds)


def test_naive_start_is_refused() -> None:
    """A start without a zone is nobody's time."""
    with pytest.raises(ValueError, match="expected an aware datetime"):
        VirtualClock(datetime(2026, 1, 1))  # noqa: DTZ001 -- the fault to be found
