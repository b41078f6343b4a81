"""What type checkers see of workers. mypy checks this file; each line would be an error else."""

from collections.abc import Awaitable, Coroutine
from typing import Any, assert_type

from oban_actors import Job, Worker, worker
from oban_actors.worker import FunctionWorker


@worker(name="typing.sync", queue="a", timeout=3, unique={"period": 60})
def sync(job: Job) -> int:
    """A sync one."""
    return job.attempt


@worker(name="typing.async", backoff=lambda job: job.attempt * 2.0)
async def asynchronous(job: Job) -> str:
    """An async one."""
    return job.worker


@worker(name="typing.class")
class Klass(Worker):
    """A class."""

    def __init__(self) -> None:
        self.count = 0

    def perform(self, job: Job) -> None:
        """Count."""
        self.count += job.attempt


@worker
def bare(job: Job) -> None:
    """Without options."""


def test_types_are_seen_through_the_decorator() -> None:
    """Arguments, results, `new` and a class's own members keep their types."""
    job = sync.new({"a": 1}, schedule_in=60, queue="b")

    assert_type(job, Job)
    called: FunctionWorker[[Job], int] = sync
    assert called is sync
    nothing: FunctionWorker[[Job], None] = bare
    assert nothing is bare
    assert_type(sync(job), int)
    assert_type(Klass.new(), Job)
    assert_type(Klass().count, int)
    assert Klass().count == 0
    made: Coroutine[Any, Any, str] = asynchronous(job)
    awaited: Awaitable[str] = made
    assert awaited is made
    made.close()


def test_mistakes_are_seen() -> None:
    """An unneeded `type: ignore` is an error itself, so these are errors for the type checker."""
    assert callable(sync)
    if sync.spec.name != "typing.sync":
        sync(1)  # type: ignore[arg-type]  # what is tested
        sync.new(quue="a")  # type: ignore[call-arg]  # what is tested
        sync.new({"a": 1}, queue=3)  # type: ignore[arg-type]  # what is tested
        worker(max_attempts="5")  # type: ignore[call-overload]  # what is tested
        Klass.new(nothing=1)  # type: ignore[call-arg]  # what is tested
