"""Rescue by liveness: who is dead, whose jobs run again, and who is left alone."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import ConfigError, Oban, Stage
from oban_actors.config import Config
from oban_actors.engines.rescue import RescuedJob
from oban_actors.peers.identity import MARK
from oban_actors.plugins import Lifeline, PluginContext
from oban_actors.plugins.watch import Sighting
from tests.plugins.rescue import scene
from tests.queues.work import jobs, renew
from tests.support.events import Event, Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ELIXIR = "c2a8a5f4-0000-4000-8000-000000000000"


def test_a_dead_nodes_jobs_are_rescued_after_the_watch(
    start_oban: Starter, events: Recorder
) -> None:
    """Not before; attempts are kept, its row goes with its last job, and the queue is told."""
    one = scene(start_oban, events)
    heard = start_oban.hear(one.oban, "insert")
    dead = one.node()
    ids = [job.id or 0 for job in one.insert(3)]
    heard.wait_for("insert")
    dead.beat()
    dead.claim()

    assert one.wait(60) == (0, 0)
    assert one.states() == ["executing"] * 3
    one.clock.advance(10)
    one.look()

    assert one.states() == ["available"] * 3
    assert one.tables.execute("SELECT DISTINCT attempt FROM {jobs}") == [(1,)]
    assert one.producers() == []
    assert heard.wait_for("insert", 2)[1] == {"queue": "alpha"}

    def counts(event: Event) -> bool:
        return event.metadata["plugin"] is Lifeline and event.metadata["rescued_count"] == 3

    told = events.wait_for("oban.plugin.stop", counts).metadata
    assert told["rescued_jobs"] == tuple(RescuedJob(each, "alpha", "executing") for each in ids)
    batch = events.wait_for("oban.engine.rescue_jobs.stop", lambda e: len(e.metadata["jobs"]) > 0)
    assert batch.metadata["jobs"] == told["rescued_jobs"]
    assert (told["discarded_count"], told["discarded_jobs"]) == (0, ())
    assert one.node().claim()[0].attempt == 2


def test_attempts_used_up_are_discarded(start_oban: Starter, events: Recorder) -> None:
    """With an error of Oban's form; those that have some left are rescued beside them."""
    one = scene(start_oban, events)
    (spent,) = one.insert(max_attempts=1)
    one.insert()
    one.node().claim()

    assert one.wait(70) == (1, 1)
    found = one.oban.get_job(spent.id or 0)
    assert found is not None
    assert (found.state, found.attempt) == ("discarded", 1)
    assert found.discarded_at is not None
    (error,) = found.errors
    assert error["attempt"] == 1
    assert error["error"].startswith("** (ProcessDied) the node that ran it showed no sign of life")


def test_the_same_unique_job_stands_in_no_jobs_way(start_oban: Starter, events: Recorder) -> None:
    """One that was inserted while its like ran keeps the rescuer from nothing: both run."""
    one = scene(start_oban, events)
    unique = {"states": ["available", "scheduled", "retryable"], "period": None}
    dead = one.node()
    first = one.insert(unique=unique)[0]
    dead.beat()
    dead.claim()
    second = one.insert(unique=unique)[0]
    assert not second.conflict

    assert one.wait(70) == (1, 0)
    assert one.states() == ["available"] * 2
    assert one.producers() == []
    assert [job.id for job in one.node().claim()] == [first.id, second.id]


@pytest.mark.slow
def test_who_beats_is_left_alone_for_hours(start_oban: Starter, events: Recorder) -> None:
    """A job that runs for hours on a living node runs once, however old its claim is."""
    work = renew()
    one = scene(start_oban, events, queues={"alpha": 1}, rescue_after=600)
    other = one.node("beta")
    one.insert(queue="beta")
    other.beat()
    other.claim()
    one.oban.insert(jobs("sync", 1, "wait")[0])
    wait_until(lambda: work.inside == 1)

    assert one.wait(2 * 3600, 20.0, other) == (0, 0)
    assert len(work.ran) == 1
    assert one.states() == ["executing"] * 2
    work.open()
    wait_until(lambda: sorted(one.states()) == ["completed", "executing"])


def test_claims_without_a_row_are_watched_from_first_sight(
    start_oban: Starter, events: Recorder
) -> None:
    """A node that died before its first beat is dead too; one whose beat comes is not."""
    one = scene(start_oban, events)
    one.insert(2)
    dead, slow = one.node(), one.node()
    dead.claim(1)
    slow.claim(1)

    one.wait(50)
    slow.beat()
    assert one.wait(20) == (1, 0)
    assert one.states() == ["available", "executing"]
    assert one.producers() == [slow.claimant.uuid]


