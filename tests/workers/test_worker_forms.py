"""What a worker may be: functions, classes and objects, plain or async, wrapped or not."""

import asyncio
import functools
from typing import Any

import pytest

from oban_actors import ConfigError, Job, Worker, worker
from oban_actors.worker import find_worker
from tests.workers import jobs
from tests.workers.running import claimed, run

pytestmark = pytest.mark.usefixtures("registry")


@pytest.mark.parametrize(
    ("target", "kind"),
    [(jobs.plain, "sync"), (jobs.plain_async, "async"), (jobs.PlainAsync, "async")],
)
def test_kinds(target: Any, kind: str) -> None:
    """How a worker runs is told by whether its function is async."""
    assert find_worker(target.new().worker).kind == kind


class _Called:
    async def __call__(self, job: Job) -> Any:
        return await jobs.plain_async(job)


async def _curried(_: int, job: Job) -> Any:
    return await jobs.plain_async(job)


def _given_more(_: int, job: Job) -> Any:
    return jobs.act(job)


@functools.wraps(_given_more)
def _giving(job: Job) -> Any:
    return _given_more(1, job)


@functools.wraps(jobs.act)
async def _made_async(job: Job) -> Any:
    return await asyncio.to_thread(jobs.act, job)


@functools.wraps(_curried)
def _passing_on(job: Job) -> Any:
    return _curried(1, job)


@pytest.mark.parametrize(
    "target", [_Called(), functools.partial(_curried, 1), _made_async, _passing_on]
)
def test_what_is_async_in_another_form(target: Any) -> None:
    """Objects, partial functions and wrappers are awaited, if they or what they wrap are async."""
    made = worker(name="w")(target)

    claim = run(claimed(made.new({"do": "value"})))

    assert made.spec.kind == "async"
    assert (claim.verdict, claim.result) == ("success", {"answer": 42})


def test_a_wrapper_may_give_more_than_it_takes() -> None:
    """What counts is that the wrapper takes the job, whatever else it gives to what it wraps."""
    made: Any = worker(name="w")(_giving)

    assert run(claimed(made.new({"do": "value"}))).result == {"answer": 42}


def _generator(job: Job) -> Any:
    yield job


async def _async_generator(job: Job) -> Any:
    yield job


class _Bare:
    """Without perform."""


class _Wants:
    def __init__(self, what: object) -> None: ...

    def perform(self, job: Job) -> None: ...


class _Twice:
    def perform(self, job: Job) -> None: ...

    def timeout(self, job: Job) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (_generator, "got a generator"),
        (_async_generator, "got a generator"),
        (_Bare, r"expected a method perform\(self, job\)"),
        (_Wants, "expected __init__ to take no argument"),
        (_Twice, "option 'timeout' and method timeout"),
        (lambda: None, "expected perform to take the job as its only argument"),
        (42, "expected a function or a class with perform, got: 42"),
        (jobs.plain, "tests.workers.jobs.plain is a worker already"),
        (staticmethod(jobs.act), "expected a function or a class with perform, got: <staticmet"),
    ],
)
def test_what_cannot_run_jobs_is_refused(target: Any, message: str) -> None:
    """A target whose every job would fail is refused when it is defined."""
    with pytest.raises(ConfigError, match=message):
        worker(name="w", timeout=1)(target)


def test_each_job_gets_an_object_of_its_own() -> None:
    """What one job keeps on its worker's object does not reach the next."""
    made: list[Any] = []

    @worker(name="fresh")
    class Fresh(Worker):
        def perform(self, job: Job) -> None:
            made.append(self)

    run(claimed(Fresh.new()))
    run(claimed(Fresh.new()))

    assert len({id(each) for each in made}) == 2
