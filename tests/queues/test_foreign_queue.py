"""A queue on an executor of the host's: what has not begun there is neither run nor lost."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    Executor,
    Future,
    InvalidStateError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from multiprocessing import get_context
from typing import Any

import pytest

from oban_actors import Oban, VirtualClock
from oban_actors.messages import Dispatch
from oban_actors.queues.foreman import Foreman
from tests.queues.work import OBEY, Work, claims, crashes, job, jobs, read, view, wait_state
from tests.support.instances import Starter
from tests.support.waiting import wait_until

SPAWN = get_context("spawn")


@pytest.fixture
def alpha(work: Work) -> Iterator[dict[str, Any]]:
    """A queue whose limit is more than its executor runs at once."""
    with ThreadPoolExecutor(1) as executor:
        yield {"queues": {"alpha": {"limit": 3, "executor": executor}}, "stager": None}
        # Its end waits for what runs.
        work.open()


def begun(oban: Oban, work: Work) -> list[Any]:
    """Insert four jobs: one runs, two wait at the executor, and one in the table."""
    made = oban.insert_all(jobs("sync", 4, "wait"))
    work.wait_inside(1)
    wait_until(lambda: len(view(oban).running) == 3)
    return made


def test_the_limit_is_the_queues(start_oban: Starter, work: Work, alpha: dict[str, Any]) -> None:
    """As many as the limit are handed over, and all run, each once; async ones on the loop."""
    oban = start_oban(**alpha)
    begun(oban, work)
    assert start_oban.tables.count("executing") == 3
    work.open()

    wait_until(lambda: start_oban.tables.count("completed") == 4)
    wait_state(oban, oban.insert(job("async", "return")), "completed")
    assert work.again == {}
    assert crashes(oban) == []


def test_what_has_not_begun_there_can_be_cancelled(
    start_oban: Starter, work: Work, alpha: dict[str, Any]
) -> None:
    """It never runs, and its slot is free at once for the one that waits in the table."""
    oban = start_oban(**alpha)
    first, second, third, fourth = begun(oban, work)
    assert oban.cancel_job(second)

    wait_until(lambda: view(oban).running == (first.id, third.id, fourth.id))
    assert len(wait_state(oban, second, "cancelled").errors) == 1
    work.open()
    wait_until(lambda: start_oban.tables.count("completed") == 3)
    assert second.id not in work.ran


class Remote(Executor):
    """An executor as dask's: its futures never say that they run, and can be cancelled then."""

    def __init__(self, threads: Executor) -> None:
        self.threads = threads

    def submit(self, call: Any, /, *given: Any, **more: Any) -> "Future[Any]":
        """Run it on another one."""
        future: Future[Any] = Future()

        def run() -> None:
            outcome = call(*given, **more)
            with contextlib.suppress(InvalidStateError):
                future.set_result(outcome)

        self.threads.submit(run)
        return future


@pytest.fixture
def remote(work: Work) -> Iterator[dict[str, Any]]:
    """A queue on an executor that does not tell what runs."""
    with ThreadPoolExecutor(4) as threads:
        yield {"queues": {"alpha": {"limit": 1, "executor": Remote(threads)}}, "stager": None}
        work.open()


def test_what_may_run_elsewhere_stays_claimed_at_the_end(
    start_oban: Starter, work: Work, remote: dict[str, Any]
) -> None:
    """It is not taken for one that has not begun, and no other node runs it beside."""
    oban = start_oban(shutdown_grace_period=0.1, **remote)
    one = oban.insert(job("sync", "wait"))
    work.wait_inside(1)
    oban.stop()

    after = read(oban, one)
    assert (after.state, after.attempt) == ("executing", 1)
    assert work.inside == 1


def test_what_may_run_elsewhere_is_stuck_when_its_time_is_over(
    start_oban: Starter, work: Work, remote: dict[str, Any]
) -> None:
    """It has not ended, so it is not tried again beside itself; its end is what it came to."""
    oban = start_oban(**remote)
    one = oban.insert(OBEY["sync"].new({"do": "wait", "timeout": 2.0}))
    wait_until(lambda: view(oban).stuck == (one.id,))
    wait_state(oban, oban.insert(job("sync", "return")), "completed")
    assert read(oban, one).state == "executing"
    work.open()

    (error,) = wait_state(oban, one, "retryable").errors
    assert "timed out after 2 s" in error["error"]


