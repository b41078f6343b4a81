"""What a queue leaves when it ends: it is written all the same, by a successor that ends again."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oban_actors import Beat, DatabaseUnavailable, Job, Oban, worker
from oban_actors.queues.producer import Producer
from oban_actors.queues.turning import Turns
from oban_actors.queues.workforce import Post
from tests.plugins.rescue import scene
from tests.queues.test_crashes import crash, once
from tests.queues.test_refused import refuse, relent
from tests.queues.work import Work, crashes, jobs, read, view, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None, "shutdown_grace_period": 0.1}

names: list[str] = []


@worker(name="tests.whose", queue="alpha")
def whose(_job: Job) -> None:
    """Note which thread runs it."""
    names.append(threading.current_thread().name)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """An executor of the host's."""
    names.clear()
    with ThreadPoolExecutor(1, thread_name_prefix="host") as one:
        yield one


def beat(oban: Oban) -> None:
    """Let the node beat."""
    oban.ask("pulse", Beat(), timeout=30)


def stop_alpha(oban: Oban) -> None:
    """Stop the queue, and wait until it has ended."""
    oban.stop_queue("alpha")
    wait_until(lambda: oban.check_queue("alpha") is None)


def wait_forgotten(start: Starter, oban: Oban) -> None:
    """Wait until nothing is left of the queue, in the table neither."""
    table = start.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    rows = f"SELECT count(*) FROM {table} WHERE queue = 'alpha'"
    wait_until(lambda: oban.check_queue("alpha") is None)
    wait_until(lambda: start.tables.execute(rows) == [(0,)], message="forgotten")
    beat(oban)
    assert start.tables.execute(rows) == [(0,)]


@KINDS
def test_a_job_that_outlived_its_queue(
    start_oban: Starter, work: Work, told: Recorder, kind: str
) -> None:
    """Beaten for while it runs, its end is written at the next beat, and nothing stays behind."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs(kind, 1, "wait" if kind == "sync" else "refuse")[0])
    work.wait_inside(1)
    stop_alpha(oban)
    beat(oban)
    assert read(oban, one).state == "executing"
    work.open()
    roster = oban._parts.workforce.rosters()[0]
    wait_until(lambda: roster.left_over)
    beat(oban)

    assert wait_state(oban, one, "completed").attempt == 1
    wait_forgotten(start_oban, oban)
    assert len(told.wait_for_count(1, "oban.job.stop")) == 1
    assert work.again == {}
    assert crashes(oban) == []


@KINDS
def test_a_job_that_outlived_its_queue_is_not_rescued(
    start_oban: Starter, work: Work, events: Recorder, kind: str
) -> None:
    """Its queue's claim is beaten for until it ends, so that no Lifeline takes it for dead."""
    watched = scene(start_oban, events, queues={"alpha": 1}, shutdown_grace_period=0.1)
    oban = watched.oban
    one = oban.insert(jobs(kind, 1, "wait" if kind == "sync" else "refuse")[0])
    work.wait_inside(1)
    claimant = view(oban).uuid
    oban.stop_queue("alpha")
    wait_until(lambda: (watched.clock.advance(0.02), oban.check_queue("alpha") is None)[1])
    watched.watch_beside(claimant)
    assert read(oban, one).state == "executing"
    work.open()
    roster = oban._parts.workforce.rosters()[0]
    wait_until(lambda: roster.left_over)
    beat(oban)

    assert wait_state(oban, one, "completed").attempt == 1
    wait_forgotten(start_oban, oban)
    assert work.again == {}


