"""Check that a block of code leaves no thread behind."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.waiting import wait_until


@contextmanager
def no_leaked_threads(timeout: float = 15.0) -> Iterator[None]:
    """Every thread that the block starts, daemon or not, must have ended soon after it.

    Args:
        timeout: Seconds they get to end.

    Raises:
        AssertionError: Some are left; the message names them.
    """
    before = set(threading.enumerate())
    yield
    left: list[threading.Thread] = []

    def gone() -> bool:
        left[:] = [thread for thread in threading.enumerate() if thread not in before]
        return not left

    try:
        wait_until(gone, timeout)
    except AssertionError:
        raise AssertionError(f"threads left behind: {left}") from None
