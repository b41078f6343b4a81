"""Signals that stop a node, and which of them hurry one that stops already."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

logger = logging.getLogger("oban_actors")

WAKE_UP = 0.5
"""Seconds until a signal is heard, at most, that another thread than the main one was given."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """Name the signals that stop a node: SIGTERM, SIGINT and, unless it is ignored, SIGHUP.

    Under `nohup` SIGHUP is ignored, and stays so.
    """
    always = (signal.SIGTERM, signal.SIGINT)
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return always
    return (*always, signal.SIGHUP)


def hurries(number: int) -> bool:
    """Whether it hurries a node that stops already.

    SIGHUP does not, nor the first other one after it: a terminal that closes may send several, a
    service manager one with SIGTERM, and none of them means impatience.
    """
    return number in (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """An event that a signal's handler may set, whatever its thread was in the middle of.

    A handler that sets a `threading.Event` which its own thread waits for may wait for the lock
    that it has itself.
    """

    def __init__(self) -> None:
        self._is_set = False
        # Free once it is set. Neither a queue: with a timeout one of those may wait for ever.
        self._unset = threading.Lock()
        self._unset.acquire()

    def set(self) -> None:
        """Set it, and wake who waits."""
        self._is_set = True
        with suppress(RuntimeError):  # somebody else was quicker
            self._unset.release()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, so long at most; whether it is. For one thread."""
        if not self._is_set:
            self._unset.acquire(timeout=seconds)
        return self._is_set


@contextmanager
def stopping(name: str, over: StopFlag, hurry: Callable[[], None]) -> Iterator[None]:
    """Set a flag at the first signal that stops, and hurry at further ones.

    The handlers of before are back afterwards.

    Args:
        name: of what is stopped, for the log.
        over: set also where it ends by itself, and hurried then.
        hurry: called in a thread of its own.

    Raises:
        ValueError: it is not used in the main thread.

    """
    hung_up = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (its shape)
        nonlocal hung_up
        told = signal.Signals(number).name
        if not over.is_set():
            logger.info("%s stops on %s", name, told)
            hung_up = not hurries(number)
            over.set()
        elif hurries(number) and hung_up:
            hung_up = False
        elif hurries(number):
            logger.info("%s hurries on %s", name, told)
            # In a thread: this one may have been interrupted with a lock in its hands.
            threading.Thread(target=hurry, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
