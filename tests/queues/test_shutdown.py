"""The end of a queue, and of all: jobs end, ends are written, what is left over is named."""

import gc
import threading
import weakref
from typing import Any

import pytest

from oban_actors import Beat, Oban
from oban_actors.actors import StartFailed, Supervisor
from oban_actors.actors.process import process_of
from tests.queues.work import Work, claims, crashes, jobs, read, view, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}


def producers(start: Starter) -> int:
    """How many producers the table shows."""
    table = start.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    return int(start.tables.execute(f"SELECT count(*) FROM {table}")[0][0])


def shown(start: Starter) -> object:
    """When the producer that the table shows has beaten last."""
    table = start.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    return start.tables.execute(f"SELECT max(beat_at) FROM {table}")[0][0]


def beat(oban: Oban) -> None:
    """Let a node show its producers."""
    oban.ask("pulse", Beat(), timeout=30)


def stopping(oban: Oban) -> threading.Thread:
    """Stop a tree beside the test, and wait until its queues have been told."""
    thread = threading.Thread(target=oban.stop, name="stopper")
    thread.start()
    return thread


@KINDS
def test_stopping_waits_for_jobs(
    start_oban: Starter, work: Work, told: Recorder, kind: str
) -> None:
    """What runs ends and is written, what waits stays for others, the producer's row is gone."""
    oban = start_oban(**ALPHA)
    beat(oban)
    assert producers(start_oban) == 1
    oban.insert_all(jobs(kind, 8, "wait"))
    work.wait_inside(5)
    stopper = stopping(oban)
    wait_until(lambda: all(c.running.reason is None for c in claims(oban).values()))
    wait_until(lambda: oban._parts.workforce.is_ending("alpha"))
    work.open()
    stopper.join(30)

    assert not stopper.is_alive()
    assert start_oban.tables.count("completed") == 5
    assert start_oban.tables.count("available") == 3
    assert len(work.ran) == 5
    assert work.told == {}
    assert len(told.all("oban.job.stop")) == 5
    shutdown = told.wait_for("oban.queue.shutdown")
    assert shutdown.metadata["queue"] == "alpha"
    assert shutdown.metadata["orphaned"] == []
    assert shutdown.metadata["conf"] is oban.config
    assert isinstance(shutdown.measurements["elapsed"], int)
    assert producers(start_oban) == 0


def test_a_node_beats_until_its_queues_have_drained(start_oban: Starter, work: Work) -> None:
    """However long its jobs take to end, nobody takes it for dead and runs them again."""
    oban = start_oban(pulse={"interval": 0.1}, **ALPHA)
    oban.insert_all(jobs("sync", 1, "wait"))
    work.wait_inside(1)
    stopper = stopping(oban)
    wait_until(lambda: oban._parts.workforce.is_ending("alpha"))
    wait_until(lambda: oban._runtime.registry.whereis("peer") is None)
    seen = {shown(start_oban)}
    wait_until(lambda: (seen.add(shown(start_oban)), len(seen) > 2)[1])
    work.open()
    stopper.join(30)

    assert not stopper.is_alive()
    assert start_oban.tables.count("completed") == 1


def test_a_beat_brings_no_producer_back(start_oban: Starter, work: Work) -> None:
    """A queue that ends while a beat is on its way leaves no row, as of one that died."""
    oban = start_oban.make(**ALPHA)
    rosters = oban._parts.workforce.rosters
    ending = threading.Event()

    def listed() -> Any:
        found = rosters()
        if ending.is_set():
            oban.stop_queue("alpha", local_only=True)
            wait_until(lambda: oban.check_queue("alpha") is None and producers(start_oban) == 0)
        return found

    oban._parts.workforce.rosters = listed  # type: ignore[method-assign]  # between two steps
    oban.start()
    beat(oban)
    assert producers(start_oban) == 1
    ending.set()
    beat(oban)

    assert producers(start_oban) == 0


def test_queues_drain_at_the_same_time(start_oban: Starter, work: Work, told: Recorder) -> None:
    """Three queues whose jobs never end share one grace period: each is told at its end."""
    names = ("alpha", "beta", "gamma")
    oban = start_oban(queues=dict.fromkeys(names, 1), stager=None, shutdown_grace_period=2.0)
    oban.insert_all([one for name in names for one in jobs("sync", 1, "wait", queue=name)])
    work.wait_inside(3)
    oban.stop()

    ends = told.all("oban.queue.shutdown")
    assert {event.metadata["queue"] for event in ends} == set(names)
    began = min(event.measurements["elapsed"] for event in ends)
    assert began >= 2e9
    # One after the other they would take twice as long, or longer.
    assert max(event.measurements["elapsed"] for event in ends) < 5.9e9
    assert sum(len(event.metadata["orphaned"]) for event in ends) == 3


