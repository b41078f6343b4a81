"""Events: what the tree tells whoever attached a handler. Mirrors Elixir's `:telemetry`.

Handlers run at once in the sender's thread, so they should be quick. They share the mappings
that they are given and must not change them.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import count
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

from oban_actors.actors.clock import SYSTEM_CLOCK

Handler = Callable[[str, Mapping[str, Any], Mapping[str, Any]], object]

HANDLER_FAILURE = "oban.telemetry.handler.failure"

_EMPTY: Mapping[str, Any] = MappingProxyType({})
_logger = logging.getLogger("oban_actors.telemetry")


class _Attached(NamedTuple):
    handler_id: Hashable
    handler: Handler


# Replaced whole, never changed, so that `execute` reads it without a lock. Re-entrant, since
# a signal handler may attach while the thread that it interrupts does.
_table: dict[str, tuple[_Attached, ...]] = {}
_lock = threading.RLock()
_contexts = count(1)


def attach(handler_id: Hashable, event: str, handler: Handler) -> None:
    """Call the handler whenever the event is executed.

    Args:
        handler_id: names it for `detach`.
        event: a dotted name, such as `oban.plugin.stop`.
        handler: called with the event's name, measurements and metadata. If it raises, it is
            detached from all its events and logged.

    Raises:
        ValueError: a handler with this id is attached, or the event has no name.
        TypeError: the handler can't be called.

    """
    attach_many(handler_id, [event], handler)


def attach_many(handler_id: Hashable, events: Iterable[str], handler: Handler) -> None:
    """Call the handler whenever one of the events is executed; see `attach`.

    Raises:
        ValueError: a handler with this id is attached, or there are no names of events.
        TypeError: the handler can't be called.

    """
    global _table  # noqa: PLW0603 (a handler table is one for the program, as in Elixir)
    names = [events] if isinstance(events, str) else list(dict.fromkeys(events))
    if not names or "" in names:
        raise ValueError(f"expected names of events, got: {names!r}")
    if not callable(handler):
        raise TypeError(f"expected a callable handler, got: {handler!r}")
    entry = _Attached(handler_id, handler)
    with _lock:
        if any(each.handler_id == handler_id for row in _table.values() for each in row):
            raise ValueError(f"handler {handler_id!r} is already attached")
        _table = _table | {name: (*_table.get(name, ()), entry) for name in names}


def detach(handler_id: Hashable) -> bool:
    """Forget the handler.

    Returns:
        Whether there was one with this id.

    """
    return _remove(lambda each: each.handler_id == handler_id)


def attached(event: str) -> bool:
    """Tell whether anyone listens: what is costly to measure need not be measured otherwise."""
    return event in _table


def execute(
    event: str, measurements: Mapping[str, Any] = _EMPTY, metadata: Mapping[str, Any] = _EMPTY
) -> None:
    """Call all handlers of the event, in the order in which they were attached.

    Args:
        event: its dotted name.
        measurements: what was measured; times and durations in integer nanoseconds.
        metadata: what it is about.

    """
    for entry in _table.get(event, ()):
        try:
            entry.handler(event, measurements, metadata)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (never breaks the sender)
            _failed(event, entry, error)


class span:  # noqa: N801 (reads as a function, and is a class only because that is cheap)
    """Measure a block: `with span("oban.plugin", {...}) as s: ...; s.set(staged_count=2)`.

    Executes EVENT.start {system_time, monotonic_time}, then EVENT.stop {duration,
    monotonic_time}, or EVENT.exception with `kind`, `reason` and `stacktrace` in its metadata
    if the block raises; the error goes on. Times are integer nanoseconds. All events of a span
    share the `telemetry_span_context` in their metadata, a number unique in the process.

    Args:
        event: the dotted name that start, stop and exception are added to.
        metadata: of all its events.

    """

    __slots__ = ("_began", "_event", "_metadata")

    def __init__(self, event: str, metadata: Mapping[str, Any] = _EMPTY) -> None:
        self._event = event
        self._metadata = {"telemetry_span_context": next(_contexts), **metadata}
        self._began = 0

    def set(self, **metadata: Any) -> None:
        """Add to the metadata of the event that ends the span."""
        self._metadata = self._metadata | metadata

    def __enter__(self) -> Self:
        self._began = SYSTEM_CLOCK.monotonic_ns()
        times = {"system_time": SYSTEM_CLOCK.system_time_ns(), "monotonic_time": self._began}
        execute(f"{self._event}.start", times, self._metadata)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        now = SYSTEM_CLOCK.monotonic_ns()
        measured = {"duration": now - self._began, "monotonic_time": now}
        if error is None:
            execute(f"{self._event}.stop", measured, self._metadata)
        elif attached(event := f"{self._event}.exception"):
            execute(event, measured, self._metadata | _failure(error))


def _failure(error: BaseException) -> dict[str, Any]:
    """Describe an error by Erlang's kinds: an `exit` is what does not derive from Exception."""
    return {
        "kind": "error" if isinstance(error, Exception) else "exit",
        "reason": error,
        "stacktrace": "".join(traceback.format_exception(error)),
    }


def _failed(event: str, entry: _Attached, error: BaseException) -> None:
    """Detach what raised. Only whoever really removed it says so."""
    if not _remove(lambda each: each is entry):
        return
    _logger.error(
        "handler %r raised on %s and was detached", entry.handler_id, event, exc_info=error
    )
    about = {"event": event, "handler_id": entry.handler_id, **_failure(error)}
    now = {
        "system_time": SYSTEM_CLOCK.system_time_ns(),
        "monotonic_time": SYSTEM_CLOCK.monotonic_ns(),
    }
    execute(HANDLER_FAILURE, now, about)


def _remove(unwanted: Callable[[_Attached], bool]) -> bool:
    global _table  # noqa: PLW0603 (as in attach_many)
    with _lock:
        kept = {
            event: tuple(each for each in row if not unwanted(each))
            for event, row in _table.items()
        }
        removed = sum(map(len, kept.values())) < sum(map(len, _table.values()))
        _table = {event: row for event, row in kept.items() if row}
    return removed
