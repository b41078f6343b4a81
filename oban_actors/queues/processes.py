"""The crew that runs jobs in processes of its own."""

import threading
from collections.abc import Callable

from oban_actors.claim import Claim
from oban_actors.performing import Performer
from oban_actors.queues.crew import ThreadCrew
from oban_actors.queues.process_slot import ProcessSlot, StartMethod

CLOSE_TIME = 5.0
"""Seconds that an idle process has to end in before it is killed."""


class ProcessCrew(ThreadCrew):
    """Threads that each drive a process of their own.

    Args:
        name: for the threads' names.
        most: gives the most processes that there may be now.
        performer: fills the claims.
        finish: called with each claim that has run.
        method: how processes are started, `spawn` (default) or `forkserver`.

    """

    def __init__(
        self,
        name: str,
        most: Callable[[], int],
        performer: Performer,
        finish: Callable[[Claim], None],
        method: StartMethod = "spawn",
    ) -> None:
        super().__init__(name, most, self._in_slot, finish)
        self._performer = performer
        self._method: StartMethod = method
        self._slots: dict[int, ProcessSlot] = {}
        self._busy: dict[Claim, ProcessSlot] = {}

    def interrupt(self, claim: Claim) -> None:
        """See `Crew`: its run has told the process already."""

    def abort(self, claim: Claim) -> bool:
        """See `Crew`: its process is killed."""
        slot = self._busy.get(claim)
        return slot is not None and slot.kill(claim)

    def leaving(self) -> None:
        """End the calling thread's process."""
        slot = self._slots.pop(threading.get_ident(), None)
        if slot is not None:
            slot.close(CLOSE_TIME)

    def _in_slot(self, claim: Claim) -> None:
        thread = threading.get_ident()
        slot = self._slots.get(thread)
        if slot is None:
            slot = self._slots[thread] = ProcessSlot(self._performer, self._method)
        self._busy[claim] = slot
        try:
            slot.perform(claim)
        finally:
            del self._busy[claim]
