"""Link: what a parent and its worker process say to each other, a word a line.

The worker says that it is up, then again and again that it lives, and when it begins to end. The
parent says when to fetch no more, to end, and to end at once; and its end is seen as the end of the
connection, however it came.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable

logger = logging.getLogger("oban_actors")


class WorkerLink:
    """The worker's side.

    Args:
        descriptor: of the socket that was inherited.
        heard: called with each word, in a thread of its own; with `stop` when the parent is gone.

    """

    def __init__(self, descriptor: int, heard: Callable[[str], None]) -> None:
        # What a job starts must not hold it.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._heard = heard
        threading.Thread(target=self._listen, name="oban-parent", daemon=True).start()

    def ready(self) -> None:
        """Say that the tree runs."""
        with contextlib.suppress(OSError):
            self._socket.sendall(b"ready\n")

    def beat(self) -> None:
        """Say that this process lives."""
        self._say(b"alive\n")

    def ending(self) -> None:
        """Say that the tree begins to end, and nothing more will be said."""
        self._say(b"ending\n")

    def _say(self, word: bytes) -> None:
        # What a parent that is stopped has no room for is not missed.
        with contextlib.suppress(OSError):
            self._socket.send(word, socket.MSG_DONTWAIT)

    def _listen(self) -> None:
        with (
            contextlib.suppress(OSError),
            self._socket,
            self._socket.makefile("r", encoding="ascii") as lines,
        ):
            for line in lines:
                self._hear(line.strip())
        self._hear("stop")

    def _hear(self, word: str) -> None:
        try:
            self._heard(word)
        except Exception:
            # Whatever went wrong, the next word is to be heard.
            logger.exception("the parent's word %r could not be followed", word)