@pytest.mark.parametrize("kind", ["told", "untold"])
def test_what_runs_in_threads_hears_that_it_is_cancelled(
    start_oban: Starter, work: Work, kind: str
) -> None:
    """Whatever the executor is called: it is in this process, and so is the job's flag."""
    with ThreadPoolExecutor(2) as threads:
        executor = threads if kind == "told" else Remote(threads)
        oban = start_oban(queues={"alpha": {"limit": 1, "executor": executor}}, stager=None)
        one = oban.insert(job("sync", "heed"))
        work.wait_inside(1)
        assert oban.cancel_job(one)

        wait_until(lambda: work.told == {one.id: "cancelled"})
        assert len(wait_until(lambda: read(oban, one).errors)) == 1
        assert read(oban, one).state == "cancelled"
        assert view(oban).running == ()
        assert crashes(oban) == []
        oban.stop()


@pytest.mark.usefixtures("_patient_end")
def test_what_runs_in_threads_hears_that_its_node_stops(start_oban: Starter, work: Work) -> None:
    """It is told when the grace period is over, and what it comes to then is written."""
    with ThreadPoolExecutor(1) as executor:
        how = {"limit": 1, "executor": executor}
        oban = start_oban(queues={"alpha": how}, stager=None, shutdown_grace_period=0.1)
        one = oban.insert(job("sync", "heed"))
        work.wait_inside(1)
        oban.stop()

    assert work.told == {one.id: "shutdown"}
    assert read(oban, one).state == "completed"


def test_what_is_cancelled_before_it_begins_in_a_thread_never_does(
    start_oban: Starter, work: Work
) -> None:
    """Also where its future does not tell that it has not begun."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        how = {"limit": 2, "executor": Remote(threads)}
        oban = start_oban(queues={"alpha": how}, stager=None)
        threads.submit(gate.wait, 60)
        one = oban.insert(job("sync", "return"))
        wait_until(lambda: view(oban).running == (one.id,))
        assert oban.cancel_job(one)
        wait_until(lambda: claims(oban)[one.id or 0].running.cancelled)
        gate.set()

        assert len(wait_until(lambda: read(oban, one).errors)) == 1
        assert (read(oban, one).state, work.ran) == ("cancelled", [])
        assert crashes(oban) == []
        oban.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_loop_until_it_is_cancelled_ends_with_its_time(
    start_oban: Starter, work: Work, kind: str
) -> None:
    """No message is needed for that: its deadline goes along, wherever it runs."""
    processes = kind == "processes"
    with ProcessPoolExecutor(1, SPAWN) if processes else ThreadPoolExecutor(1) as executor:
        # The start of the process is not part of its time.
        assert executor.submit(abs, -1).result(60) == 1
        oban = start_oban(queues={"alpha": {"limit": 1, "executor": executor}}, stager=None)
        one = oban.insert(OBEY["sync"].new({"do": "heed", "timeout": 1.5}))

        (error,) = wait_state(oban, one, "retryable").errors
        assert "timed out after 1.5 s" in error["error"]
        wait_until(lambda: not view(oban).running)
        oban.stop()


def test_a_stuck_run_in_a_thread_shows_where_it_hangs(
    start_oban: Starter, work: Work, alpha: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread is the executor's, and in this process all the same."""
    oban = start_oban(**alpha)
    one = oban.insert(OBEY["sync"].new({"do": "wait", "timeout": 2.0}))
    said = f"job {one.id} (tests.obey) is out of time and goes on; its thread hangs in\n"
    wait_until(lambda: said in caplog.text)

    assert "in _obey\n    work.gate.result" in caplog.text


