"""Jobs on executors of the host's: the same ends, and an executor's troubles fail its jobs."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import loky
import pytest

from oban_actors import Job
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.claim import Claim
from oban_actors.engines import Unreadable, UnreadableRow
from oban_actors.queues.remote import submit
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
def test_a_broken_executor_fails_its_jobs(make: Making) -> None:
    """A job whose process dies fails, and those that a broken executor refuses do too."""
    with make() as executor:
        claim = _run(executor, do(jobs.plain, "_exit"))
        after = _run(executor, do(jobs.plain))

    assert (claim.verdict, after.verdict) == ("failure", "failure")
    for each in (claim, after):
        assert "terminated" in text(each)


def test_an_executor_that_is_shut_down_fails_its_jobs() -> None:
    """What can't be handed over is over at once, with the reason."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()

    claim = _run(executor, do(jobs.plain))

    assert "cannot schedule new futures after shutdown" in text(claim)


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


def _run(executor: Executor, claim: Claim) -> Claim:
    over = threading.Event()
    submit(executor, claim, performer(), lambda _: over.set())
    assert over.wait(60)
    return claim
