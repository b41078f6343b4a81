"""What the event of a plugin's run says, name by name, whatever came of the run."""

from typing import Any

import pytest

from oban_actors import DatabaseError, Evaluate, Job, Plugin, Prune, Reindex, Rescue, worker
from oban_actors.plugins import Cron, Lifeline, Pruner, Reindexer
from tests.support.events import Event, Recorder
from tests.support.instances import Starter

SPAN = {"telemetry_span_context", "conf", "plugin"}
SAID: dict[str, tuple[Any, dict[str, Any]]] = {
    "pruner": (Prune(), {"pruned_count": 0, "pruned_jobs": ()}),
    "lifeline": (
        Rescue(),
        {"rescued_count": 0, "rescued_jobs": (), "discarded_count": 0, "discarded_jobs": ()},
    ),
    "cron": (Evaluate(), {"inserted_count": 0, "jobs": ()}),
    "reindexer": (
        Reindex(),
        {"reindexed_count": 0, "reindexed": (), "dropped": (), "failed": (), "missing": ()},
    ),
}
EACH = pytest.mark.parametrize("name", SAID)


@worker(name="tests.plugins.events")
def nobody(_: Job) -> None:
    """Nothing to do."""


def made(name: str) -> Plugin:
    """Make a plugin that does nothing by itself for the time of a test."""
    plugins: dict[str, Any] = {
        "pruner": Pruner,
        "lifeline": Lifeline,
        "cron": lambda: Cron([("0 0 1 1 *", nobody)]),
        "reindexer": lambda: Reindexer(indexes=[]),
    }
    plugin: Plugin = plugins[name]()
    return plugin


def run(start_oban: Starter, events: Recorder, plugin: Plugin, **options: Any) -> Event:
    """Ask for a run, and give the event of its end."""
    start = start_oban if options else start_oban.leading
    oban = start(plugins=[plugin], **options)
    events.clear()
    oban.ask(("plugin", plugin.id), SAID[plugin.id][0], timeout=60)
    start_event = events.wait_for(
        "oban.plugin.start", lambda e: e.metadata["plugin"] is type(plugin)
    )
    assert start_event.metadata.keys() == SPAN
    return events.wait_for("oban.plugin.stop", lambda e: e.metadata["plugin"] is type(plugin))


@EACH
def test_of_a_run(start_oban: Starter, events: Recorder, name: str) -> None:
    """All that Oban says, and `leader`."""
    stop = run(start_oban, events, made(name))

    assert stop.metadata.keys() == SPAN | SAID[name][1].keys() | {"leader"}
    assert stop.metadata["leader"] is True


@EACH
def test_of_a_follower(start_oban: Starter, events: Recorder, name: str) -> None:
    """Who does nothing says so with the same names."""
    plugin = made(name)
    stop = run(start_oban, events, plugin, peer=False)

    assert stop.metadata.keys() == SPAN | SAID[name][1].keys() | {"leader"}
    assert stop.metadata["leader"] is False
    if plugin.duty == "shared":
        assert {key: stop.metadata[key] for key in SAID[name][1]} == SAID[name][1]


@EACH
def test_of_a_failed_run(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The error stands beside them."""
    plugin = made(name)

    def fail(*_: object) -> None:
        raise DatabaseError("put in")

    monkeypatch.setattr(type(plugin), "perform", fail)
    stop = run(start_oban, events, plugin)

    assert stop.metadata.keys() == SPAN | SAID[name][1].keys() | {"leader", "error"}
    assert {key: stop.metadata[key] for key in SAID[name][1]} == SAID[name][1]
    assert str(stop.metadata["error"]) == "put in"
