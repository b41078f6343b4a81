"""A Lifeline among rows that refuse, locks, crashes at each step, and others that rescue too."""

import contextlib
from collections import Counter
from typing import Any

import pytest
from pykka import ActorDeadError

from oban_actors import DatabaseUnavailable, Job, Rescue, StatementTimeout
from oban_actors.plugins import rescuing
from oban_actors.plugins.orphans import orphans_of
from oban_actors.plugins.rescuing import MOST_BATCHES
from oban_actors.staging import ASIDE_FOR
from tests.plugins.rescue import Scene, scene
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter, starter
from tests.support.waiting import wait_until

PG_REFUSE = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN IF OLD.meta ? 'poison' THEN RAISE EXCEPTION 'refused'; END IF; RETURN NEW; END$$
"""
PG_TRIGGER = (
    "CREATE TRIGGER refuse BEFORE UPDATE ON {jobs} FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
)
SQLITE_TRIGGER = """
CREATE TRIGGER refuse BEFORE UPDATE ON {jobs} WHEN json_extract(OLD.meta, '$.poison')
BEGIN SELECT RAISE(ABORT, 'refused'); END
"""


class Fault(Exception):
    """What is put in."""


def refuse(one: Scene) -> None:
    """Let the database refuse to change jobs that are marked."""
    schema = one.tables.schema
    for statement in (PG_REFUSE, PG_TRIGGER) if schema else (SQLITE_TRIGGER,):
        one.tables.execute(statement.replace("{schema}", f'"{schema}"'))


def allow(one: Scene) -> None:
    """Let it change them again."""
    one.tables.execute("DROP TRIGGER refuse" + (" ON {jobs}" if one.tables.schema else ""))


def test_a_row_that_refuses_stops_no_other(
    start_oban: Starter, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside and tried again later; its producer's row stays until it is settled."""
    one = scene(start_oban, events, interval=10)
    first, second = one.node(), one.node()
    one.insert(3)
    one.insert(1, meta={"poison": True})
    one.insert(4)
    first.beat()
    first.claim(8)
    one.insert(2)
    second.beat()
    second.claim()
    refuse(one)

    assert one.wait(70) == (9, 0)
    assert one.states() == ["available"] * 3 + ["executing"] + ["available"] * 6
    assert one.producers() == [first.claimant.uuid]
    assert len([r for r in caplog.records if "left out for a while" in r.message]) == 1
    assert one.wait(ASIDE_FOR) == (0, 0)
    allow(one)
    assert one.wait(ASIDE_FOR) == (1, 0)
    assert one.producers() == []


def test_jobs_that_refuse_to_be_discarded_stop_no_other(
    start_oban: Starter, events: Recorder
) -> None:
    """Those that no fetch takes are discarded around one that the database refuses."""
    one = scene(start_oban, events)
    one.insert(2)
    one.insert(1, meta={"poison": True})
    one.insert(2)
    one.tables.execute("UPDATE {jobs} SET attempt = max_attempts")
    refuse(one)

    assert one.look().extra["set_aside"] == (3,)
    assert one.totals() == (0, 4)
    assert one.states() == ["discarded"] * 2 + ["available"] + ["discarded"] * 2


def test_a_locked_row_stops_no_other(pg: Database, events: Recorder) -> None:
    """It is passed over, and its turn comes once it is free."""
    with starter(pg) as start:
        one = scene(start, events)
        one.insert(3)
        dead = one.node()
        dead.beat()
        dead.claim()
        with one.tables.engine.begin() as other:
            one.tables.on(other, "SELECT 1 FROM {jobs} WHERE id = 2 FOR UPDATE")
            assert one.wait(70) == (2, 0)
            assert one.producers() == [dead.claimant.uuid]
        assert one.wait(10) == (1, 0)
        assert one.producers() == []


def test_many_jobs_go_in_batches(start_oban: Starter, events: Recorder) -> None:
    """One run does a bounded number, and the next one follows at once."""
    one = scene(start_oban, events, limit=2)
    dead, other = one.node(), one.node("beta")
    one.insert(2 * MOST_BATCHES + 5)
    one.insert(3, "beta")
    dead.beat()
    dead.claim(1000)
    other.claim()
    one.wait(50)
    one.clock.advance(20)
    one.look()

    assert max(e.metadata.get("rescued_count", 0) for e in events.all("oban.plugin.stop")) == (
        2 * MOST_BATCHES
    )
    one.clock.advance(0.001)
    wait_until(lambda: set(one.states()) == {"available"})
    assert one.totals() == (2 * MOST_BATCHES + 8, 0)
    assert one.producers() == []


