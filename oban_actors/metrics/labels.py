"""Labels that stay few, whatever a program calls its queues and workers."""

import threading

from oban_actors.worker_registry import find_worker

OTHER = "other"
"""Stands for all that are too many."""

MOST = 100
"""Values of one label."""


class Labels:
    """Gives the values of labels: of queues the first `MOST`, of workers those registered here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: set[str] = set()

    def queue(self, name: str) -> str:
        """Give a queue's label."""
        if name in self._queues:
            return name
        with self._lock:
            if len(self._queues) >= MOST and name not in self._queues:
                return OTHER
            self._queues.add(name)
        return name

    def worker(self, name: str) -> str:
        """Give a worker's label; by its name also where a job was inserted under an alias."""
        spec = find_worker(name)
        return OTHER if spec is None else spec.name
