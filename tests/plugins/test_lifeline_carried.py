"""Looks that the Pulse makes for the Lifeline, in the transaction of its beat."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Beat, Rescue
from oban_actors.actors import GenServer
from oban_actors.carrying import Carried, Carry
from oban_actors.pulse import Pulse
from tests.plugins.rescue import Scene, scene
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Heard, Starter, named_actor, starter
from tests.support.waiting import wait_until

LIFELINE = ("plugin", "lifeline")


@contextmanager
def transactions(one: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give who has begun transactions meanwhile."""
    begun: list[str] = []
    transaction = one.oban.repo.transaction

    def counted(work: Any, **terms: Any) -> Any:
        begun.append("beat" if terms.get("vital") else "other")
        return transaction(work, **terms)

    with monkeypatch.context() as patch:
        patch.setattr(one.oban.repo, "transaction", counted)
        yield begun


def beat(one: Scene) -> None:
    """Let the node beat, and the look that it carries be taken."""
    one.oban.ask("pulse", Beat(), timeout=30)
    one.settle()


def test_a_look_costs_no_transaction_of_its_own(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat brings it, on a node with queues and on one without; a dead node is found by it."""
    for queues in ({}, {"alpha": 1}):
        one = scene(start_oban, events, queues=queues, name=f"with {len(queues)}")
        # Producers look once when they start, and once more when the notifier listens.
        for name in ("notifier", *(("producer", queue) for queue in queues)):
            ref = one.oban.whereis(name)
            assert ref is not None
            ref.proxy().actor_urn.get(timeout=30)
        # The first one is its own.
        one.clock.advance(1)
        one.look()
        with transactions(one, monkeypatch) as begun:
            for _ in range(3):
                one.clock.advance(1)
                events.clear()
                beat(one)
                events.wait_for("oban.plugin.stop", lambda e: "rescued_count" in e.metadata)
        assert begun
        assert set(begun) == {"beat"}
        one.oban.stop()


def test_a_dead_node_is_found_by_carried_looks_alone(start_oban: Starter, events: Recorder) -> None:
    """As soon as by looks that it makes by itself."""
    one = scene(start_oban, events)
    one.death()
    one.look()

    for _ in range(6):
        assert one.states() == ["executing"]
        one.clock.advance(9.9)
        beat(one)
    one.clock.advance(1)
    one.settle()

    assert one.states() == ["available"]
    assert one.producers() == []


def test_what_a_look_runs_into_ends_no_beat(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beat is written; the look has failed as one of its own would have: watched anew."""
    one = scene(start_oban, events, queues={"alpha": 1})
    one.insert(queue="beta")
    one.node("beta").claim()
    one.wait(50)
    engine = one.oban._engine
    report = engine.report_producers

    def failing(connection: Any, *more: Any) -> Any:
        report(connection, *more)
        return connection.execute(sa.text("SELECT 1 FROM there_is_no_such_table"))

    before = one.beats("SELECT max(beat_at) FROM {producers}")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "report_producers", failing)
        one.clock.advance(1)
        events.clear()
        beat(one)
        told = events.wait_for("oban.plugin.stop", lambda e: "error" in e.metadata)
    assert "there_is_no_such_table" in str(told.metadata["error"])
    assert one.beats("SELECT max(beat_at) FROM {producers}") > before

    assert one.wait(60) == (0, 0)
    assert one.wait(10) == (1, 0)


