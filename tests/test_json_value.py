"""Args and meta: any JSON object passes unchanged, all else is refused by its place."""

import json
import math
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.errors import InvalidJob
from oban_actors.job import Job

JSON_KINDS = "a JSON value (None, bool, int, float, str, list or dict with string keys)"
STORABLE = "text without NUL characters and lone surrogates"
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


class Colour(StrEnum):
    """Text of its own kind."""

    RED = "red"


class Level(IntEnum):
    """A number of its own kind."""

    HIGH = 3


def new(**fields: Any) -> Job:
    """Build a job whose worker doesn't matter, without the help of a type checker."""
    return Job.new(**{"worker": "W", **fields})


def nested(depth: int) -> dict[str, Any]:
    """An object of so many levels."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_args_and_meta_are_copied() -> None:
    """What the host does to its own objects later doesn't change the job."""
    args: dict[str, Any] = {"list": [1], "object": {"a": 1}}
    job = new(args=args, meta=args)

    args["list"].append(2)
    args["object"]["b"] = 2

    assert job.args == job.meta == {"list": [1], "object": {"a": 1}}


@given(st.dictionaries(TEXT, JSON_VALUES))
def test_json_objects_pass_and_survive(value: dict[str, Any]) -> None:
    """Any JSON object is kept as it is, and is the same after it was written and read."""
    job = new(args=value, meta=value)

    assert job.args == value
    assert job.meta == value
    assert json.loads(json.dumps(job.args, allow_nan=False)) == job.args


def test_python_kinds_of_json_become_plain() -> None:
    """Tuples, other mappings and enums become what reading them back would give."""
    given_args = {"t": (1, (2,)), "m": MappingProxyType({"a": Colour.RED}), "n": Level.HIGH}

    args = new(args=given_args).args

    assert args == {"t": [1, [2]], "m": {"a": "red"}, "n": 3}
    assert type(args["m"]["a"]) is str
    assert type(args["n"]) is int


@pytest.mark.parametrize("name", ["args", "meta"])
@pytest.mark.parametrize(
    ("value", "path", "expected", "got"),
    [
        ([1], "", "a JSON object, a mapping with string keys", "a value of type list"),
        ("secret", "", "a JSON object, a mapping with string keys", "a value of type str"),
        ({1: 2}, "", "string keys", "a value of type int"),
        ({"a": {None: 2}}, ".a", "string keys", "None"),
        ({"a": [0, math.nan]}, ".a.1", "a finite number", "nan"),
        ({"a": -math.inf}, ".a", "a finite number", "-inf"),
        ({"a": {"b": {1, 2}}}, ".a.b", JSON_KINDS, "a value of type set"),
        ({"a": b"secret"}, ".a", JSON_KINDS, "a value of type bytes"),
        ({"a": datetime(2026, 1, 2, tzinfo=UTC)}, ".a", JSON_KINDS, "a value of type datetime"),
        ({"a": "secret\x00"}, ".a", STORABLE, "text with some"),
        ({"a": ["secret\ud800"]}, ".a.0", STORABLE, "text with some"),
        ({"secret\x00": 1}, "", STORABLE, "text with some"),
        ({"a": 10**4000}, ".a", "an integer of at most 4000 digits", "a longer one"),
        (nested(101), ".a" * 100, "at most 100 levels of nesting", "more of them"),
    ],
    ids=[
        "list",
        "text",
        "number as key",
        "none as key",
        "nan",
        "infinity",
        "set",
        "bytes",
        "datetime",
        "nul",
        "surrogate",
        "nul in key",
        "huge",
        "deep",
    ],
)
def test_what_is_no_json_object_is_refused(
    name: str, value: object, path: str, expected: str, got: str
) -> None:
    """The message has the place and the kind of what is wrong, but never the value."""
    with pytest.raises(InvalidJob) as caught:
        new(**{name: value})

    place = name + path if len(name + path) <= 80 else (name + path)[:80] + "..."
    assert str(caught.value) == f"invalid value for '{place}': expected {expected}, got: {got}"
    assert "secret" not in str(caught.value)


def test_json_may_be_nested_a_hundred_levels() -> None:
    """The last level that passes."""
    assert new(args=nested(100)).args == nested(100)


def test_circular_args_are_refused() -> None:
    """What contains itself ends in an error of ours."""
    circle: dict[str, Any] = {}
    circle["a"] = [circle]

    with pytest.raises(InvalidJob, match="expected at most 100 levels of nesting"):
        new(args=circle)
