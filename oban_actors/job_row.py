"""Reading a row of the jobs table, as PostgreSQL or SQLite gives it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T", dict[str, Any], list[Any])

_PLAIN = {
    "id": int,
    "state": str,
    "queue": str,
    "worker": str,
    "attempt": int,
    "max_attempts": int,
    "priority": int,
}
MOMENTS = (
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "discarded_at",
    "cancelled_at",
)

UNREADABLE = "unreadable"
"""A further column that a row may have: which of its times Python has no year for, if any."""


def decode(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a job.

    PostgreSQL's driver has read JSON, arrays and timestamps already. In SQLite they are text,
    and an error is a JSON string that holds JSON, as Elixir's Lite engine writes it. What other
    writers may leave NULL becomes empty.

    Args:
        row: all columns by name.

    Raises:
        LookupError: a column is missing.
        RecursionError: JSON is nested too deep.
        TypeError: a value is of the wrong type.
        ValueError: JSON or a time can't be read.

    """
    for name, kind in _PLAIN.items():
        if not isinstance(row[name], kind):
            raise TypeError(f"expected {name} to be {kind.__name__}, got: {_kind(row[name])}")
    if moment := row.get(UNREADABLE):
        raise ValueError(f"expected {moment} to be in the years 1 to 9999")
    # Of the JSON columns none tells: PostgreSQL gives a JSON string as text, too.
    read = _parsed if isinstance(row["inserted_at"], str) else _as_is
    values = {name: row[name] for name in _PLAIN}
    values.update((name, _moment(row[name])) for name in MOMENTS)
    args = read(row["args"])
    if not isinstance(args, dict):
        raise TypeError(f"expected args to be dict, got: {_kind(args)}")
    values["args"] = args
    values["meta"] = _or_empty("meta", read(row["meta"]), {})
    values["tags"] = _texts("tags", read(row["tags"]))
    values["attempted_by"] = _texts("attempted_by", read(row["attempted_by"]))
    values["errors"] = [
        error_element(each) for each in _or_empty("errors", read(row["errors"]), [])
    ]
    return values


# Helpers


def _parsed(value: Any) -> Any:
    # A host's connection may have a converter that has read it already.
    return json.loads(value) if isinstance(value, str | bytes) else value


def _as_is(value: Any) -> Any:
    return value


def _or_empty(name: str, value: Any, empty: T) -> T:
    if value is None:
        return empty
    if isinstance(value, type(empty)):
        return value
    raise TypeError(f"expected {name} to be {_kind(empty)}, got: {_kind(value)}")


def _texts(name: str, value: Any) -> list[str]:
    return [str(each) for each in _or_empty(name, value, []) if each is not None]


def _moment(value: datetime | str | None) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    # Both databases hold UTC; PostgreSQL's column has no place to say so.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def error_element(value: Any) -> dict[str, Any]:
    """Read one error; what isn't an object is its text."""
    if isinstance(value, dict):
        return value
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError):
        parsed = value
    return parsed if isinstance(parsed, dict) else {"error": str(value)}


def _kind(value: object) -> str:
    return type(value).__name__
