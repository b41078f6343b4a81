"""The instance's event loop, and the tasks on it that run async claims."""

import asyncio
import contextlib
import contextvars
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from oban_actors.claim import Claim
from oban_actors.queues.loop import BURST, AsyncCrew, EventLoop
from tests.queues.claims import claim, ended
from tests.support.waiting import wait_until

NAME = contextvars.ContextVar("NAME", default="nobody")
LIST: contextvars.ContextVar[object] = contextvars.ContextVar("LIST")


@contextmanager
def crew_that(
    perform: Callable[[Claim], Awaitable[None]],
) -> Iterator[tuple[AsyncCrew, list[Claim]]]:
    """Give a crew on a loop of its own, and the claims that it has finished."""
    loop, finished = EventLoop("test"), list[Claim]()
    try:
        yield AsyncCrew(loop, perform, finished.append), finished
    finally:
        loop.close()


def test_jobs_that_do_not_wait_share_a_task() -> None:
    """Making one for each would cost more than they do; no task runs more than a burst."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def perform(one: Claim) -> None:
        tasks.append(asyncio.current_task())
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(n) for n in range(3 * BURST)])
        wait_until(lambda: len(finished) == 3 * BURST)

    assert [each.id for each in finished] == list(range(3 * BURST))
    assert len(set(tasks)) == 3
    assert None not in tasks


def test_a_job_that_waits_has_its_task_to_itself() -> None:
    """Those behind it begin meanwhile, and none is ever run in its task."""
    tasks: dict[int, asyncio.Task[Any] | None] = {}
    gate: asyncio.Event | None = None

    async def perform(one: Claim) -> None:
        nonlocal gate
        gate = gate or asyncio.Event()
        tasks[one.id] = asyncio.current_task()
        if one.id == 0:
            await gate.wait()
        elif one.id == 9:
            gate.set()
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(n) for n in range(10)])
        wait_until(lambda: len(finished) == 10)

    assert [each.id for each in finished] == [*range(1, 10), 0]
    assert tasks[0] not in [tasks[n] for n in range(1, 10)]


def test_the_loop_does_other_work_between_bursts() -> None:
    """Jobs that never wait don't keep it from those who do."""
    order: list[int] = []

    async def perform(one: Claim) -> None:
        if one.id == 0:
            await asyncio.sleep(0)
        order.append(one.id)
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(n) for n in range(3 * BURST)])
        wait_until(lambda: len(finished) == 3 * BURST)

    assert order.index(0) <= 2 * BURST


@pytest.mark.parametrize("value", ["mine", object()])
def test_what_a_job_sets_in_its_context_the_next_does_not_see(value: object) -> None:
    """Each begins with the context that its queue gave it."""
    seen: list[object] = []

    async def perform(one: Claim) -> None:
        seen.append((NAME.get(), LIST.get(None)))
        NAME.set(f"job {one.id}")
        LIST.set(value)
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(n) for n in range(5)])
        wait_until(lambda: len(finished) == 5)

    assert seen == [("nobody", None)] * 5


def test_a_context_that_can_not_be_compared() -> None:
    """Values are compared, and theirs may say anything."""

    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]  # as arrays are

    seen: list[object] = []
    token = LIST.set(Array())

    async def perform(one: Claim) -> None:
        seen.append(type(LIST.get(None)))
        LIST.set(Array())
        ended(one)

    try:
        with crew_that(perform) as (crew, finished):
            crew.add([claim(n) for n in range(3)])
            wait_until(lambda: len(finished) == 3)
    finally:
        LIST.reset(token)

    assert len(set(seen)) == 1


def test_a_job_that_cancels_its_own_task_cancels_no_other() -> None:
    """The next one is run in a task of its own."""
    ran: list[int] = []

    async def perform(one: Claim) -> None:
        if one.id == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        else:
            await asyncio.sleep(0)
        ran.append(one.id)
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(n) for n in range(3)])
        wait_until(lambda: len(finished) == 3)

    assert ran == [0, 1, 2]


def test_a_claim_that_was_cancelled_before_it_began_cancels_no_other() -> None:
    """It is cancelled where it first waits, those behind it are not."""
    cancelled: list[int] = []

    async def perform(one: Claim) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancelled.append(one.id)
        ended(one)

    with crew_that(perform) as (crew, finished):
        claims = [claim(n) for n in range(4)]
        claims[1].running.cancel("cancelled")
        crew.add(claims)
        wait_until(lambda: len(finished) == 4)

    assert cancelled == [1]


def test_what_waits_in_the_line_of_a_loop_that_is_closed_comes_back() -> None:
    """A job blocks it; those behind it are finished without having run."""
    begun, gate = threading.Event(), threading.Event()
    ran: list[int] = []

    async def perform(one: Claim) -> None:
        ran.append(one.id)
        begun.set()
        if one.id == 0:
            await asyncio.sleep(0)
        gate.wait(60)  # as none should: it blocks the loop
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(0)])
        assert begun.wait(30)
        closing = threading.Thread(target=crew._loop.close)
        closing.start()
        wait_until(lambda: crew._loop.uses(None))
        # As if they had come just before.
        crew._line.extend([claim(1), claim(2)])
        gate.set()
        closing.join(30)
        wait_until(lambda: len(finished) == 3)

    assert ran == [0]
    assert [each.ack for each in finished if each.id] == [None, None]