STEPS = [
    (name, after)
    for name in ("hold_producer", "find_orphans", "rescue_jobs", "settle_producer", "publish")
    for after in (False, True)
]


@pytest.mark.parametrize(("name", "after"), STEPS)
def test_a_crash_at_any_step_leaves_all_or_nothing(
    start_oban: Starter,
    events: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    after: bool,  # noqa: FBT001 (a case)
) -> None:
    """Nothing is changed by halves; the one that is started next watches anew, and rescues."""
    one = scene(start_oban, events)
    one.insert(3)
    dead = one.node()
    dead.beat()
    dead.claim()
    one.look()
    one.wait(50)
    target = one.oban._publisher if name == "publish" else one.oban._engine
    method = getattr(target, name)
    faults = [Fault("put in")]

    def failing(*args: Any, **more: Any) -> Any:
        # The pulse publishes too.
        mine = name != "publish" or args[1] == "insert"
        result = method(*args, **more) if after or not (mine and faults) else None
        if mine and faults:
            raise faults.pop()
        return result

    monkeypatch.setattr(target, name, failing)
    ref = one.oban.whereis(("plugin", "lifeline"))
    assert ref is not None
    one.clock.advance(15)
    with contextlib.suppress(ActorDeadError):  # a beat may have carried a look by now
        ref.tell(Rescue())
    wait_until(lambda: not ref.is_alive())
    assert one.states() == ["executing"] * 3
    assert one.producers() == [dead.claimant.uuid]
    wait_until(lambda: one.oban._runtime.registry.whereis(("plugin", "lifeline")) is not None)
    one.look()

    assert one.wait(50) == (0, 0)
    assert one.wait(10) == (3, 0)
    assert one.producers() == []
    assert one.tables.execute("SELECT DISTINCT attempt FROM {jobs}") == [(1,)]


