"""Jobs on executors of the host's: the same ends, and an executor's troubles fail its jobs."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import loky
import pytest

from oban_actors import Job
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.claim import Claim
from oban_actors.engines import Unreadable, UnreadableRow
from oban_actors.queues.remote import Refused, accepts, submit, tells_begin
from oban_actors.running import Running
from tests.workers import jobs
from tests.workers.running import claimed, do, performer, text

Making = Callable[[], Any]


def _processes() -> Executor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@pytest.fixture(
    params=[lambda: ThreadPoolExecutor(1), _processes, lambda: loky.ProcessPoolExecutor(1)],
    ids=["threads", "processes", "loky"],
)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An executor that is not ours."""
    with request.param() as one:
        yield one


@pytest.mark.parametrize("kind", jobs.KINDS, ids=lambda kind: kind.__name__)
def test_ends_are_those_of_a_thread(executor: Executor, kind: Any) -> None:
    """Every line of the table holds on any executor, for all kinds of workers."""
    ends = {}
    for what in (None, "value", "cancel", "raise snooze", "error", "exit", "secretive", "picky"):
        claim = _run(executor, do(kind, what))
        ends[what] = (claim.verdict, str(claim.ack.state))

    assert ends == {
        None: ("success", "completed"),
        "value": ("success", "completed"),
        "cancel": ("cancelled", "cancelled"),
        "raise snooze": ("snoozed", "scheduled"),
        "error": ("failure", "retryable"),
        "exit": ("failure", "retryable"),
        "secretive": ("success", "completed"),
        "picky": ("failure", "retryable"),
    }


@pytest.mark.parametrize("make", [_processes, lambda: loky.ProcessPoolExecutor(1)])
def test_a_broken_executor_fails_what_it_had(make: Making) -> None:
    """A job whose process dies fails; what is refused after it has not been tried."""
    with make() as executor:
        claim = _run(executor, do(jobs.plain, "_exit"))
        assert not accepts(executor)
        _refused(executor, "terminated")

    assert claim.verdict == "failure"
    assert "terminated" in text(claim)


