"""When a plugin runs next: by its own word, but never in a busy loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Oban, Perform, Plugin, PluginResult, PluginRun, VirtualClock
from oban_actors.plugins import PluginContext
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import starter, wait_until_idle
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Eager(Plugin):
    """Wants to run at once, so many times."""

    interval: float = 60.0
    statement: str = "SELECT 1"
    wanted: int = 1_000_000
    runs: list[int] = field(default_factory=list)

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Count it."""
        self.runs.append(1)
        run.transaction(lambda c: c.execute(sa.text(self.statement)).scalar())
        return {}

    def next_delay(self, context: PluginContext) -> float:
        """Say at once, or after the interval."""
        return 0.0 if 0 < len(self.runs) < self.wanted else self.interval


def _of(event: Event) -> bool:
    return event.metadata.get("plugin") is Eager


def ask(oban: Oban) -> PluginResult:
    """Have it run."""
    result = oban.ask(("plugin", "eager"), Perform(), timeout=30)
    assert isinstance(result, PluginResult)
    return result


def settle(oban: Oban) -> None:
    """Wait until its actor has done all that was sent to it, and armed its timer."""
    oban.whereis(("plugin", "eager")).proxy().plugin.get(timeout=30)


def test_at_once_is_at_once(sqlite: Database, events: Recorder) -> None:
    """After a run that was asked for too; each of the runs once, then the interval counts."""
    clock = VirtualClock()
    with starter(sqlite) as one:
        oban = one.leading(plugins=[Eager(wanted=5)], peer="isolated", stager=None, clock=clock)
        ask(oban)

        def ran() -> int:
            clock.advance(0.0001)
            return len(events.all("oban.plugin.stop", _of))

        wait_until(lambda: ran() == 5, message="the runs that it wanted")
        ask(oban)
        clock.advance(59.0)
        assert len(events.all("oban.plugin.stop", _of)) == 6
        clock.advance(2.0)
        events.wait_for_count(7, "oban.plugin.stop", _of)


def test_who_does_not_lead_does_not_hurry(sqlite: Database, events: Recorder) -> None:
    """Nothing was done, so that there would be no end of it."""
    plugin = Eager()
    plugin.runs.append(1)
    with starter(sqlite) as one:
        oban = one(plugins=[plugin], peer=False, stager=None, clock=VirtualClock())
        for _ in range(5):
            assert ask(oban) == PluginResult(leader=False)

        assert len(events.all("oban.plugin.stop", _of)) <= 6


def test_a_database_that_fails_is_not_hurried(sqlite: Database, events: Recorder) -> None:
    """The next try comes after a second, then two, however eager the plugin is."""
    clock = VirtualClock()
    with starter(sqlite) as one:
        plugins = [Eager(statement="no SQL")]
        oban = one.leading(plugins=plugins, peer="isolated", stager=None, clock=clock)
        assert ask(oban).error is not None
        for seconds in (1.0, 2.0, 4.0):
            settle(oban)
            before = len(events.all("oban.plugin.stop", _of))
            clock.advance(seconds * 0.9)
            assert len(events.all("oban.plugin.stop", _of)) == before
            clock.advance(seconds * 0.2)
            events.wait_for_count(before + 1, "oban.plugin.stop", _of)


@dataclass(frozen=True)
class Timeless(Plugin):
    """Can't say when it runs next, so many times."""

    duty = "own"

    given: Any = None
    times: int = 1_000_000
    asked: list[int] = field(default_factory=list)

    def perform(self, run: PluginRun) -> None:
        """Do nothing."""

    def next_delay(self, context: PluginContext) -> Any:
        """Raise, or say what is no time."""
        self.asked.append(1)
        if len(self.asked) > self.times:
            return 1.0
        if self.given is None:
            raise RuntimeError("a bug")
        return self.given


def _timeless(event: Event) -> bool:
    return event.metadata.get("plugin") is Timeless


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "a bug"),
        ("soon", "Timeless.next_delay: expected seconds, as a number, got: 'soon'"),
        (float("nan"), "Timeless.next_delay: expected seconds, as a number, got: nan"),
    ],
)
def test_one_that_cannot_say_when_leaves_the_others_alone(
    sqlite: Database, events: Recorder, given: object, said: str
) -> None:
    """It is told, and runs later and later, as one whose runs crash; each start would else."""
    clock = VirtualClock()
    with starter(sqlite) as one:
        plugins = [Timeless(given=given), Eager()]
        oban = one.leading(plugins=plugins, peer="isolated", stager=None, clock=clock)
        other = oban.whereis(("plugin", "eager"))
        for number, delay in enumerate([15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0], start=1):
            events.wait_for_count(number + 1, "oban.plugin.init", _timeless)
            wait_until_idle(oban, ("plugin", "timeless"))
            clock.advance(delay - 0.5)
            assert len(events.all("oban.plugin.exception", _timeless)) == number - 1
            clock.advance(0.5)
            events.wait_for_count(number, "oban.plugin.exception", _timeless)

        assert str(events.all("oban.plugin.exception", _timeless)[-1].metadata["reason"]) == said
        assert oban.whereis(("plugin", "eager")) == other


def test_one_that_can_say_again_is_as_any_other(sqlite: Database, events: Recorder) -> None:
    """The first run after which it can ends the waiting, also for its next crash."""
    clock = VirtualClock()
    with starter(sqlite) as one:
        plugins = [Timeless(times=2)]
        oban = one.leading(plugins=plugins, peer="isolated", stager=None, clock=clock)
        for number, delay in enumerate([15.0, 30.0, 1.0, 1.0], start=1):
            events.wait_for_count(min(number + 1, 3), "oban.plugin.init", _timeless)
            wait_until_idle(oban, ("plugin", "timeless"))
            clock.advance(delay - 0.5)
            assert len(events.all("oban.plugin.start", _timeless)) == number - 1
            clock.advance(0.5)
            events.wait_for_count(number, "oban.plugin.start", _timeless)

        assert len(events.all("oban.plugin.exception", _timeless)) == 1
