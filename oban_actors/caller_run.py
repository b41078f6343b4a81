"""CallerRun: one run of a job in the thread of whoever asks for it."""

import asyncio
import contextvars
import threading
from typing import Any

from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.performing import Performer
from oban_actors.signals import WAKE_UP


class CallerRun(Performer):
    """Runs one claim where it is called, as `Performer` does, and keeps what its worker gave.

    No Foreman watches such a run. Its time-out cancels an async worker's task; a sync worker
    can only look at its flag, and fails when it ends. A virtual clock ends no run.

    Args:
        config: the instance's options.

    Attributes:
        value: what the worker returned, None unless it did.
        cause: what it raised, None unless it did.

    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, watch=self._arm)
        self.value: Any = None
        self.cause: BaseException | None = None
        self._timer: threading.Timer | None = None

    def run(self, claim: Claim) -> None:
        """Run it to its end in this thread, which blocks; fills the claim."""
        claim.thread = threading.get_ident()
        if claim.worker is None or claim.worker.kind == "sync":
            self.perform(claim)
            self._disarm()
        elif _loop_runs():
            self._run_apart(claim)
        else:
            self._run_in_loop(claim)

    async def arun(self, claim: Claim) -> None:
        """Run it to its end on the running event loop, a sync worker's too; fills the claim."""
        if claim.worker is None or claim.worker.kind == "sync":
            self.run(claim)
            return
        claim.thread = threading.get_ident()
        await asyncio.get_running_loop().create_task(self._task(claim))
        caller = asyncio.current_task()
        if caller is not None and caller.cancelling():
            # It was meant for the caller too, whatever the worker made of it.
            raise asyncio.CancelledError

    def returned(self, claim: Claim, result: Any) -> None:
        """See `Performer`."""
        self.value = result
        super().returned(claim, result)

    def raised(self, claim: Claim, error: BaseException) -> None:
        """See `Performer`."""
        self.cause = error
        super().raised(claim, error)

    # Helpers

    async def _task(self, claim: Claim) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel(_reason: object) -> None:
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

        claim.running.on_cancel = cancel
        if claim.running.cancelled:
            cancel(claim.running.reason)
        try:
            await self.aperform(claim)
        finally:
            self._disarm()
            claim.running.on_cancel = None

    def _run_in_loop(self, claim: Claim) -> None:
        try:
            asyncio.run(self.arun(claim))
        except KeyboardInterrupt as error:
            # The loop has cancelled the job for it. What that came to counts, unless it is no more.
            if isinstance(self.cause, asyncio.CancelledError):
                self.raised(claim, error)
            self.cause = error

    def _run_apart(self, claim: Claim) -> None:
        # The caller's own loop stands still meanwhile, and runs no second one.
        context = contextvars.copy_context()
        go, over, wanted = threading.Event(), threading.Event(), True

        def apart() -> None:
            go.wait()
            try:
                if wanted:
                    context.run(asyncio.run, self.arun(claim))
            finally:
                over.set()

        try:
            threading.Thread(target=apart, name="oban-caller-run").start()
        except BaseException:
            wanted = False
            go.set()
            raise
        interrupt = _wait_for(go, over, claim)
        if interrupt is not None:
            if claim.ack is None:
                self.raised(claim, interrupt)
            self.cause = interrupt

    def _arm(self, claim: Claim) -> None:
        left = claim.running.time_left
        if left is None or self.config.clock.virtual:
            return
        self._timer = threading.Timer(left, claim.running.cancel, ("timeout",))
        self._timer.daemon = True
        self._timer.start()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _wait_for(go: threading.Event, over: threading.Event, claim: Claim) -> KeyboardInterrupt | None:
    """Let a run begin and wait for its end, which an interrupt only hastens; gives the last."""
    interrupt: KeyboardInterrupt | None = None
    while not over.is_set():
        try:
            go.set()
            over.wait(WAKE_UP)
        except KeyboardInterrupt as error:
            # Left to itself it would run on while its job is given back.
            interrupt = error
            claim.running.cancel("shutdown")
    return interrupt
