"""When a plugin runs next: by its own word, but never in a busy loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from oban_actors import Oban, Perform, Plugin, PluginResult, PluginRun, VirtualClock
from oban_actors.plugins import PluginContext
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import starter
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
