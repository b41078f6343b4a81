"""A host's own plugin: its options, its runs, its leadership, its failures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import (
    ConfigError,
    DatabaseError,
    Election,
    Oban,
    Perform,
    Plugin,
    PluginResult,
    PluginRun,
)
from oban_actors.actors import ServerCrashed, VirtualClock
from oban_actors.plugins.actor import PluginActor
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, wait_until_idle
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Counter(Plugin):
    """Counts the jobs, or does what it is told."""

    interval: float = 3600.0
    statement: str = "SELECT 1"
    bug: bool = False

    def validate(self) -> None:
        """Refuse what is no interval."""
        if self.interval <= 0:
            raise ValueError("interval has to be positive")

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Do it."""
        if self.bug:
            raise RuntimeError("a bug")
        found = run.transaction(lambda c: c.execute(sa.text(self.statement)).scalar())
        return {"found": found}


class Own(Counter):
    """Likewise, on every node."""

    duty = "own"


def ask(oban: Oban, name: str = "counter") -> PluginResult:
    """Ask for a run."""
    result = oban.ask(("plugin", name), Perform(), timeout=30)
    assert isinstance(result, PluginResult)
    return result


def _of(kind: type[Plugin]) -> Any:
    def matches(event: Event) -> bool:
        return event.metadata.get("plugin") is kind

    return matches


def test_a_run_is_a_span_with_what_it_says(start_oban: Starter, events: Recorder) -> None:
    """Asked, it answers with its result; the event has the same."""
    oban = start_oban.leading(plugins=[Counter()])

    assert ask(oban) == PluginResult(leader=True, extra={"found": 1})
    events.wait_for("oban.plugin.init", _of(Counter))
    stop = events.wait_for("oban.plugin.stop", _of(Counter))
    assert (stop.metadata["leader"], stop.metadata["found"]) == (True, 1)
    node = oban.tree().find("plugins")
    assert node is not None
    assert [child.id for child in node.children] == [("plugin", "counter")]


def test_it_runs_again_and_again(start_oban: Starter, events: Recorder) -> None:
    """The timer is armed anew after each run."""
    start_oban.leading(plugins=[Counter(interval=0.01)])

    events.wait_for_count(5, "oban.plugin.stop", _of(Counter))


def test_only_the_leader_does_shared_work(start_oban: Starter) -> None:
    """Another node answers that it does not lead, and does nothing; its own work it does."""
    oban = start_oban(peer=False, plugins=[Counter(statement="no SQL"), Own()])

    assert ask(oban) == PluginResult(leader=False)
    assert ask(oban, "own") == PluginResult(leader=False, extra={"found": 1})


def test_a_lease_that_is_gone_ends_the_run(start_oban: Starter) -> None:
    """What the Peer said may be old: the transaction reads the lease itself."""
    oban = start_oban.leading(plugins=[Counter()], peer={"advisory_lock": False})
    # The renewal that follows its notifier's first connection is over then.
    oban.ask("peer", Election(), timeout=30)
    start_oban.tables.execute("DELETE FROM {peers}")

    assert ask(oban) == PluginResult(leader=False)