def test_a_row_that_was_removed_is_no_death_of_one_that_beats(
    start_oban: Starter, events: Recorder
) -> None:
    """Whoever emptied the table: the next beat writes it again."""
    one = scene(start_oban, events)
    one.insert()
    alive = one.node()
    alive.beat()
    alive.claim()
    one.wait(40, 10.0, alive)
    one.beats("DELETE FROM {producers}")

    assert one.wait(100, 10.0, alive) == (0, 0)


def test_claims_of_nodes_that_do_not_beat_go_by_age(start_oban: Starter, events: Recorder) -> None:
    """Elixir's, and those that name nobody; not before their time, and with no row of theirs."""
    one = scene(start_oban, events, rescue_after=600)
    one.insert(2)
    elixir = one.node(uuid=ELIXIR)
    elixir.claim(1)
    one.wait(30)
    elixir.claim(1)

    assert one.wait(570) == (0, 0)
    assert one.wait(10) == (1, 0)
    assert one.states() == ["available", "executing"]
    assert one.wait(30) == (1, 0)


def test_a_claimant_forges_no_line_of_the_log(
    start_oban: Starter, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes rows may name himself as he likes; it stands on one line, and short."""
    one = scene(start_oban, events, rescue_after=600)
    one.insert()
    one.node(uuid=f"x\nERROR forged\x1b[31m{'y' * 200}").claim()

    assert one.wait(610) == (1, 0)
    (told,) = [r.getMessage() for r in caplog.records if "is gone" in r.getMessage()]
    assert told.isprintable()
    assert told.startswith("'x\\nERROR forged")
    assert len(told) < 200


def test_jobs_that_no_fetch_takes_are_discarded(start_oban: Starter, events: Recorder) -> None:
    """Those that wait with no attempt left, in batches; what can run stays."""
    one = scene(start_oban, events, limit=4)
    one.insert(12)
    one.tables.execute("UPDATE {jobs} SET attempt = max_attempts WHERE id <> 5")

    for _ in range(4):
        one.look()

    assert one.totals() == (0, 11)

    assert one.states() == ["discarded"] * 4 + ["available"] + ["discarded"] * 7
    found = one.oban.get_job(1)
    assert found is not None
    assert found.errors[0]["error"].startswith("** (PerformError) no attempt is left")
    assert one.node().claim()[0].id == 5


def test_a_look_that_fails_begins_the_watch_anew(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unbroken contact is what counts; the failure is told, and the actor lives."""
    one = scene(start_oban, events)
    one.insert()
    one.node().claim()
    actor = one.oban.whereis(("plugin", "lifeline"))
    one.wait(50)

    def refusing(*_: Any) -> Any:
        raise sa.exc.OperationalError("put in", None, Exception("the server is away"))

    with monkeypatch.context() as patch:
        patch.setattr(one.oban._engine, "report_producers", refusing)
        assert one.look().error is not None
    assert one.wait(60) == (0, 0)
    assert one.wait(10) == (1, 0)
    assert one.oban.whereis(("plugin", "lifeline")) == actor


def test_a_server_that_restarted_begins_the_watch_anew(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no look fell into the time in which it was away."""
    one = scene(start_oban, events)
    one.insert()
    one.node().claim()
    one.wait(50)
    engine = one.oban._engine
    report = engine.report_producers

    def restarted(*given: Any) -> Any:
        found = report(*given)
        return type(found)("another", found.beats, found.claims)

    monkeypatch.setattr(engine, "report_producers", restarted)

    assert one.wait(60) == (0, 0)
    assert one.wait(10) == (1, 0)


def test_a_watcher_that_slept_begins_anew(start_oban: Starter, events: Recorder) -> None:
    """As a process does that was stopped, or a machine that was suspended."""
    one = scene(start_oban, events)
    one.insert()
    one.node().claim()
    one.wait(50)

    assert one.wait(30, 30.0) == (0, 0)
    assert one.wait(50) == (0, 0)
    assert one.wait(10) == (1, 0)


def test_another_actor_begins_anew(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it watches is its own: it goes with a crash, and the next one has seen nothing."""
    one = scene(start_oban, events)
    one.insert()
    one.node().claim()
    one.wait(50)
    ref = one.oban.whereis(("plugin", "lifeline"))
    assert ref is not None

    def crashing(*_: Any) -> Any:
        raise RuntimeError("put in")

    with monkeypatch.context() as patch:
        patch.setattr(one.oban._engine, "report_producers", crashing)
        ref.tell(Lifeline.message())
        wait_until(lambda: not ref.is_alive())
    wait_until(lambda: one.oban._runtime.registry.whereis(("plugin", "lifeline")) is not None)
    one.look()

    assert one.wait(50) == (0, 0)
    assert one.wait(10) == (1, 0)


@pytest.mark.parametrize(("leader", "most"), [(None, 75), (f"web.1{MARK}abc", 85)])
def test_looks_come_by_themselves_and_in_time(
    start_oban: Starter, events: Recorder, leader: str | None, most: float
) -> None:
    """By timers alone, with all defaults: within 90 seconds of a death, whoever leads has died."""
    one = scene(start_oban, events, leader=leader)
    one.death()

    assert one.seconds_until_rescued(most) >= 60


def test_the_next_look_comes_when_somebody_could_be_dead(
    start_oban: Starter, events: Recorder
) -> None:
    """Else an interval later; a second after the start, whatever the interval."""
    oban = scene(start_oban, events).oban
    context = PluginContext(oban.config, oban.repo, oban._engine, oban._publisher, oban._inserter)
    lifeline = Lifeline().fresh()
    assert lifeline._rescuer is not None
    assert lifeline.next_delay(context) == 1.0
    lifeline._rescuer.looked = True
    assert lifeline.next_delay(context) == 10.0
    for at in (-57.0, -40.0, -20.0, 0.0):
        sighting = Sighting(at, at, "s", {"dead": "x"})
        lifeline._rescuer.watch = lifeline._rescuer.watch.looked(sighting)
    assert 3.0 < lifeline.next_delay(context) < 3.1
    lifeline._rescuer.first = False
    assert lifeline.next_delay(context) == 10.0
    lifeline._rescuer.more = True
    assert lifeline.next_delay(context) == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"watch": 0}, "invalid value for 'watch': expected a positive number of seconds, got: 0"),
        ({"watch": 30, "interval": 10}, "invalid value for 'interval': expected at most a quarter"),
        ({"limit": 0}, "invalid value for 'limit'"),
        ({"rescue_after": "1h"}, "invalid value for 'rescue_after'"),
        ({"watch": 59}, "'watch': expected at least six times 'pulse.interval', 60 seconds, got"),
    ],
)
def test_options_are_checked(options: Mapping[str, Any], message: str) -> None:
    """The message names the option, what was expected and what came; the pulse's too."""
    with pytest.raises(ConfigError, match=message):
        Oban("sqlite:///jobs.db", plugins=[Lifeline(**options)])
    with pytest.raises(ConfigError, match="unknown option 'watchh' for Lifeline, did you mean"):
        Lifeline(watchh=1)  # type: ignore[call-arg]  # as a user may write it