def test_an_executor_that_is_shut_down_refuses() -> None:
    """What can't be handed over, as nothing can, has not been tried."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()

    assert not accepts(executor)
    _refused(executor, "cannot schedule new futures after shutdown")


def test_an_executor_that_refuses_one_job_fails_it(tmp_path: Path) -> None:
    """It takes others, so what is wrong is this one; nor does it run later."""

    class Picky(ThreadPoolExecutor):
        def submit(self, call: Any, /, *given: Any, **more: Any) -> Any:
            future = super().submit(call, *given, **more)
            if given:
                raise ValueError("too large")
            return future

    ran = tmp_path / "ran"
    claim = do(jobs.plain, "wait", file=str(ran), until=str(tmp_path))
    gate = threading.Event()
    with Picky(1) as executor:
        ThreadPoolExecutor.submit(executor, gate.wait, 60)
        _run(executor, claim)
        gate.set()

    assert text(claim).startswith("** (ValueError) too large\n")
    assert claim.verdict == "failure"
    assert not ran.exists()


def _broken() -> None:
    raise ValueError("no licence")


def test_what_a_pool_of_threads_gives_up_has_not_begun() -> None:
    """Its threads do not break of a job, but of what they have to do before."""
    with ThreadPoolExecutor(1, initializer=_broken) as executor:
        claim = _run(executor, do(jobs.plain))
        _refused(executor, "not usable anymore")

    assert (claim.ack, claim.verdict) == (None, None)


def test_what_its_host_cancels_at_an_executor_has_not_begun() -> None:
    """Where a future tells that it runs, one that could be cancelled never did."""
    gate = threading.Event()
    executor = ThreadPoolExecutor(1)
    executor.submit(gate.wait, 60)
    claim, over = do(jobs.plain), threading.Event()
    submit(executor, claim, performer(), lambda _: over.set())
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    executor.shutdown()

    assert over.wait(60)
    assert (claim.ack, claim.verdict) == (None, None)


def test_whose_futures_tell_that_they_run(executor: Executor) -> None:
    """Those of the standard library and of loky; of others nobody knows."""
    assert tells_begin(executor)
    assert not tells_begin(Executor())


def test_a_job_that_cannot_be_pickled_fails() -> None:
    """Its executor serves others as before."""
    with _processes() as executor:
        claim = do(jobs.plain)
        claim.job.args["lock"] = threading.Lock()
        _run(executor, claim)
        after = _run(executor, do(jobs.plain, "value"))

    assert "pickle" in text(claim)
    assert after.verdict == "success"


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [("cancelled", "cancelled"), ("timeout", "failure"), ("shutdown", None), (None, "failure")],
)
def test_a_future_that_is_cancelled(reason: Any, verdict: str | None) -> None:
    """A job that never began ends by the reason for it; at shutdown it stays to be rescued."""

    class Idle(Executor):
        def submit(self, *_: Any, **__: Any) -> "Future[Any]":
            return Future()

    ended: list[Claim] = []
    claim = do(jobs.plain)
    future = submit(Idle(), claim, performer(), ended.append)
    if reason is not None:
        claim.running.cancel(reason)

    assert future.cancel()
    assert ended == [claim]
    assert claim.verdict == verdict


@pytest.mark.parametrize("answer", [None, {}, {"kind": "snooze", "seconds": -1}, {"kind": "odd"}])
def test_an_answer_that_is_none_fails(answer: object) -> None:
    """An executor that gives back anything else than an outcome has not run the job."""

    class Odd(Executor):
        def submit(self, *_: Any, **__: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            future.set_result(answer)
            return future

    claim = _run(Odd(), do(jobs.plain))

    assert claim.verdict == "failure"
    assert "** (RuntimeError) no outcome of a run: " in text(claim)


def test_who_was_told_there_that_its_time_is_over_has_failed() -> None:
    """Whatever it returned for that, and however late anybody here sees the time."""

    class Early(Executor):
        def submit(self, *_: Any, **__: Any) -> "Future[Any]":
            future: Future[Any] = Future()
            future.set_result({"kind": "returned", "result": None, "timed_out": True})
            return future

    claim = _run(Early(), do(jobs.timed))

    assert claim.verdict == "failure"
    assert text(claim) == "** (TimeoutError) tests.workers.jobs.timed timed out after 30 s"


def test_rows_that_cannot_be_read_are_not_handed_over() -> None:
    """They fail here, and whoever hands jobs over goes on with the next one."""

    class Spoiled:
        def read(self, row: Unreadable) -> Job:
            raise UnreadableRow(row)

    row = Unreadable(7, SYSTEM_CLOCK.now(), 1, 20, "w", "alpha", "bad args")
    claim = Claim(7, row.attempted_at, jobs.plain.spec, Running(), Spoiled(), row)

    assert text(_run(ThreadPoolExecutor(1), claim)) == "** (InvalidJob) bad args"


def test_unknown_workers_are_not_handed_over() -> None:
    """They fail here, with the text that they have everywhere."""
    claim = _run(ThreadPoolExecutor(1), claimed(Job.new(worker="nobody")))

    assert text(claim) == "** (RuntimeError) unknown worker: nobody"


def _refused(executor: Executor, why: str) -> None:
    claim, over = do(jobs.timed), threading.Event()
    with pytest.raises(Refused, match=why):
        submit(executor, claim, performer(), lambda _: over.set())
    assert not over.is_set()
    assert (claim.ack, claim.running.deadline) == (None, None)


def _run(executor: Executor, claim: Claim) -> Claim:
    over = threading.Event()
    submit(executor, claim, performer(), lambda _: over.set())
    assert over.wait(60)
    return claim