def test_an_executor_that_was_shut_down_spends_no_attempts(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Its queue gives back what it fetched and fetches no more, until it has another one."""
    caplog.set_level("INFO")
    gone = ThreadPoolExecutor(1)
    gone.shutdown()
    oban = start_oban(queues={"alpha": {"limit": 3, "executor": gone}}, stager=None)
    made = oban.insert_all(jobs("sync", 9, max_attempts=1))
    wait_until(lambda: "queue alpha gave back what was refused: 3 jobs" in caplog.text)
    oban.ask(("producer", "alpha"), Dispatch(), timeout=30)
    wait_until(lambda: not view(oban).running)

    assert start_oban.tables.count("available") == 9
    assert [read(oban, each).attempt for each in made] == [0] * 9
    said = "the executor of queue alpha takes no jobs, they are left to other nodes: "
    assert len([text for text in caplog.messages if text.startswith(said)]) == 1
    assert "that a lost answer had left claimed" not in caplog.text
    oban.stop_queue("alpha", local_only=True)
    wait_until(lambda: oban.check_queue("alpha") is None)
    with ThreadPoolExecutor(1) as executor:
        oban.start_queue("alpha", 3, local_only=True, executor=executor)
        for each in made:
            assert wait_state(oban, each, "completed").attempt == 1
        assert crashes(oban) == []
        oban.stop()


class Moody(ThreadPoolExecutor):
    """An executor that takes nothing while it is down."""

    down = True
    before: Callable[[], object] = staticmethod(lambda: None)

    def submit(self, call: Any, /, *given: Any, **more: Any) -> Any:
        """Refuse, or take it."""
        if self.down:
            self.before()
            raise OSError("no scheduler there")
        return super().submit(call, *given, **more)


def test_an_executor_that_comes_back(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again and again, without a job, and gets jobs once it takes anything."""
    caplog.set_level("INFO")
    with Moody(1) as executor:
        oban = start_oban(queues={"alpha": {"limit": 3, "executor": executor}}, stager=None)
        made = oban.insert_all(jobs("sync", 5, max_attempts=1))
        wait_until(lambda: "takes no jobs" in caplog.text)
        executor.down = False

        for each in made:
            assert wait_state(oban, each, "completed").attempt == 1
        assert "the executor of queue alpha takes jobs again" in caplog.messages
        assert work.again == {}
        oban.stop()


def test_a_time_that_passes_while_nobody_takes_the_job(
    start_oban: Starter,
    work: Work,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its deadline is not this run's any more, which never was."""
    recorded: list[int] = []
    watched, watch = threading.Event(), Foreman._watch
    monkeypatch.setattr(Foreman, "_watch", lambda *given: (watch(*given), watched.set()))
    clock = VirtualClock()
    with Moody(1) as executor:
        executor.before = lambda: watched.wait(30)
        how = {"limit": 3, "executor": executor}
        oban = start_oban(queues={"alpha": how}, stager=None, clock=clock)
        engine = type(oban._parts.engine)
        monkeypatch.setattr(engine, "record_error", lambda *given: recorded.append(given[3]))
        one = oban.insert(OBEY["sync"].new({"timeout": 5.0}, max_attempts=1))
        wait_until(lambda: "takes no jobs" in caplog.text)
        wait_state(oban, one, "available")
        for _ in range(20):
            clock.advance(0.5)
            view(oban)
        executor.down = False
        wait_until(lambda: (clock.advance(0.1), read(oban, one).state == "completed")[1])

        assert (read(oban, one).errors, recorded) == ([], [])
        assert crashes(oban) == []
        oban.stop()


class Careless(ThreadPoolExecutor):
    """An executor that forgets to give what its callers are to wait for."""

    def submit(self, *_given: Any, **_more: Any) -> Any:
        """Give nothing."""


def test_an_executor_that_gives_no_future(start_oban: Starter, work: Work) -> None:
    """The job has failed, with what was wrong; the queue goes on."""
    with Careless(1) as executor:
        oban = start_oban(queues={"alpha": {"limit": 3, "executor": executor}}, stager=None)
        one = oban.insert(job("sync", "return"))
        (error,) = wait_state(oban, one, "retryable").errors
        assert "(TypeError) Careless.submit gave no future, but: None" in error["error"]

        wait_state(oban, oban.insert(job("async", "return")), "completed")
        assert crashes(oban) == []
        assert work.ran == [2]


@pytest.mark.usefixtures("_patient_end")
def test_what_has_not_begun_there_is_given_back_at_the_end(
    start_oban: Starter, work: Work, alpha: dict[str, Any]
) -> None:
    """When the grace period is over: available, its attempt unspent; what ran is written."""
    oban = start_oban(shutdown_grace_period=0.1, **alpha)
    first, *others = begun(oban, work)
    stopper = threading.Thread(target=oban.stop)
    stopper.start()
    wait_until(lambda: len(view_running(oban)) == 1)
    work.open()
    stopper.join(30)

    assert not stopper.is_alive()
    assert read(oban, first).state == "completed"
    for one in others:
        after = read(oban, one)
        assert (after.state, after.attempt) == ("available", 0)
    assert work.ran == [first.id]


def view_running(oban: Oban) -> tuple[int, ...]:
    """Ids of the jobs that run."""
    found = oban.check_queue("alpha")
    return found.running if found else ()
