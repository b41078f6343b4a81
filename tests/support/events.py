"""Record telemetry, and wait for it: what a test watches instead of sleeping."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from oban_actors import telemetry

SPANS = (
    "oban.plugin",
    "oban.peer.election",
    "oban.notifier.notify",
    "oban.engine.insert_all_jobs",
    "oban.engine.insert_job",
    "oban.engine.prune_jobs",
    "oban.engine.rescue_jobs",
    "oban.engine.stage_jobs",
)
EVENTS = (
    "oban.supervisor.init",
    "oban.plugin.init",
    "oban.notifier.switch",
    "oban.stager.switch",
    telemetry.HANDLER_FAILURE,
    *(f"{span}.{phase}" for span in SPANS for phase in ("start", "stop", "exception")),
)


@dataclass(frozen=True)
class Event:
    """One event as its handler got it."""

    name: str
    measurements: Mapping[str, Any]
    metadata: Mapping[str, Any]


Predicate = Callable[[Event], bool]


class Recorder:
    """Keeps the events it hears, from any thread, in their order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[Event] = []

    def handle(
        self, name: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """The telemetry handler."""
        with self._changed:
            self._events.append(Event(name, dict(measurements), dict(metadata)))
            self._changed.notify_all()

    def all(self, name: str | None = None, predicate: Predicate | None = None) -> list[Event]:
        """Events heard so far, of that name (default: any) and for which the predicate holds."""
        with self._changed:
            return [event for event in self._events if _fits(event, name, predicate)]

    def wait_for(
        self, name: str, predicate: Predicate | None = None, timeout: float = 30.0
    ) -> Event:
        """The first such event since the start or the last `clear`, waiting for it if need be.

        Args:
            name: Which event.
            predicate: What must hold for it, default: nothing.
            timeout: Seconds until it is given up.

        Raises:
            AssertionError: It did not come; what came is named.
        """
        return self.wait_for_count(1, name, predicate, timeout)[0]

    def wait_for_count(
        self, count: int, name: str, predicate: Predicate | None = None, timeout: float = 30.0
    ) -> list[Event]:
        """Like `wait_for`, for so many of them."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.all(name, predicate)) >= count, timeout):
                heard = [event.name for event in self._events]
                raise AssertionError(f"not {count} of {name} within {timeout} s, heard: {heard}")
            return self.all(name, predicate)

    def clear(self) -> None:
        """Forget what was heard."""
        with self._changed:
            self._events.clear()


@contextmanager
def recording(*names: str) -> Iterator[Recorder]:
    """Record these events, default: all that we know, until the end of the block."""
    recorder, handler_id = Recorder(), f"recorder-{uuid4()}"
    telemetry.attach_many(handler_id, names or EVENTS, recorder.handle)
    try:
        yield recorder
    finally:
        telemetry.detach(handler_id)


def _fits(event: Event, name: str | None, predicate: Predicate | None) -> bool:
    return name in (None, event.name) and (predicate is None or predicate(event))
