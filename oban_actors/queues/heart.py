"""Heart: beats beside a thread that is busy with jobs."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from oban_actors.errors import DatabaseError, TransientError

LOST_AFTER = 45.0
"""Seconds without a beat, at most, after which jobs are told to end: others may run them soon."""

logger = logging.getLogger("oban_actors")


def cut_off(dialect: str, error: DatabaseError) -> bool:
    """Whether others may be able to rescue, while a beat failed with this error.

    Whoever keeps an SQLite file to himself, perhaps a job of ours, keeps them from it as well for
    as long as he does not let go of it, and they begin to watch anew once they have it. Where he
    does again and again, they may still get it in gaps that every beat here misses; that is taken
    for unlikely, and ends in a job that runs twice, as after any longer silence.
    """
    return dialect != "sqlite" or not isinstance(error, TransientError)


class Heart:
    """Beats in a thread of its own, from the entry of a block to its end.

    Args:
        interval: seconds between two beats, the first after so many.
        beat: one beat; a `DatabaseError` of it is logged, and the next one comes all the same.
        cut: told the thread's identity where its beat is to be cut short.

    """

    def __init__(
        self, interval: float, beat: Callable[[], object], cut: Callable[[int], object]
    ) -> None:
        self._interval = interval
        self._beat = beat
        self._cut = cut
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="oban-drain-heart", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._cut(self._thread.ident or 0)
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            try:
                self._beat()
            except DatabaseError as error:
                if not self._over.is_set():
                    logger.warning("a drain's beat failed and will be tried again: %s", error)