@pytest.mark.usefixtures("_patient_end")
@KINDS
def test_what_does_not_end_is_told_to(
    start_oban: Starter, work: Work, told: Recorder, kind: str
) -> None:
    """After the grace period jobs are told; one that heeds it ends, none is left executing."""
    oban = start_oban(shutdown_grace_period=0.2, **ALPHA)
    one = oban.insert(jobs(kind, 1, "heed")[0])
    work.wait_inside(1)
    oban.stop()

    assert work.told == {one.id: "shutdown"}
    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == []
    after = read(oban, one)
    # A sync one returned; an async one was cut off, so it is another node's, its attempt unspent.
    assert (after.state, after.attempt) == (
        ("completed", 1) if kind == "sync" else ("available", 0)
    )


@pytest.mark.parametrize(("kind", "what"), [("sync", "wait"), ("async", "refuse")])
def test_what_goes_on_is_named_and_stays_claimed(
    start_oban: Starter, work: Work, told: Recorder, kind: str, what: str
) -> None:
    """It stays executing, its producer's row too, for whoever rescues it; both are logged."""
    oban = start_oban(shutdown_grace_period=0.1, **ALPHA)
    beat(oban)
    one, _ = oban.insert_all(jobs(kind, 1, what) + jobs(kind, 1))
    work.wait_inside(1)
    wait_until(lambda: start_oban.tables.count("completed") == 1)
    oban.stop()

    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == [one.id]
    assert read(oban, one).state == "executing"
    assert producers(start_oban) == 1


