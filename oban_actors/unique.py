"""What makes a job unique, and what it replaces in the one that is there already."""

import json
import sys
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Protocol

from oban_actors.validation import FIELDS

ALL: Final = (
    "suspended",
    "available",
    "scheduled",
    "executing",
    "retryable",
    "completed",
    "discarded",
    "cancelled",
)
INCOMPLETE: Final = ("suspended", "available", "scheduled", "executing", "retryable")
SUCCESSFUL: Final = (*INCOMPLETE, "completed")
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ALL,
    "incomplete": INCOMPLETE,
    "scheduled": ("scheduled",),
    "successful": SUCCESSFUL,
}
"""Names for sets of states, as Oban has them."""

FIELDS_OF_A_JOB: Final = ("args", "meta", "queue", "worker")
REPLACEABLE: Final = (
    "args",
    "max_attempts",
    "meta",
    "priority",
    "queue",
    "scheduled_at",
    "tags",
    "worker",
)
"""Fields that a job may replace in the one it is in conflict with."""

_INSERTED: Final = frozenset({"available", "scheduled", "suspended"})
_MAX_PERIOD = 1000 * 366 * 86_400.0
_OPTIONS = ("period", "fields", "keys", "states", "timestamp")
_FOREVER = ("infinity", None)


class Compared(Protocol):
    """What is compared of a job."""

    args: dict[str, Any]
    meta: dict[str, Any]
    queue: str
    worker: str


Replace = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Unique:
    """Which other jobs are the same as a job, so that it is not inserted beside them.

    Mirrors the option `unique` of `Oban.Job.new/2`.

    Attributes:
        period: seconds that the other one may be old, default 60; None is for ever.
        fields: what has to be equal, default args, queue and worker.
        keys: those keys of args and meta that count; with none, the default, all do.
        states: in which the other one has to be, default the group `successful`.
        timestamp: what its age is counted from, default `inserted_at`, else `scheduled_at`.

    """

    period: float | None = 60.0
    fields: tuple[str, ...] = ("args", "queue", "worker")
    keys: tuple[str, ...] = ()
    states: tuple[str, ...] = SUCCESSFUL
    timestamp: str = "inserted_at"

    def wanted(self, job: Compared, field: str) -> dict[str, Any]:
        """Give what another job's args or meta must hold to be the same; empty: nothing at all."""
        value: dict[str, Any] = getattr(job, field)
        return {key: value[key] for key in self.keys if key in value} if self.keys else value

    def narrowed(self, job: Compared) -> "Unique":
        """Give it with no other keys than the job has: those it asks of others."""
        held = {key for name in self._documents() for key in getattr(job, name)}
        asked = tuple(key for key in self.keys if key in held)
        return replace(self, keys=asked) if asked and asked != self.keys else self

    def wish(self, job: Compared) -> str:
        """Write what a job has to be unique by; equal to `trait` of the jobs that are the same."""
        return self._write(job, {name: self.wanted(job, name) for name in self._documents()})

    def trait(self, job: Compared) -> str:
        """Write what a job is, in the eyes of one that is unique in this way."""
        shown = {name: self.wanted(job, name) or getattr(job, name) for name in self._documents()}
        return self._write(job, shown)

    def _documents(self) -> list[str]:
        return [name for name in ("args", "meta") if name in self.fields]

    def _write(self, job: Compared, values: dict[str, Any]) -> str:
        plain: dict[str, Any] = {
            name: getattr(job, name) for name in ("queue", "worker") if name in self.fields
        }
        return _canonical({**plain, **values})


def unique_option(path: str, value: object) -> Unique | None:
    """Check the option `unique`.

    Args:
        path: of the value, for messages.
        value: True for the defaults and for ever, a mapping of options, an `Unique`, or False or
            None.

    Raises:
        InvalidJob: it is none of these, or an option can't be used.

    """
    if value is None or value is False:
        return None
    if value is True:
        return Unique(period=None)
    if isinstance(value, Unique):
        # Its words become part of a statement, whoever made it.
        try:
            return _once(path, value)
        except TypeError:  # it holds lists
            return _again(path, value)
    if not isinstance(value, Mapping):
        raise FIELDS.refusal(path, "a boolean or a mapping", value)
    FIELDS.known(value, _OPTIONS, path)
    made = _made(path, value)
    _warn(made)
    return made


def replace_option(path: str, value: object) -> Replace:
    """Check the option `replace` and give the fields by state.

    Args:
        path: of the value, for messages.
        value: a list of fields for all states, a mapping from states to lists, or None.

    Raises:
        InvalidJob: a state or a field is not one.

    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        FIELDS.known(value, ALL, path)
        return {
            str(state): _words(f"{path}.{state}", fields, REPLACEABLE)
            for state, fields in value.items()
        }
    fields = _words(path, value, REPLACEABLE)
    return dict.fromkeys(ALL, fields)


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two JSON objects hold each other, whatever the order of their arrays."""
    return _canonical(one) == _canonical(other)