def test_a_bug_in_a_look_ends_the_lifeline_and_not_the_pulse(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised where the look was asked for."""
    one = scene(start_oban, events, queues={"alpha": 1})
    one.look()
    pulse, lifeline = one.oban.whereis("pulse"), one.oban.whereis(LIFELINE)
    assert lifeline is not None

    def crashing(*_: Any) -> Any:
        raise RuntimeError("put in")

    with monkeypatch.context() as patch:
        patch.setattr(one.oban._engine, "report_producers", crashing)
        one.oban.ask("pulse", Beat(), timeout=30)
        wait_until(lambda: not lifeline.is_alive())
    wait_until(lambda: one.oban._runtime.registry.whereis(LIFELINE) is not None)

    assert one.look().error is None
    assert one.oban.whereis("pulse") == pulse


def test_a_beat_that_fails_is_a_look_that_failed(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contact was broken, whoever found that out."""
    one = scene(start_oban, events, queues={"alpha": 1})
    one.insert(queue="beta")
    one.node("beta").claim()
    one.wait(50)

    def refusing(*_: Any) -> Any:
        raise sa.exc.OperationalError("put in", None, Exception("the server is away"))

    with monkeypatch.context() as patch:
        patch.setattr(one.oban._engine, "beat", refusing)
        events.clear()
        beat(one)
        events.wait_for("oban.plugin.stop", lambda e: "error" in e.metadata)

    assert one.wait(60) == (0, 0)
    assert one.wait(10) == (1, 0)


@pytest.mark.parametrize("why", ["it is gone", "it is rare"])
def test_without_beats_it_looks_by_itself(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """A quarter of an interval late at most; at its own pace where beats are rarer than looks."""
    rare = why == "it is rare"
    options: dict[str, Any] = {"pulse": {"interval": 10.0}, "interval": 5.0} if rare else {}
    if not rare:
        # It takes what it is asked, and never beats.
        monkeypatch.setattr(Pulse, "_beat", lambda _: None)
    one = scene(start_oban, events, **options)
    one.death()

    assert one.seconds_until_rescued(75) >= 60


def test_a_look_from_before_is_no_use(start_oban: Starter, events: Recorder) -> None:
    """One that comes late, or twice: what was asked for last is taken, once."""
    one = scene(start_oban, events)
    # The Pulse beats as it starts and once more when the notifier listens, and carries a look.
    start_oban.hear(one.oban, "sonar")
    one.settle()
    one.look()
    ref = one.oban.whereis(LIFELINE)
    assert ref is not None
    late = Carried(lambda *_: None, 0.0, 0.0)
    one.settle()
    events.clear()
    ref.tell(late)
    ref.tell(late)
    one.settle()
    assert (
        events.all("oban.plugin.start", lambda e: e.metadata["plugin"].__name__ == "Lifeline") == []
    )
    assert one.look().error is None


def test_each_who_asks_is_told_once(pg: Database) -> None:
    """The last of what each asked for; who has ended meanwhile is nobody's trouble."""
    with starter(pg) as start:
        oban = start(queues={"alpha": 1}, stager=None, peer=False)
        one, other = (Heard(named_actor(oban, name)) for name in ("one", "other"))

        def given(value: str) -> Any:
            return lambda connection, written: (
                value,
                written,
                connection.execute(sa.text("SELECT 1")).scalar(),
            )

        for who, value in ((one, "first"), (one, "last"), (other, "other")):
            oban.tell("pulse", Carry(given(value), who.ref))
        gone = GenServer.start_link(runtime=oban._runtime)
        oban.tell("pulse", Carry(given("gone"), gone))
        gone.stop()
        oban.ask("pulse", Beat(), timeout=30)
        oban.ask("pulse", Beat(), timeout=30)

        for who, value in ((one, "last"), (other, "other")):
            (told,) = wait_until(partial(who.told, Carried))
            assert told.unpack() == (value, True, 1)
            assert told.began <= told.ended
            who.ref.stop()


def test_told_to_look_it_does_not_wait_for_a_beat(start_oban: Starter, events: Recorder) -> None:
    """It looks at once, in a transaction of its own."""
    one = scene(start_oban, events)
    one.oban.tell(LIFELINE, Rescue())

    events.wait_for("oban.plugin.stop", lambda e: "rescued_count" in e.metadata)


def test_a_row_that_is_no_text_keeps_no_look_from_the_others(
    start_sqlite: Starter, events: Recorder
) -> None:
    """A beat goes on past it, so that the dead are found in time."""
    one = scene(start_sqlite, events)
    (odd,) = one.insert()
    one.tables.execute(
        "UPDATE {jobs} SET state = 'executing', queue = cast(x'ff' AS TEXT) WHERE id = :id",
        id=odd.id,
    )
    one.death()
    one.look()
    for _ in range(6):
        one.clock.advance(9.9)
        beat(one)
    one.clock.advance(1)
    one.settle()

    assert one.states() == ["executing", "available"]
