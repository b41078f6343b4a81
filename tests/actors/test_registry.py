"""Names and subscriptions: always of the living, free before anybody hears of an end."""

from typing import Any

import pytest

from oban_actors.actors import (
    AlreadyRegistered,
    Down,
    GenServer,
    NoProcess,
    Registry,
    Runtime,
    ServerCrashed,
    StartChild,
    WhichChildren,
)
from tests.actors.conftest import StartLab, StartTree
from tests.actors.lab import Hooks, Lab, Run, crash, gone, lab


def test_any_hashable_is_a_name(start: StartLab) -> None:
    """Strings and tuples name actors."""
    runtime = Runtime()
    peer = start(name="peer", runtime=runtime)
    producer = start(name=("producer", "mailers"), runtime=runtime)
    assert runtime.registry.names() == {"peer": peer, ("producer", "mailers"): producer}


def test_registries_are_apart(start: StartLab) -> None:
    """Each instance has its own: one name in two of them is two actors."""
    one, two = Runtime(), Runtime()
    first, second = start(name="peer", runtime=one), start(name="peer", runtime=two)
    assert one.registry.whereis("peer") is first
    assert two.registry.whereis("peer") is second


def test_more_names_for_one(start: StartLab) -> None:
    """An actor may take more names; all are free after its end."""
    runtime = Runtime()
    ref = start(name="one", runtime=runtime)
    runtime.registry.register("two", ref)
    runtime.registry.register("two", ref)
    assert runtime.registry.whereis("two") is ref
    ref.stop()
    assert runtime.registry.names() == {}
    assert runtime.registry._names == {}


def test_the_dead_get_no_name(start: StartLab) -> None:
    """An actor that has ended can neither register nor subscribe."""
    registry, ref = Registry(), start()
    ref.stop()
    with pytest.raises(NoProcess):
        registry.register("late", ref)
    registry.subscribe("news", ref)
    assert registry._listeners == {}


def test_name_of_the_dead_is_free(start: StartLab) -> None:
    """A name that a dead actor left is taken over, and its late end does not take it away again."""
    registry = Registry()
    old, new = start("old"), start("new")
    registry.register("one", old)
    with pytest.raises(AlreadyRegistered) as caught:
        registry.register("one", new)
    assert caught.value.ref is old
    old.stop()
    assert registry.whereis("one") is None
    registry.register("one", new)
    registry.forget(old)
    assert registry.whereis("one") is new


def test_name_is_free_when_others_hear(tree: StartTree) -> None:
    """When a `Down` arrives, the name is free or belongs to the successor."""
    seen: list[Any] = []

    class Watcher(GenServer):
        def handle_call(self, message: Any, sender: Any) -> Any:
            return list(seen) if message is None else self.monitor(message)

        def handle_info(self, message: Any) -> None:
            assert isinstance(message, Down)
            seen.append(self.whereis("watched") is message.ref)

    root = tree([Watcher.child_spec(name="watcher")])
    for _ in range(100):
        ref = root.ref.ask(StartChild(lab("watched", restart="temporary")))
        root.ask("watcher", ref)
        with pytest.raises(ServerCrashed):
            ref.ask(crash())
        root.ref.ask(WhichChildren())
    assert root.ask("watcher", None) == [False] * 100


def test_subscriptions(start: StartLab) -> None:
    """Listeners of a channel, in their order; twice is once; none is no error."""
    registry, one, two = Registry(), start("one"), start("two")
    for ref in (one, two, one):
        registry.subscribe("news", ref)
    registry.subscribe("sport", two)
    assert registry.subscribers("news") == [one, two]
    assert registry.channels() == {"news", "sport"}
    registry.unsubscribe("sport", two)
    registry.unsubscribe("sport", two)
    registry.unsubscribe("weather", two)
    assert registry.channels() == {"news"}
    assert registry.subscribers("sport") == []


def test_subscriptions_of_the_dead_vanish(start: StartLab) -> None:
    """Who ended hears nothing, and its channels are forgotten."""
    runtime = Runtime()
    one, two = start("one", runtime=runtime), start("two", runtime=runtime)
    runtime.registry.subscribe("news", one)
    runtime.registry.subscribe("news", two)
    runtime.registry.subscribe("sport", one)
    one.stop()
    assert runtime.registry._listeners == {"news": [two]}
    assert runtime.registry.subscribers("news") == [two]
    assert runtime.registry.channels() == {"news"}


def test_listeners_of_another_tree(start: StartLab) -> None:
    """One whose end this registry is not told of hears nothing either, and is forgotten."""
    registry, one, two = Registry(), start("one"), start("two")
    registry.subscribe("news", one)
    registry.subscribe("news", two)
    registry.subscribe("sport", one)
    one.stop()
    assert registry.subscribers("news") == [two]
    assert registry.channels() == {"news"}
    assert registry._listeners == {"news": [two]}


def test_subscriptions_outlive_who_delivers(tree: StartTree) -> None:
    """They stand in the registry, so a deliverer that crashed finds them when it is back."""

    def deliver(me: Lab) -> None:
        for ref in me.runtime.registry.subscribers("news"):
            me.tell(ref, "wake")

    root = tree([lab("notifier", hooks=Hooks(init=deliver)), lab("listener")])
    listener = root.whereis("listener")
    assert listener is not None
    journal = root.ask("listener", Run(lambda me: me.journal))
    root.runtime.registry.subscribe("news", listener)
    old = root.whereis("notifier")
    with pytest.raises(ServerCrashed):
        root.ask("notifier", crash())
    gone(old)
    root.ref.ask(WhichChildren())
    listener.ask("sync")
    assert ("info", "listener", "wake") in journal.lines
