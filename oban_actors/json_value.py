"""JSON objects as both databases, Python and Elixir can all hold them."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from oban_actors.validation import FIELDS, storable

MAX_DEPTH = 100
"""How deep a value may be nested: well within what every JSON reader takes."""

_MAX_NUMBER = 10**4000  # Python reads and writes no integers of more than 4,300 digits
_SMALL = 10**100
_KINDS = "None, bool, int, float, str, list or dict with string keys"


def json_object(path: str, value: object) -> dict[str, Any]:
    """Check a JSON object and copy it; tuples become lists, as reading it back makes them.

    Messages name the place, never what stands there: it may be secret.

    Args:
        path: of the value, for messages.
        value: a mapping.

    Raises:
        InvalidJob: it is no mapping, or holds what strict JSON or PostgreSQL doesn't take.

    """
    if flat_object(value):
        return dict(value)
    if not isinstance(value, Mapping):
        raise FIELDS.veiled(path, "a JSON object, a mapping with string keys", _kind(value))
    return _mapping(path, value, MAX_DEPTH)


def flat_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Tell quickly of the simplest JSON objects, without others within, that they are good.

    What it doesn't call good may be so too.
    """
    if type(value) is not dict:
        return False
    for key, item in value.items():
        if type(key) is not str or not storable(key) or not _simple(item):
            return False
    return True


def _simple(item: Any) -> bool:
    kind = type(item)
    if kind is str:
        return storable(item)
    if kind is int:
        return bool(-_SMALL < item < _SMALL)
    if kind is float:
        return math.isfinite(item)
    return kind is bool or item is None


def _mapping(path: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if depth == 0:
        raise FIELDS.veiled(path, f"at most {MAX_DEPTH} levels of nesting", "more of them")
    copy = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise FIELDS.veiled(path, "string keys", _kind(key))
        copy[_text(path, key)] = _value(path, key, item, depth)
    return copy


def _value(path: str, key: object, value: object, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return _text(f"{path}.{key}", value)
        case int() | float():
            return _number(f"{path}.{key}", value)
        case Mapping():
            return _mapping(f"{path}.{key}", value, depth - 1)
        case list() | tuple():
            return _list(f"{path}.{key}", value, depth - 1)
    raise FIELDS.veiled(f"{path}.{key}", f"a JSON value ({_KINDS})", _kind(value))


def _list(path: str, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
    if depth == 0:
        raise FIELDS.veiled(path, f"at most {MAX_DEPTH} levels of nesting", "more of them")
    return [_value(path, index, item, depth) for index, item in enumerate(value)]


def _number(path: str, value: float) -> float:
    if isinstance(value, int):
        if -_MAX_NUMBER < value < _MAX_NUMBER:
            return int(value)
        raise FIELDS.veiled(path, "an integer of at most 4000 digits", "a longer one")
    if math.isfinite(value):
        return float(value)
    raise FIELDS.veiled(path, "a finite number", float.__repr__(value))


def _text(path: str, value: str) -> str:
    return FIELDS.storable(path, value, hidden=True)


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
