"""A job that wants its node to end: it may not wait for that, but it can tell the tree to."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from uuid import uuid4

import pytest

from oban_actors import Deadlock, Job, Oban, worker
from oban_actors.actors import Exit, Supervisor
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
QUEUES = {"alpha": 2}


class _Ender:
    """What a worker does, and what came of it."""

    def __init__(self, kind: str) -> None:
        self.does: Callable[[], object] = lambda: None
        self.error: BaseException | None = None
        self.over = threading.Event()
        name = f"tests.ender.{uuid4().hex}"

        def plain(_job: Job) -> None:
            self.run()

        async def task(_job: Job) -> None:
            self.run()

        target: Callable[[Job], object] = task if kind == "async" else plain
        self.new = worker(name=name, queue="alpha")(target).new

    def run(self) -> None:
        try:
            self.does()
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            self.error = error
        finally:
            self.over.set()


@pytest.fixture
def ender(kind: str) -> _Ender:
    """A worker of its own for each test."""
    return _Ender(kind)


def _state(oban: Oban, job: Job) -> str:
    found = oban.get_job(job.id or 0)
    assert found is not None
    return str(found.state)


def _is_completed(oban: Oban, job: Job) -> bool:
    return _state(oban, job) == "completed"


@KINDS
def test_a_job_may_not_wait_for_the_end_of_its_tree(start_oban: Starter, ender: _Ender) -> None:
    """`stop` and `wait` would wait for the job that calls them: refused at once, in its thread."""
    oban = start_oban(queues=QUEUES, stager=None)
    for call in (oban.stop, lambda: oban.stop(timeout=60), oban.wait):
        ender.does, ender.error = call, None
        ender.over.clear()
        job = oban.insert(ender.new())
        assert ender.over.wait(60)

        assert isinstance(ender.error, Deadlock)
        assert ender.error.path == ["oban", f"job {job.id}", "oban"]
        wait_until(partial(_is_completed, oban, job))
    assert oban.alive
    assert oban.wait(0) is None


@KINDS
def test_nor_one_on_an_executor_of_this_program(start_oban: Starter, ender: _Ender) -> None:
    """A thread of the host's runs the job, and the tree waits for it all the same."""
    with ThreadPoolExecutor(1) as threads:
        oban = start_oban(queues={"alpha": {"limit": 1, "executor": threads}}, stager=None)
        ender.does = oban.stop
        job = oban.insert(ender.new())
        assert ender.over.wait(60)
        wait_until(partial(_is_completed, oban, job))
        oban.stop()
    assert isinstance(ender.error, Deadlock)


@KINDS
def test_nor_for_that_of_a_hosts_tree(start_oban: Starter, ender: _Ender) -> None:
    """The host's supervisor ends only after the instance below it."""
    oban = start_oban.make(queues=QUEUES, stager=None)
    with Supervisor.start([oban.child_spec()], name="host") as root:
        ender.does = root.stop
        job = oban.insert(ender.new())
        assert ender.over.wait(60)
        assert isinstance(ender.error, Deadlock)
        assert ender.error.path == ["host", "oban", f"job {job.id}", "host"]


@pytest.mark.parametrize("kind", ["sync"])
def test_a_job_may_stop_another_instance(start_oban: Starter, ender: _Ender) -> None:
    """That one does not wait for it."""
    oban, other = start_oban(queues=QUEUES, stager=None), start_oban(name="other")
    ender.does = other.stop
    oban.insert(ender.new())

    assert ender.over.wait(60)
    assert ender.error is None
    assert not other.alive


@pytest.mark.parametrize("kind", ["sync"])
def test_a_drained_job_may_stop_the_tree(start_oban: Starter, ender: _Ender) -> None:
    """The tree beside a drain waits for its own jobs only."""
    oban = start_oban(stager=None)
    ender.does = oban.stop
    oban.insert(ender.new())

    assert oban.drain_queue("alpha").success == 1
    assert ender.error is None
    assert not oban.alive


