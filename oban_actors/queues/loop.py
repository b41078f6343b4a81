"""The event loop of an instance, and the crew that runs async jobs on it."""

import asyncio
import contextvars
import logging
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from oban_actors.claim import Claim
from oban_actors.queues import stacks
from oban_actors.queues.aides import RUN, Aides

T = TypeVar("T")

logger = logging.getLogger("oban_actors")

END_TIME = 2.0
"""Seconds that cancelled tasks have to end in before the loop is left to itself."""

BURST = 64
"""Jobs that one task runs while none of them waits, before the loop's other work has its turn."""


class EventLoop:
    """One event loop in a thread of its own, there as soon as somebody needs it.

    Args:
        name: for the thread's name.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # Each queue that begins anew has a new crew. Nobody has tasks and is kept by nobody else.
        self._crews: weakref.WeakSet[AsyncCrew] = weakref.WeakSet()
        self._crews_lock = threading.Lock()

    def serve(self, crew: "AsyncCrew") -> None:
        """Let a crew know whenever the loop has ended, in its thread, for as long as it is used."""
        with self._crews_lock:
            self._crews.add(crew)

    def call(self, function: Callable[[], object]) -> None:
        """Run a function on the loop, soon.

        Raises:
            RuntimeError: there is none yet, and the system gives no thread for it.

        """
        with self._lock:
            loop = self._loop or self._begin()
            loop.call_soon_threadsafe(function)

    def uses(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether this is the loop in use, or with None, whether there is none."""
        return self._loop is loop

    def close(self, *, wait: bool = True) -> None:
        """Cancel what runs and end the loop; what does not end in time is left to itself."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            if loop is None or thread is None:
                return
            loop.call_soon_threadsafe(loop.stop)
        if wait and thread is not threading.current_thread():
            thread.join(END_TIME + 1.0)

    def _begin(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        loop.set_default_executor(Aides())
        thread = threading.Thread(
            target=_run,
            args=(loop, self.uses, self._ended),
            name=f"oban-{self._name}-loop",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            self._loop = None
            loop.close()
            raise
        self._thread = thread
        return loop

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._crews_lock:
            crews = list(self._crews)
        for crew in crews:
            crew.abandon(loop)


def _run(
    loop: asyncio.AbstractEventLoop,
    used: Callable[[asyncio.AbstractEventLoop], bool],
    ended: Callable[[asyncio.AbstractEventLoop], None],
) -> None:
    asyncio.set_event_loop(loop)
    try:
        # What a worker leaves on the loop may stop it, or raise what no loop survives.
        while used(loop):
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                logger.exception("what a worker left on the event loop raised, and ends no other")
        # A task that is cancelled before its first step never learns that it was.
        _complete(loop, asyncio.sleep(0))
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            _, left = _complete(loop, asyncio.wait(left, timeout=END_TIME))
        _complete(loop, loop.shutdown_asyncgens())
        if left:
            logger.warning("tasks go no further, as they did not end when cancelled: %d", len(left))
        for task in left:
            # Said once and here, and not by asyncio whenever one of them is collected.
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 (there is no public word for it)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        ended(loop)


def _complete(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    task = loop.create_task(work)
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        # Back before where a stop was on its way when the loop began, or a worker has left one.
        loop.run_forever()
    return task.result()


class AsyncCrew:
    """Runs claims in tasks of the instance's event loop.

    A job that waits for something has its task to itself. Jobs that do not, one after another,
    share one: making a task costs more than all else that is done for a short job.

    Args:
        loop: the instance's.
        perform: runs one claim, and raises nothing.
        finish: called with each claim that has run.

    """

    refuses = False

    def __init__(
        self,
        loop: EventLoop,
        perform: Callable[[Claim], Awaitable[None]],
        finish: Callable[[Claim], None],
    ) -> None:
        self._loop = loop
        self._perform = perform
        self._finish = finish
        self._line: deque[Claim] = deque()
        self._tasks: dict[Claim, asyncio.Task[None]] = {}
        # The loop itself keeps tasks by weak references only.
        self._begun: set[asyncio.Task[None]] = set()
        self._refused = False
        loop.serve(self)

    def add(self, claims: Iterable[Claim]) -> None:
        """See `Crew`."""
        self._line.extend(claims)
        self.wake()

    def interrupt(self, claim: Claim) -> None:
        """See `Crew`: the task is cancelled, and its worker sees `asyncio.CancelledError`."""

        def interrupt() -> None:
            task = self._tasks.get(claim)
            if task is not None:
                task.cancel()

        if not self._loop.uses(None):
            self._loop.call(interrupt)

    def abort(self, claim: Claim) -> bool:
        """See `Crew`."""
        return False

    def waits_in(self, claim: Claim) -> str | None:
        """See `Crew`."""
        task = self._tasks.get(claim)
        return None if task is None else stacks.of_task(task)

    def wake(self) -> None:
        """See `Crew`."""
        if not self._line:
            return
        self._refused = False
        try:
            self._loop.call(self._begin)
        except RuntimeError:
            # The system gives no more threads: the next wake tries again.
            self._refused = True
            logger.exception("no thread could be started for the event loop")

    def take_back(self) -> list[Claim]:
        """See `Crew`."""
        back: list[Claim] = []
        while self._line:
            try:
                back.append(self._line.pop())
            except IndexError:
                break
        return back

    @property
    def starved(self) -> bool:
        """See `Crew`."""
        return self._refused and bool(self._line)

    def close(self, seconds: float) -> None:
        """The loop is the instance's, and ends with it."""

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        # A loop that is being closed begins nothing: it would not see it end.
        if self._line and self._loop.uses(loop):
            self._begun.add(loop.create_task(self._run()))

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (for type checkers)
        self._begun.discard(task)
        RUN.set(None)
        ident, clean = threading.get_ident(), contextvars.copy_context()
        waited = False

        def go_on() -> None:
            nonlocal waited
            waited = True
            self._begin()

        # Comes to pass as soon as this task waits, be it in a job or for its turn.
        asyncio.get_running_loop().call_soon(go_on)
        for _ in range(BURST):
            try:
                claim = self._line.popleft()
            except IndexError:
                return
            claim.thread = ident
            self._tasks[claim] = task
            if claim.running.cancelled:
                task.cancel()
            RUN.set(claim.running)
            try:
                await self._perform(claim)
            finally:
                self._over(claim)
            # Not where it is given up, which may come in another context.
            RUN.set(None)
            if waited or task.cancelling() or _differ(clean, contextvars.copy_context()):
                return

    def _over(self, claim: Claim) -> None:
        if self._tasks.pop(claim, None) is not None:
            self._finish(claim)

    def abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up tasks that did not end when cancelled, and what still waits in the line.

        Without their loop they run no more.

        Args:
            loop: which has ended, perhaps long after another one took its place.

        """
        for claim, task in list(self._tasks.items()):
            if task.get_loop() is loop:
                self._over(claim)
        if self._loop.uses(None):
            for claim in self.take_back():
                self._finish(claim)
        else:
            # It may have been the old loop that was asked to begin them.
            self.wake()


def _differ(one: contextvars.Context, other: contextvars.Context) -> bool:
    try:
        return one != other
    except Exception:  # noqa: BLE001 (values are compared, and theirs may say anything)
        return True
