"""Closing what another thread may be using."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Guard:
    """Lets one thread use something until it, or another thread, ends that.

    What is closed while somebody is in it pulls the memory from under them: then it is closed
    by themselves, as they leave.

    Args:
        close: called once.

    """

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close
        self._lock = threading.Lock()
        self._ended = False
        self._closed = False

    @contextmanager
    def used(self) -> Iterator[bool]:
        """Use it for as long as the block lasts, if it gives True: else it is closed."""
        try:
            with self._lock:
                yield not self._closed
        finally:
            if self._ended:
                self.end()

    def end(self) -> None:
        """Have it closed, at once if nobody uses it; never waits, and may be called again."""
        self._ended = True
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._closed:
                self._closed = True
                self._close()
        finally:
            self._lock.release()