def test_what_an_old_loop_was_asked_to_begin_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job blocked the old one past its end, and another runs already on the next."""
    monkeypatch.setattr("oban_actors.queues.loop.END_TIME", 0.01)
    begun, gate = [threading.Event(), threading.Event()], threading.Event()
    ran: list[int] = []

    async def perform(one: Claim) -> None:
        ran.append(one.id)
        if one.id < len(begun):
            begun[one.id].set()
        if one.id == 0:
            gate.wait(60)  # as none should: it blocks the loop
        elif one.id == 1:
            await asyncio.Event().wait()
        ended(one)

    with crew_that(perform) as (crew, finished):
        crew.add([claim(0)])
        assert begun[0].wait(30)
        crew._loop.close()
        crew.add([claim(1)])
        assert begun[1].wait(30)
        # As if the old loop had been asked to begin them.
        crew._line.extend([claim(2), claim(3)])
        gate.set()
        wait_until(lambda: len(finished) == 3)

    assert ran == [0, 1, 2, 3]


def test_async_jobs_run_together() -> None:
    """A thousand tasks that wait for each other are all there at the same time."""
    loop, finished = EventLoop("test"), list[Claim]()
    begun = 0
    all_begun: asyncio.Event | None = None

    async def perform(one: Claim) -> None:
        nonlocal begun, all_begun
        all_begun = all_begun or asyncio.Event()
        begun += 1
        if begun == 1_000:
            all_begun.set()
        await all_begun.wait()
        ended(one)

    crew = AsyncCrew(loop, perform, finished.append)
    crew.add([claim(n) for n in range(1_000)])
    try:
        wait_until(lambda: len(finished) == 1_000)
    finally:
        loop.close()


def test_an_interrupted_task_is_cancelled() -> None:
    """The worker sees `asyncio.CancelledError`, and its claim comes back."""
    loop, finished = EventLoop("test"), list[Claim]()
    begun, cancelled = threading.Event(), threading.Event()

    async def perform(one: Claim) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            ended(one)

    crew = AsyncCrew(loop, perform, finished.append)
    one = claim()
    crew.add([one])
    try:
        assert begun.wait(30)
        crew.interrupt(one)
        assert cancelled.wait(30)
        wait_until(lambda: finished == [one])
    finally:
        loop.close()


def test_closing_the_loop_ends_what_runs() -> None:
    """Tasks are cancelled, their claims come back, and the thread is gone."""
    loop, finished = EventLoop("test"), list[Claim]()
    begun = threading.Event()

    async def perform(_: Claim) -> None:
        begun.set()
        await asyncio.Event().wait()

    crew = AsyncCrew(loop, perform, finished.append)
    crew.add([claim()])
    assert begun.wait(30)

    loop.close()

    wait_until(lambda: len(finished) == 1)
    assert [t for t in threading.enumerate() if t.name == "oban-test-loop"] == []


def test_tasks_that_do_not_end_are_let_go(caplog: pytest.LogCaptureFixture) -> None:
    """They are logged once, their claims come back, and nothing of them is kept."""
    loop, finished = EventLoop("test"), list[Claim]()
    begun = threading.Event()
    tasks: list[weakref.ref[asyncio.Task[Any]]] = []

    async def perform(_: Claim) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(weakref.ref(task))
        del task
        begun.set()
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    crew = AsyncCrew(loop, perform, finished.append)
    crew.add([claim()])
    assert begun.wait(30)

    with caplog.at_level("WARNING"):
        loop.close()
        wait_until(lambda: len(finished) == 1)
        wait_until(lambda: (gc.collect(), tasks[0]() is None)[1])

    told = [(record.name, record.getMessage()) for record in caplog.records]
    assert told == [("oban_actors", "tasks go no further, as they did not end when cancelled: 1")]


def test_a_loop_that_ends_late_gives_up_no_tasks_of_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job blocked it when the tree stopped, which was started again and runs another one."""
    monkeypatch.setattr("oban_actors.queues.loop.END_TIME", 0.01)
    loop, finished = EventLoop("test"), list[Claim]()
    begun, gate, go_on = [threading.Event(), threading.Event()], threading.Event(), asyncio.Event()
    late, next_one = claim(1), claim(2)

    async def perform(one: Claim) -> None:
        begun[one.id - 1].set()
        if one is late:
            gate.wait(60)  # as none should: it blocks the loop, which can't be stopped
            await asyncio.Event().wait()
        await go_on.wait()
        ended(one)

    crew = AsyncCrew(loop, perform, finished.append)
    crew.add([late])
    assert begun[0].wait(30)
    (old,) = [each for each in threading.enumerate() if each.name == "oban-test-loop"]
    loop.close()
    crew.add([next_one])
    try:
        assert begun[1].wait(30)
        gate.set()
        old.join(30)
        assert not old.is_alive()
        assert finished == [late]
        loop.call(go_on.set)
        wait_until(lambda: finished == [late, next_one])
        assert next_one.ack is not None
    finally:
        loop.close()


def test_an_end_that_comes_before_the_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that is slow to start its thread: what it was asked for is done, and it ends."""
    gate, run = threading.Event(), threading.Thread.run

    def late(thread: threading.Thread) -> None:
        if thread.name == "oban-late-loop":
            assert gate.wait(30)
        run(thread)

    monkeypatch.setattr(threading.Thread, "run", late)
    loop, ran = EventLoop("late"), threading.Event()
    loop.call(ran.set)
    closer = threading.Thread(target=loop.close)
    closer.start()
    wait_until(lambda: loop.uses(None))
    gate.set()
    closer.join(30)

    assert not closer.is_alive()
    assert ran.is_set()
