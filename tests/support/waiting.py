"""Wait for a condition instead of for time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 30.0, message: str = "") -> T:
    """Ask again and again until the answer is true, and return that answer.

    Args:
        condition: What to ask.
        timeout: Seconds until it is given up, generous by default.
        message: What was waited for.

    Raises:
        AssertionError: The time is over; the last answer is named.
    """
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    seconds = 0.001
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout} s: {message or condition}, last: {answer!r}"
            )
        pause.wait(seconds)
        seconds = min(seconds * 1.5, 0.05)
    return answer
