"""The future behind an ask: never waits for ever, and never in a circle."""

import queue
import sys
import threading
from types import TracebackType
from typing import Any

import pykka
from pykka.messages import _ActorStop

from oban_actors.actors.errors import CallTimeout, NoProcess
from oban_actors.actors.process import Process
from oban_actors.actors.waits import waiting_for

CALL_TIMEOUT = 5.0
"""Seconds an ask waits when it names no time-out, as in OTP."""

STOP_TIMEOUT = 60.0
"""Seconds that `ref.stop()` waits when it names no time-out."""

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Reply(pykka.Future[Any]):
    """pykka's future, with a default time-out, deadlock detection, and our errors.

    `get(timeout=None)` waits `CALL_TIMEOUT` seconds; for ever is `float("inf")`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._once = threading.Lock()
        self._ready = threading.Lock()
        self._ready.acquire()
        self._value: Any = None
        self._error: BaseException | None = None
        self.target: Process | None = None
        self.message: object = None

    def get(self, *, timeout: float | None = None) -> Any:
        """Wait for the answer.

        Args:
            timeout: seconds; None is the default time-out of a call.

        Raises:
            CallTimeout: no answer came in time.
            Deadlock: the answer would have to come from the caller itself.
            NoProcess: the target ended before it handled the message.
            ServerCrashed: the target ended while it handled the message.

        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._ready.acquire(blocking=False):
            self._wait(self._bound() if timeout is None else timeout)
        self._ready.release()
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if self._error is not None:
            try:
                raise self._error
            finally:
                self = None  # type: ignore[assignment]  # noqa: PLW0642 (frees the cycle of error, frame and future)
        return self._value

    def set(self, value: Any | None = None) -> None:
        """Answer.

        Raises:
            queue.Full: it is answered already.

        """
        if not self._once.acquire(blocking=False):
            raise queue.Full
        self._value = value
        self._ready.release()

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Answer with an error; without one, with that being handled.

        Raises:
            queue.Full: it is answered already.

        """
        _, error, _ = exc_info or sys.exc_info()
        if type(error) is pykka.ActorDeadError:
            error = NoProcess(str(error).removesuffix(" not found"))
        if not self.fail(error or RuntimeError("no exception is being handled")):
            raise queue.Full

    def set_get_hook(self, func: Any) -> None:
        """Let a function give the answer.

        Raises:
            queue.Full: it is answered already.

        """
        if not self._once.acquire(blocking=False):
            raise queue.Full
        super().set_get_hook(func)
        self._ready.release()

    def fail(self, error: BaseException) -> bool:
        """Answer with an error unless there is an answer; says whether it did."""
        if not self._once.acquire(blocking=False):
            return False
        self._error = error
        self._ready.release()
        return True

    def over(self) -> bool:
        """Whether it is answered."""
        return self._once.locked()

    def answer(self, value: object) -> bool:
        """Answer unless there is an answer; says whether it did."""
        if not self._once.acquire(blocking=False):
            return False
        self._value = value
        self._ready.release()
        return True

    def _bound(self) -> float:
        # Being asked to stop, an actor first does all that it was sent before.
        return STOP_TIMEOUT if isinstance(self.message, _ActorStop) else CALL_TIMEOUT

    def _wait(self, seconds: float) -> None:
        bound = min(max(seconds, 0.0), threading.TIMEOUT_MAX)
        with waiting_for(self):
            if self._ready.acquire(timeout=bound):
                return
        raise CallTimeout(self.target or "the target", self.message, seconds)
