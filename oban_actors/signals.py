"""Signals that stop a node, and which of them hurry one that stops already."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("oban_actors")


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

    SIGHUP does not: a terminal that closes may send several, a service manager one with SIGTERM,
    and none of them means impatience.
    """
    return number in (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopping(name: str, over: threading.Event, hurry: Callable[[], None]) -> Iterator[None]:
    """Set an event at the first signal that stops, and hurry at further ones.

    The handlers of before are back afterwards.

    Args:
        name: of what is stopped, for the log.
        over: set also where it ends by itself, and hurried then.
        hurry: called in a thread of its own.

    Raises:
        ValueError: it is not used in the main thread.

    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (its shape)
        told = signal.Signals(number).name
        if not over.is_set():
            logger.info("%s stops on %s", name, told)
            over.set()
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
