"""Slots at work, and whether processes are there."""

import os
import threading
from pathlib import Path

from oban_actors.claim import Claim
from oban_actors.queues.process_slot import ProcessSlot
from tests.support.waiting import wait_until


def perform(slot: ProcessSlot, claim: Claim) -> Claim:
    """Run a claim, and give it."""
    slot.perform(claim)
    return claim


class running_in:  # noqa: N801 (reads as a function)
    """Run a claim in a thread, the block once its worker has written the file."""

    def __init__(self, slot: ProcessSlot, claim: Claim, file: Path) -> None:
        self.file = file
        self.thread = threading.Thread(target=slot.perform, args=[claim])

    def __enter__(self) -> None:
        self.thread.start()
        written(self.file)

    def __exit__(self, *_: object) -> None:
        self.thread.join(60)
        assert not self.thread.is_alive()


def written(file: Path) -> str:
    """Wait until a file says something, and give that."""
    return wait_until(lambda: file.read_text() if file.exists() else "")


def is_there(pid: int | None) -> bool:
    """Whether there is such a process, be it to be reaped."""
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


def runs(pid: int) -> bool:
    """Whether it is there and not only waits to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