def test_a_database_that_refuses_is_told_and_tried_again(
    start_oban: Starter, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an event's error and one line in the log, and the actor lives."""
    oban = start_oban.leading(plugins=[Counter(statement="no SQL", interval=0.01)])
    actor = oban.whereis(("plugin", "counter"))

    events.wait_for_count(
        3, "oban.plugin.stop", lambda e: _of(Counter)(e) and "error" in e.metadata
    )
    assert oban.whereis(("plugin", "counter")) == actor
    lines = [record for record in caplog.records if "will be tried again" in record.message]
    assert len(lines) == 1


def test_a_bug_crashes_it_and_it_comes_back(start_oban: Starter) -> None:
    """Who asked is told, and the supervisor starts another one."""
    oban = start_oban.leading(plugins=[Counter(bug=True)])
    actor = oban.whereis(("plugin", "counter"))

    with pytest.raises(ServerCrashed):
        ask(oban)

    def came_back() -> bool:
        found = oban._runtime.registry.whereis(("plugin", "counter"))
        return found is not None and found != actor

    wait_until(came_back, message="another actor")


def test_one_that_crashes_in_each_run_leaves_the_others_alone(
    start_oban: Starter, events: Recorder
) -> None:
    """It runs again later, and later: their supervisor would give up, and take all with it."""
    clock = VirtualClock()
    plugins = [Own(interval=1.0, bug=True), Counter()]
    oban = start_oban.leading(clock=clock, plugins=plugins)
    other = oban.whereis(("plugin", "counter"))
    waited = 0.0
    for number, delay in enumerate([1.0, 15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0], start=1):
        events.wait_for_count(number, "oban.plugin.init", _of(Own))
        wait_until_idle(oban, ("plugin", "own"))
        clock.advance(delay - 0.5)
        assert len(events.all("oban.plugin.exception", _of(Own))) == number - 1
        clock.advance(0.5)
        events.wait_for_count(number, "oban.plugin.exception", _of(Own))
        waited += delay

    assert oban.whereis(("plugin", "counter")) == other
    assert waited > 1000


def test_options_are_checked_before_anything_starts() -> None:
    """An unknown one is named with the nearest; what the plugin says is kept; one of each."""
    with pytest.raises(ConfigError, match="unknown option 'intervall' for Counter, did you mean"):
        Counter(intervall=1)  # type: ignore[call-arg]  # as a user may write it
    with pytest.raises(
        ConfigError, match=r"'plugins\[0\]' \(Counter\): 'interval has to be positive'"
    ):
        Oban("sqlite:///jobs.db", plugins=[Counter(interval=0)])
    with pytest.raises(ConfigError, match="found duplicate plugins: \\['counter'\\]"):
        Oban("sqlite:///jobs.db", plugins=[Counter(), Counter(interval=1)])


class Undecorated(Plugin):
    """What a user writes who forgets the decorator."""

    interval: float = 5.0

    def perform(self, run: PluginRun) -> None:
        """Do nothing."""


class Initialised(Undecorated):
    """One that takes its options itself."""

    def __init__(self, days: int) -> None:
        self.days = days


class Faster(Counter):
    """Its interval would be the one of `Counter`."""

    interval = 5.0


def test_no_option_is_dropped() -> None:
    """Without `@dataclass` nobody would look at them, and the error says what to write."""
    for options in ({"interval": 3}, {"intervall": 3}):
        with pytest.raises(ConfigError, match=r"Undecorated takes no options: .*@dataclass"):
            Undecorated(**options)
    with pytest.raises(ConfigError, match="takes no options"):
        Undecorated(3)
    with pytest.raises(ConfigError, match=r"Faster.interval would not count.*@dataclass"):
        Faster()

    assert Undecorated().interval == 5
    assert Initialised(days=3).days == 3
    assert Own(interval=3).interval == 3


def test_a_class_is_no_plugin() -> None:
    """Whoever forgets the parentheses hears so before anything starts."""
    said = r"'plugins\[0\]': expected a plugin, got: the class Counter \(call it\)"
    with pytest.raises(ConfigError, match=said):
        Oban("sqlite:///jobs.db", plugins=[Counter])


@dataclass(frozen=True)
class Saying(Plugin):
    """Returns what it is given."""

    interval: float = 3600.0
    value: Any = None

    def perform(self, run: PluginRun) -> Any:
        """Say it."""
        return self.value


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_run_that_says_nothing_says_nothing(start_oban: Starter) -> None:
    """A `perform` without `return` is like one that returns `{}`; names of ours stay ours."""
    oban = start_oban.leading(plugins=[Saying()])
    assert ask(oban, "saying") == PluginResult(leader=True)

    other = start_oban.leading(name="other", plugins=[Saying(value={"leader": 3, "a": 1})])
    assert ask(other, "saying").extra["a"] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", [3, {1: 2}])
def test_what_is_no_mapping_is_a_bug_that_is_named(start_oban: Starter, value: object) -> None:
    """Python's own error would name neither the method nor what it should have returned."""
    oban = start_oban.leading(plugins=[Saying(value=value)])

    with pytest.raises(ServerCrashed, match=r"Saying\.perform: expected a mapping of names"):
        ask(oban, "saying")


def test_what_it_does_not_know_it_drops(start_oban: Starter) -> None:
    """Another plugin's message does nothing, and leaves it alive."""
    oban = start_oban.leading(plugins=[Counter()])
    actor = oban.whereis(("plugin", "counter"))
    oban.tell(("plugin", "counter"), object())

    assert ask(oban).extra == {"found": 1}
    assert oban.whereis(("plugin", "counter")) == actor
    assert issubclass(actor.actor_class, PluginActor)


def test_text_that_is_none_fails_the_statement(start_sqlite: Starter) -> None:
    """Nobody is given bytes where he has asked for text."""
    oban = start_sqlite(peer=False, plugins=[Own(statement="SELECT cast(x'ff' AS TEXT)")])
    actor = oban.whereis(("plugin", "own"))
    error = ask(oban, "own").error

    assert isinstance(error, DatabaseError)
    assert "decode to UTF-8" in str(error)
    assert oban.whereis(("plugin", "own")) == actor