def holds(found: object, wanted: object) -> bool:
    """Tell whether a JSON value holds another, by the rules of PostgreSQL's `@>`."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and holds(found[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and all(
            any(holds(each, value) for each in found) for value in wanted
        )
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    return bool(_plain(found) == _plain(wanted))


def has_arrays(value: object) -> bool:
    """Tell whether a JSON value holds an array that is not empty."""
    if isinstance(value, Mapping):
        return any(map(has_arrays, value.values()))
    return isinstance(value, list) and bool(value)


# Helpers


def _again(path: str, unique: Unique) -> Unique:
    return _made(path, {name: getattr(unique, name) for name in _OPTIONS})


_once = lru_cache(maxsize=256)(_again)


def _made(path: str, value: Mapping[str, Any]) -> Unique:
    return Unique(
        period=_period(f"{path}.period", value.get("period", 60.0)),
        fields=_words(f"{path}.fields", value.get("fields", Unique().fields), FIELDS_OF_A_JOB),
        keys=_keys(f"{path}.keys", value.get("keys", ())),
        states=_states(f"{path}.states", value.get("states", "successful")),
        timestamp=FIELDS.one_of(
            f"{path}.timestamp",
            value.get("timestamp", "inserted_at"),
            ("inserted_at", "scheduled_at"),
        ),
    )


def _canonical(value: object) -> str:
    return json.dumps(_normal(value), sort_keys=True, ensure_ascii=False)


def _normal(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _normal(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(_largest({_canonical(item): item for item in value}))
    return _plain(value)


def _plain(value: object) -> object:
    # jsonb knows one kind of numbers, and takes them as they are written: 1e23 is 10**23, which
    # no float is.
    return int(Decimal(repr(value))) if isinstance(value, float) and value.is_integer() else value


def _largest(items: dict[str, Any]) -> Iterable[str]:
    # An element that another one holds adds nothing: with and without it, arrays hold each other.
    nested = {text: item for text, item in items.items() if isinstance(item, Mapping | list)}
    sizes = {_flat_size(item) for item in nested.values()}
    if not nested or (len(sizes) == 1 and None not in sizes):
        return items
    return [
        text
        for text, item in items.items()
        if text not in nested
        or not any(holds(other, item) for name, other in nested.items() if name != text)
    ]


def _flat_size(item: object) -> int | None:
    """Count the keys of an object of plain values, which holds no other of as many; or None."""
    if isinstance(item, Mapping) and not any(isinstance(v, Mapping | list) for v in item.values()):
        return len(item)
    return None


def _period(path: str, value: object) -> float | None:
    if value in _FOREVER:
        return None
    expected = "a positive number of seconds or 'infinity'"
    seconds = FIELDS.number(path, value, expected)
    if not 0 < seconds <= _MAX_PERIOD:
        raise FIELDS.refusal(path, expected, value)
    return seconds


def _words(path: str, values: object, known: Collection[str]) -> tuple[str, ...]:
    expected = f"a list of some of {', '.join(map(repr, known))}"
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise FIELDS.refusal(path, expected, values)
    words = tuple(values)
    if not words or not all(isinstance(word, str) and word in known for word in words):
        raise FIELDS.refusal(path, expected, list(words))
    return tuple(dict.fromkeys(map(str, words)))


def _keys(path: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise FIELDS.refusal(path, "a list of keys", values)
    words = tuple(values)
    for index, word in enumerate(words):
        if not isinstance(word, str):
            raise FIELDS.refusal(f"{path}.{index}", "a string", word)
        FIELDS.storable(f"{path}.{index}", word)
    return tuple(sorted(set(words)))


def _states(path: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return GROUPS[FIELDS.one_of(path, value, tuple(GROUPS))]
    return _words(path, value, ALL)


def _warn(unique: Unique) -> None:
    if _INSERTED.isdisjoint(unique.states):
        warnings.warn(
            f"unique.states are {', '.join(unique.states)}: no job is inserted in any of these, "
            "so two jobs can be inserted one after the other",
            stacklevel=_callers_level(),
        )
    if unique.keys and not {"args", "meta"} & set(unique.fields):
        warnings.warn(
            "unique.keys count for nothing, since unique.fields has neither args nor meta",
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """Find how far up the stack, seen from who asks, the first line is that is not ours."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001 (as `warnings` does it)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__")):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == __name__.partition(".")[0]