@KINDS
def test_a_job_tells_its_node_to_end(start_oban: Starter, ender: _Ender) -> None:
    """The tree ends in order after it: the job is completed, and `run` returns."""
    oban = start_oban.make(queues=QUEUES)
    ender.does = lambda: oban.tell("oban", Exit())
    job = oban.insert(ender.new())

    reason = oban.run()

    assert reason.kind == "shutdown"
    assert ender.error is None
    assert _state(oban, job) == "completed"


async def _in_a_child(call: Callable[[], object]) -> None:
    await asyncio.gather(asyncio.to_thread(call))


async def _by_the_loop(call: Callable[[], object]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, call)


@pytest.mark.parametrize("having", [asyncio.to_thread, _in_a_child, _by_the_loop])
def test_nor_may_an_async_job_have_a_thread_wait(
    start_oban: Starter, having: Callable[[Callable[[], object]], Awaitable[None]]
) -> None:
    """It would wait for the thread, which waits for the job, until that is told to end."""
    caught: list[Deadlock] = []

    async def end(_job: Job) -> None:
        try:
            await having(oban.stop)
        except Deadlock as error:
            caught.append(error)

    target = worker(name=f"tests.ender.{uuid4().hex}", queue="alpha")(end)
    oban = start_oban(queues=QUEUES, stager=None)
    for _ in range(2):
        job = oban.insert(target.new())
        wait_until(partial(_is_completed, oban, job))
        assert caught.pop().path == ["oban", f"job {job.id}", "oban"]
    assert oban.alive


def test_a_refusal_that_no_job_awaits_is_told(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """It says which job, and what to do instead."""
    asked: list[asyncio.Future[object]] = []

    async def end(_job: Job) -> None:
        asked.append(asyncio.get_running_loop().run_in_executor(None, oban.stop))
        await asyncio.wait(asked)

    target = worker(name=f"tests.ender.{uuid4().hex}", queue="alpha")(end)
    oban = start_oban(queues=QUEUES, stager=None)
    job = oban.insert(target.new())
    wait_until(partial(_is_completed, oban, job))

    assert isinstance(asked[0].exception(), Deadlock)
    (told,) = [r.getMessage() for r in caplog.records if "may not wait" in r.getMessage()]
    assert f"oban -> job {job.id} -> oban" in told
    assert 'oban.tell("oban", Exit())' in told


def test_a_thread_of_an_async_job_may_stop_another_instance(start_oban: Starter) -> None:
    """That one waits for its own jobs, and not for this one."""
    others: list[Oban] = []
    begun, stop = threading.Event(), threading.Event()

    async def linger(_job: Job) -> None:
        begun.set()
        await asyncio.to_thread(stop.wait, 60)

    async def end(_job: Job) -> None:
        stop.set()
        await asyncio.to_thread(others[0].stop)

    names = [uuid4().hex, uuid4().hex]
    first, second = (
        worker(name=f"tests.ender.{name}", queue="alpha")(each)
        for name, each in zip(names, (linger, end), strict=True)
    )
    others.append(start_oban(name="other", queues={"alpha": 1}, stager=None))
    others[0].insert(first.new())
    assert begun.wait(60)
    oban = start_oban(queues={"beta": 1}, stager=None)
    job = oban.insert(second.new(queue="beta"))

    wait_until(partial(_is_completed, oban, job))
    assert not others[0].alive


def test_a_job_may_have_another_loop_stop_its_tree(start_oban: Starter) -> None:
    """It waits for nothing, so that the host's loop may wait for it."""
    ended: list[Future[object]] = []

    async def end(_job: Job) -> None:
        ended.append(asyncio.run_coroutine_threadsafe(stop(), host))
        asked.set()

    async def stop() -> None:
        await asyncio.to_thread(oban.stop)

    async def run() -> None:
        await asyncio.to_thread(asked.wait, 60)
        await asyncio.wrap_future(ended[0])

    target = worker(name=f"tests.ender.{uuid4().hex}", queue="alpha")(end)
    asked, host = threading.Event(), asyncio.new_event_loop()
    oban = start_oban(queues=QUEUES, stager=None)
    job = oban.insert(target.new())
    host.run_until_complete(run())
    host.run_until_complete(host.shutdown_default_executor())
    host.close()

    assert not oban.alive
    assert _state(oban, job) == "completed"