def test_small_watches_need_small_beats() -> None:
    """Times may be timedeltas."""
    lifeline = Lifeline(watch=timedelta(seconds=2), interval=0.2)
    config = Config.build(plugins=[lifeline], pulse={"interval": 0.3})

    assert (config.plugins[0].watch, config.plugins[0].interval) == (2.0, 0.2)


def test_a_python_leader_goes_first(start_oban: Starter, events: Recorder) -> None:
    """Who does not lead waits an interval longer, and leaves what waits without attempts alone."""
    one = scene(start_oban, events, leader=f"web.1{MARK}abc")
    one.insert(2)
    one.node().claim(1)
    one.tables.execute("UPDATE {jobs} SET attempt = 20 WHERE state = 'available'")

    assert one.wait(70) == (0, 0)
    assert one.wait(10) == (1, 0)
    assert one.states() == ["available", "available"]


def test_under_an_elixir_leader_it_goes_at_once(start_oban: Starter, events: Recorder) -> None:
    """Elixir knows of no beats, so that nobody else would."""
    one = scene(start_oban, events, leader="elixir@host")
    one.insert()
    one.node().claim(1)

    assert one.wait(70) == (1, 0)


def test_rescued_jobs_run_again_at_once(start_oban: Starter, events: Recorder) -> None:
    """The whole way: another node's job runs here, as its queue is told."""
    work = renew()
    one = scene(start_oban, events, queues={"alpha": 5})
    one.oban.pause_queue("alpha")
    wait_until(lambda: (view := one.oban.check_queue("alpha")) and view.paused)
    (job,) = one.oban.insert_all(jobs("sync", 1))
    dead = one.node()
    wait_until(lambda: len(dead.claim()) == 1)
    one.oban.resume_queue("alpha")
    one.wait(70)

    wait_until(lambda: one.states() == ["completed"])
    assert work.ran == [job.id]
    assert one.oban.get_job(job.id or 0).attempt == 2


def test_stage_is_not_its_message(start_oban: Starter, events: Recorder) -> None:
    """What it does not know it drops, and lives."""
    one = scene(start_oban, events)
    one.oban.tell(("plugin", "lifeline"), Stage())

    assert one.look().error is None