def test_claims_not_begun_are_given_back(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits for a busy event loop when the queue ends is available again, unspent."""
    caplog.set_level("INFO", "oban_actors")
    oban = start_oban(shutdown_grace_period=0.1, **ALPHA)
    busy = oban.insert(jobs("async", 1, "block")[0])
    work.wait_inside(1)
    others = oban.insert_all(jobs("async", 3))
    wait_until(lambda: len(view(oban).running) == 4)
    oban.stop()

    assert read(oban, busy).state == "executing"
    for one in others:
        after = read(oban, one)
        assert (after.state, after.attempt) == ("available", 0)
    assert work.ran == [busy.id]
    # As it should be, so nobody is warned.
    said = "queue alpha ends and gave back what it had claimed and not begun: 3 jobs"
    assert [r.levelname for r in caplog.records if r.getMessage() == said] == ["INFO"]


@pytest.mark.usefixtures("_patient_end")
def test_what_a_stop_interrupts_is_given_back_and_named_so(
    start_oban: Starter, work: Work, told: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It had begun: the log says no other thing, and no end is told of its start."""
    caplog.set_level("INFO", "oban_actors")
    oban = start_oban(shutdown_grace_period=0.1, **ALPHA)
    one = oban.insert(jobs("async", 1, "forever")[0])
    work.wait_inside(1)
    oban.stop()

    after = read(oban, one)
    assert (after.state, after.attempt, after.errors) == ("available", 0, [])
    assert f"queue alpha gave back jobs that it had to interrupt: [{one.id}]" in caplog.messages
    assert "not begun" not in caplog.text
    assert told.all("oban.job.stop") + told.all("oban.job.exception") == []


@pytest.mark.usefixtures("_patient_end")
def test_what_a_stop_interrupts_is_named_so_beside_others(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn that writes the end of another one meanwhile does not make it one that never began."""
    caplog.set_level("INFO", "oban_actors")
    oban = start_oban(shutdown_grace_period=0.1, **ALPHA)
    one = oban.insert(jobs("async", 1, "forever")[0])
    other = oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(2)
    oban.stop()

    assert read(oban, one).state == "available"
    assert read(oban, other).state == "completed"
    assert f"queue alpha gave back jobs that it had to interrupt: [{one.id}]" in caplog.messages
    assert "not begun" not in caplog.text


def test_a_queue_is_stopped_and_started_again(start_oban: Starter, work: Work) -> None:
    """As often as one likes, with other limits; a stop before the last one's time counts anew."""
    oban = start_oban(shutdown_grace_period=60, **ALPHA)
    for limit in range(1, 6):
        oban.stop_queue("alpha")
        wait_until(lambda: oban.check_queue("alpha") is None)
        oban.start_queue("alpha", limit, local_only=True)
        one = oban.insert(jobs("sync", 1)[0])
        wait_state(oban, one, "completed")
        assert view(oban).limit == limit
    assert work.again == {}
    assert crashes(oban) == []


def test_a_queue_is_started_again_with_a_job_left(start_oban: Starter, work: Work) -> None:
    """What outlived the queue's end is still its own: acknowledged when it ends, and counted."""
    oban = start_oban(shutdown_grace_period=0.1, **ALPHA)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    oban.stop_queue("alpha")
    wait_until(lambda: oban.check_queue("alpha") is None)
    oban.start_queue("alpha", 2, local_only=True)
    assert view(oban).running == (one.id,)
    assert view(oban).shutdown_started_at is None
    oban.insert_all(jobs("sync", 3, "wait"))
    work.wait_inside(2)
    work.open()

    wait_until(lambda: start_oban.tables.count("completed") == 4)
    assert work.most == 2
    assert work.again == {}


@KINDS
def test_a_tree_is_started_again(start_oban: Starter, work: Work, kind: str) -> None:
    """The same Oban object stops and starts: jobs of both times run, each once."""
    oban = start_oban(**ALPHA)
    for _ in range(3):
        oban.insert_all(jobs(kind, 10))
        wait_until(lambda: not start_oban.tables.count("available"))
        oban.stop()
        assert start_oban.tables.count("executing") == 0
        oban.start()
    oban.insert_all(jobs(kind, 10))
    wait_until(lambda: start_oban.tables.count("completed") == 40)

    assert work.again == {}


@pytest.mark.parametrize("running", [False, True])
def test_a_tree_that_is_started_twice_goes_on(
    start_oban: Starter, work: Work, *, running: bool
) -> None:
    """The second start is refused, and the first one's queues beat and run jobs as before."""
    oban = start_oban(**ALPHA)
    oban.scale_queue("alpha", 3)
    wait_until(lambda: view(oban).limit == 3)
    before = oban._parts.workforce.rosters()
    if running:
        oban.insert(jobs("sync", 1, "wait")[0])
        work.wait_inside(1)
    with pytest.raises(StartFailed):
        Supervisor.start([oban.child_spec()])

    assert oban._parts.workforce.rosters() == before
    assert view(oban).limit == 3
    beat(oban)
    assert producers(start_oban) == 1


def test_a_tree_is_started_again_with_a_job_left(start_oban: Starter, work: Work) -> None:
    """A thread that outlived its tree ends under the next one, which writes what it came to."""
    oban = start_oban(shutdown_grace_period=0.1, **ALPHA)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    oban.stop()
    assert read(oban, one).state == "executing"
    oban.start()
    assert view(oban).running == (one.id,)
    work.open()

    assert wait_state(oban, one, "completed").attempt == 1
    assert work.ran == [one.id]


def test_twenty_starts_and_stops_leave_no_thread(start_oban: Starter, work: Work) -> None:
    """Each time jobs of both kinds run; no thread is left, and nothing executing."""
    oban = start_oban.make(**ALPHA)
    before = set(threading.enumerate())
    for _ in range(20):
        oban.start()
        oban.insert_all(jobs("sync", 2) + jobs("async", 2))
        wait_until(lambda: start_oban.tables.count("available") == 0)
        oban.stop()
        wait_until(lambda: set(threading.enumerate()) <= before)
        assert start_oban.tables.count("executing") == 0
    # What nobody had begun when it stopped was given back.
    oban.start()
    wait_until(lambda: start_oban.tables.count("completed") == 80)
    assert work.again == {}


def test_a_stopped_instance_keeps_none_of_its_actors(start_oban: Starter) -> None:
    """What outlives the actors of a queue does not keep them, nor what they had."""
    oban = start_oban(**ALPHA)
    producer = weakref.ref(process_of(oban.whereis(("producer", "alpha"))).actor)
    assert producer() is not None

    oban.stop()

    def gone() -> bool:
        gc.collect()
        return producer() is None

    wait_until(gone, message="the producer is kept")