def test_a_producer_that_crashes_at_the_end(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody had begun is given back, and what runs is written when it ends."""
    oban = start_oban(**ALPHA)
    busy = oban.insert(jobs("async", 1, "block")[0])
    work.wait_inside(1)
    others = oban.insert_all(jobs("async", 3))
    wait_until(lambda: len(view(oban).running) == 4)
    faults = once(monkeypatch, Producer, "_finish", after=False)
    with monkeypatch.context() as patch:
        # So late that it gives nothing back before.
        patch.setattr(Post, "take_back", lambda _: [])
        stop_alpha(oban)
    assert faults == []
    assert start_oban.tables.count("executing") == 4
    beat(oban)

    for one in others:
        assert wait_state(oban, one, "available").attempt == 0
    work.open()
    # It had its deadline, and may be ended again before the job is.
    wait_until(lambda: (beat(oban), read(oban, busy).state == "completed")[1])
    wait_forgotten(start_oban, oban)
    assert work.ran == [busy.id]


def test_a_database_that_was_away_at_the_end(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written then is written once it is back."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)

    def failing(*_: Any, **__: Any) -> Any:
        raise DatabaseUnavailable("put in")

    with monkeypatch.context() as patch:
        patch.setattr(Turns, "take", failing)
        oban.stop_queue("alpha")
        wait_until(lambda: oban._parts.workforce.is_ending("alpha"))
        work.open()
        wait_until(lambda: oban.check_queue("alpha") is None)
    assert read(oban, one).state == "executing"
    beat(oban)

    assert wait_state(oban, one, "completed").attempt == 1
    wait_forgotten(start_oban, oban)


def test_an_end_that_is_refused_at_the_end(start_oban: Starter, work: Work) -> None:
    """It is written once the database takes it, as the queue that had it begins to end again."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    refuse(start_oban, one.id or 0, "completed")
    work.open()
    wait_until(lambda: not view(oban).running)
    wait_until(lambda: view(oban).unwritten == 1)
    stop_alpha(oban)
    relent(start_oban)
    beat(oban)

    assert wait_state(oban, one, "completed").attempt == 1
    wait_forgotten(start_oban, oban)


def test_a_queue_that_was_started_later_outlives_a_crash(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the supervisor of the queues crashes, its successor runs those of no option too."""
    oban = start_oban(**ALPHA)
    oban.start_queue("beta", 2, local_only=True)
    one = oban.insert(jobs("sync", 1, "wait", queue="beta")[0])
    work.wait_inside(1)
    crash(monkeypatch, oban.whereis("queues"))
    wait_until(lambda: oban.check_queue("beta") is not None)
    assert view(oban, "beta").running == (one.id,)
    assert view(oban, "beta").limit == 2
    work.open()

    wait_state(oban, one, "completed")
    wait_state(oban, oban.insert(jobs("sync", 1, queue="beta")[0]), "completed")
    assert work.again == {}


@pytest.mark.parametrize("how", ["ended", "ending"])
def test_a_queue_that_was_stopped_stays_so(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """When the supervisor of the queues crashes, its successor does not begin it anew."""
    oban = start_oban(queues={"alpha": 5, "beta": 1}, stager=None)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    if how == "ending":
        oban.stop_queue("alpha")
        wait_until(lambda: oban._parts.workforce.is_ending("alpha"))
    else:
        work.open()
        stop_alpha(oban)
    crash(monkeypatch, oban.whereis("queues"))
    wait_until(lambda: oban.check_queue("beta") is not None)
    work.open()
    other = oban.insert(jobs("sync", 1)[0])
    wait_until(lambda: oban.check_queue("alpha") is None)
    wait_state(oban, oban.insert(jobs("sync", 1, queue="beta")[0]), "completed")

    assert wait_state(oban, one, "completed").attempt == 1
    assert read(oban, other).state == "available"
    oban.start_queue("alpha", 2, local_only=True)
    wait_state(oban, other, "completed")


def test_a_queue_that_is_started_while_it_ends(start_oban: Starter, work: Work) -> None:
    """It begins anew, as it was told last, when it has ended."""
    oban = start_oban(**{**ALPHA, "shutdown_grace_period": 60.0})
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    oban.stop_queue("alpha")
    wait_until(lambda: oban._parts.workforce.is_ending("alpha"))
    oban.start_queue("alpha", 2, local_only=True)
    oban.start_queue("alpha", 3, local_only=True)
    assert view(oban).shutting_down
    work.open()

    wait_state(oban, one, "completed")
    wait_until(lambda: (found := oban.check_queue("alpha")) is not None and found.limit == 3)
    wait_state(oban, oban.insert(jobs("sync", 1)[0]), "completed")


def test_another_executor(start_oban: Starter, work: Work, executor: ThreadPoolExecutor) -> None:
    """A queue started again with another one gives it all new jobs; what still runs goes on."""
    oban = start_oban(**ALPHA)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    stop_alpha(oban)
    oban.start_queue("alpha", 5, local_only=True, executor=executor)
    assert view(oban).running == (one.id,)
    new = oban.insert(whose.new())
    wait_state(oban, new, "completed")
    assert [name.rpartition("_")[0] for name in names] == ["host"]
    work.open()

    assert wait_state(oban, one, "completed").attempt == 1
    assert work.again == {}