def test_a_producer_that_fails_stops_no_other(
    start_oban: Starter,
    events: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is named in the event, logged once, tried last, and rescued when that works."""
    one = scene(start_oban, events)
    first, second = one.node(), one.node()
    for node in (first, second):
        one.insert()
        node.beat()
        node.claim()
    engine = one.oban._engine
    settle = engine.settle_producer

    def failing(connection: Any, uuid: str, *more: Any) -> bool:
        if uuid == first.claimant.uuid:
            raise StatementTimeout("put in")
        return settle(connection, uuid, *more)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "settle_producer", failing)
        one.wait(60)
        one.clock.advance(10)
        assert one.look().extra["failed"] == (first.claimant.uuid,)
        assert one.states() == ["executing", "available"]
        assert one.wait(30)[0] <= 1
        events.clear()
    one.clock.advance(10)
    one.look()
    told = [e.metadata for e in events.all("oban.plugin.stop")]
    assert ["failed" in each for each in told if each.get("rescued_count")] == [False]
    lines = [r for r in caplog.records if "can't be rescued yet" in r.message]
    assert len(lines) == 1


def test_a_database_that_goes_away_meanwhile_begins_the_watch_anew(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends there, having told what it did before."""
    one = scene(start_oban, events)
    one.insert(2)
    one.node().claim(1)
    one.node().claim(1)
    engine = one.oban._engine
    find, found = engine.find_orphans, []

    def failing(*args: Any, **more: Any) -> list[int]:
        found.append(args)
        if len(found) == 2:
            raise DatabaseUnavailable("put in")
        return find(*args, **more)

    monkeypatch.setattr(engine, "find_orphans", failing)

    assert one.wait(70) == (1, 0)
    assert one.wait(50) == (0, 0)
    assert one.wait(20) == (1, 0)


def test_a_beat_that_comes_at_the_last_moment_counts(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen is looked at again under a lock: between two, it has come alive."""
    one = scene(start_oban, events)
    one.insert(2)
    silent, absent = one.node(), one.node()
    silent.beat()
    silent.claim(1)
    absent.claim(1)

    def late(*args: Any, **more: Any) -> Any:
        decided = orphans_of(*args, **more)
        if decided:
            silent.beat()
            absent.beat()
        return decided

    monkeypatch.setattr(rescuing, "orphans_of", late)

    assert one.wait(100) == (0, 0)
    assert one.states() == ["executing"] * 2
    assert sorted(one.producers()) == sorted([silent.claimant.uuid, absent.claimant.uuid])


@pytest.mark.parametrize("where", ["orphans_of", "hold_producer"])
def test_a_rescuer_that_sleeps_on_its_decision_drops_it(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A process that was stopped between its look and its act begins its watch anew."""
    one = scene(start_oban, events)
    one.insert()
    dead = one.node()
    dead.beat()
    dead.claim()
    one.wait(50)
    target: Any = rescuing if where == "orphans_of" else one.oban._engine
    method = getattr(target, where)
    slept: list[int] = []

    def sleeping(*args: Any, **more: Any) -> Any:
        result = method(*args, **more)
        if result and not slept:
            slept.append(1)
            one.clock._elapsed_ns += 30 * 10**9
        return result

    monkeypatch.setattr(target, where, sleeping)

    assert one.wait(20) == (0, 0)
    assert slept == [1]
    assert one.states() == ["executing"]
    assert one.producers() == [dead.claimant.uuid]
    assert one.wait(50) == (0, 0)
    assert one.wait(20) == (1, 0)


def test_batches_that_take_too_long_get_smaller(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the database is, some jobs at a time are rescued."""
    one = scene(start_oban, events)
    one.insert(300)
    one.node().claim(300)
    engine = one.oban._engine
    rescue = engine.rescue_jobs

    def slow(connection: Any, ids: Any, *more: Any) -> Any:
        if len(ids) > 100:
            raise StatementTimeout("put in")
        return rescue(connection, ids, *more)

    monkeypatch.setattr(engine, "rescue_jobs", slow)
    one.wait(150)

    assert set(one.states()) == {"available"}


def test_two_rescuers_at_once(start_oban: Starter, events: Recorder) -> None:
    """Every job is rescued once, whoever comes first, and every row goes."""
    one = scene(start_oban, events, limit=3)
    two = scene(start_oban, events, limit=3)
    for place in range(12):
        one.insert(10)
        node = one.node()
        if place % 2:
            node.beat()
        assert len(node.claim()) == 10
    for each in (one, two):
        each.look()
        each.wait(50)
    events.clear()
    for each in (one, two):
        each.clock.advance(15)
    refs = [each.oban.whereis(("plugin", "lifeline")) for each in (one, two)]
    while set(one.states()) != {"available"}:
        answers = [ref.ask(Rescue(), block=False) for ref in refs if ref is not None]
        for answer in answers:
            assert answer.get(timeout=60).error is None

    told = [e.metadata.get("rescued_jobs", ()) for e in events.all("oban.plugin.stop")]
    counted = Counter(job.id for rescued in told for job in rescued)
    assert len(counted) == 120
    assert set(counted.values()) == {1}
    assert one.producers() == []


@pytest.mark.slow
def test_twenty_thousand_that_no_fetch_takes(start_oban: Starter, events: Recorder) -> None:
    """They go in bounded batches, each look followed by the next at once; what can run stays."""
    one = scene(start_oban, events)
    one.oban.insert_all(
        Job.new(worker="tests.Worker", queue="alpha", max_attempts=1) for _ in range(20_000)
    )
    one.tables.execute("UPDATE {jobs} SET attempt = 1")
    one.insert(5)
    most = []
    for _ in range(21):
        most.append(one.look().extra["discarded_count"])
        one.clock.advance(0.001)

    assert max(most) <= 1_000
    wait_until(lambda: one.tables.count("discarded") == 20_000)
    assert one.totals() == (0, 20_000)
    assert one.tables.count("available") == 5


@pytest.mark.slow
def test_a_look_at_many_claims_is_cheap(start_oban: Starter, events: Recorder) -> None:
    """Twenty thousand jobs that run on living nodes cost a look a fraction of a second."""
    one = scene(start_oban, events)
    nodes = [one.node(f"q{place}") for place in range(20)]
    for node in nodes:
        one.insert(1_000, node.queue)
        node.beat()
        assert len(node.claim(1_000)) == 1_000
    one.look()
    events.clear()
    for _ in range(5):
        assert one.look().error is None

    stops = events.all("oban.plugin.stop")
    durations = sorted(e.measurements["duration"] / 1e9 for e in stops)
    assert durations[0] < 1.0, durations
