"""Who may use how many connections, so that the host can't take those the tree lives by."""

import threading
from enum import Enum

from oban_actors.errors import DatabaseUnavailable

FOR_ACTORS = 2
"""Connections beyond `pool_size` that are there when the host uses all it may."""

FOR_ELECTIONS = 1
FOR_BEATS = 1
"""Connections beyond those that are there when actors use theirs too: a node that can't renew its
lease leads no more, and one that shows no beat is taken for dead.
"""

RESERVE = FOR_ACTORS + FOR_ELECTIONS + FOR_BEATS
"""Connections beyond `pool_size` that are made when they are needed, and closed after."""


class Lane(Enum):
    """Whose call it is."""

    HOST = "host"
    ACTOR = "actor"
    VITAL = "vital"


class Slots:
    """Counts calls, so that each kind finds a connection however many others there are.

    The pool has a connection for every slot, so that whoever has one waits no more.

    Args:
        size: how many calls of the host may be in the database at the same time.
        patience: seconds that a call waits for its turn.

    """

    def __init__(self, size: int, patience: float) -> None:
        self._patience = min(patience, threading.TIMEOUT_MAX)
        host = threading.BoundedSemaphore(size)
        shared = threading.BoundedSemaphore(size + FOR_ACTORS)
        # Who waits for the second of two has the first, and nobody waits the other way round.
        self._wanted = {Lane.HOST: (host, shared), Lane.ACTOR: (shared,), Lane.VITAL: ()}

    def taken(self, lane: Lane) -> "_Taken":
        """Have a slot for as long as a `with` block lasts.

        Raises:
            DatabaseUnavailable: none became free in time; raised as the block is entered.

        """
        return _Taken(self._wanted[lane], self._patience)


class _Taken:
    __slots__ = ("_patience", "_taken", "_wanted")

    def __init__(self, wanted: tuple[threading.Semaphore, ...], patience: float) -> None:
        self._wanted = wanted
        self._patience = patience
        self._taken: list[threading.Semaphore] = []

    def __enter__(self) -> None:
        try:
            done = all(map(self._take, self._wanted))
        except BaseException:
            self._give_back()
            raise
        if not done:
            self._give_back()
            raise DatabaseUnavailable("all connections of the pool were in use for too long")

    def __exit__(self, *_raised: object) -> None:
        self._give_back()

    def _take(self, places: threading.Semaphore) -> bool:
        taken = places.acquire(timeout=self._patience)
        if taken:
            self._taken.append(places)
        return taken

    def _give_back(self) -> None:
        for places in self._taken:
            places.release()
