"""Checks of values: what passes, and the exact words for what doesn't."""

import math
import re
from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.errors import ConfigError, InvalidJob
from oban_actors.validation import (
    FIELDS,
    MAX_INTEGER,
    OPTIONS,
    duplicates,
    nearest,
    shown,
)

HUGE = 10**5000


def says(kind: type[Exception], message: str) -> Any:
    """Expect this error with exactly this message."""
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


def test_each_family_raises_its_own_error() -> None:
    """Options give ConfigError and fields InvalidJob, in the same words."""
    message = "invalid value for 'x': expected a boolean, got: 1"

    with says(ConfigError, message):
        OPTIONS.boolean("x", 1)
    with says(InvalidJob, message):
        FIELDS.boolean("x", 1)


@pytest.mark.parametrize("value", [1, 7, MAX_INTEGER])
def test_integers_pass(value: int) -> None:
    """An integer within the bounds is returned as it is."""
    assert OPTIONS.integer("limit", value, low=1) == value


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (0, "0"),
        (-1, "-1"),
        (True, "True"),
        (1.0, "1.0"),
        ("1", "'1'"),
        (None, "None"),
        pytest.param(-HUGE, "an integer of 16610 bits", id="huge"),
    ],
)
def test_other_than_positive_integers_are_refused(value: object, got: str) -> None:
    """Booleans, floats, text and numbers too small are no positive integers."""
    with says(ConfigError, f"invalid value for 'limit': expected a positive integer, got: {got}"):
        OPTIONS.integer("limit", value, low=1)


@pytest.mark.parametrize(
    ("bounds", "value", "expected"),
    [
        ({}, -1, "a non-negative integer"),
        ({"low": 1}, MAX_INTEGER + 1, "an integer of at most 2147483647"),
        ({"high": 9}, 10, "an integer from 0 to 9"),
        ({"low": -5}, -6, "an integer from -5 to 2147483647"),
    ],
)
def test_integer_messages_name_the_bound(bounds: dict[str, int], value: int, expected: str) -> None:
    """Which bound is broken decides the words."""
    with says(ConfigError, f"invalid value for 'x': expected {expected}, got: {value}"):
        OPTIONS.integer("x", value, **bounds)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (0.001, 0.001)],
)
def test_seconds_pass_as_floats(value: object, seconds: float) -> None:
    """Numbers and timedeltas become seconds."""
    result = OPTIONS.seconds("interval", value)

    assert result == seconds
    assert type(result) is float


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (0, "0"),
        (-1.5, "-1.5"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        pytest.param(HUGE, "an integer of 16610 bits", id="huge"),
        (True, "True"),
        ("1s", "'1s'"),
        (None, "None"),
        (timedelta(0), "datetime.timedelta(0)"),
    ],
)
def test_other_than_positive_seconds_are_refused(value: object, got: str) -> None:
    """No time, negative time and what is no finite number are refused alike."""
    expected = "a positive number of seconds or None"
    with says(ConfigError, f"invalid value for 'interval': expected {expected}, got: {got}"):
        OPTIONS.seconds("interval", value, other=" or None")


def test_seconds_have_bounds() -> None:
    """What databases can't count in 32 bits of milliseconds is refused."""
    with says(ConfigError, "invalid value for 'x': expected at least 0.001 seconds, got: 0.0005"):
        OPTIONS.seconds("x", 0.0005)
    with says(ConfigError, "invalid value for 'x': expected at most 2147483 seconds, got: 2147484"):
        OPTIONS.seconds("x", 2_147_484)
    expected = "a non-negative number of seconds"
    with says(ConfigError, f"invalid value for 'x': expected {expected}, got: -1"):
        OPTIONS.seconds("x", -1, zero=True)

    assert OPTIONS.seconds("x", 0, zero=True) == 0.0


def test_one_of() -> None:
    """A known word passes, another is refused with all known ones."""
    assert OPTIONS.one_of("mode", "yield", ("yield", "equal")) == "yield"
    with says(
        ConfigError, "invalid value for 'mode': expected one of 'yield', 'equal', got: 'equals'"
    ):
        OPTIONS.one_of("mode", "equals", ("yield", "equal"))
    with says(ConfigError, "invalid value for 'mode': expected one of 'yield', 'equal', got: []"):
        OPTIONS.one_of("mode", [], ("yield", "equal"))


@pytest.mark.parametrize(
    ("value", "got"),
    [("", "''"), ("  ", "'  '"), (7, "7"), (b"x", "b'...'"), (None, "None")],
)
def test_text_must_not_be_blank(value: object, got: str) -> None:
    """Blank text and what is no text are refused."""
    expected = "a non-blank string of at most 5 characters"
    with says(InvalidJob, f"invalid value for 'queue': expected {expected}, got: {got}"):
        FIELDS.text("queue", value, high=5)


def test_text_length_is_counted_in_characters() -> None:
    """As PostgreSQL's char_length counts, not in bytes."""
    assert FIELDS.text("queue", "äöü€😀", high=5) == "äöü€😀"
    with says(
        InvalidJob,
        "invalid value for 'queue': expected a non-blank string of at most 5 characters, "
        "got: 'abcdef'",
    ):
        FIELDS.text("queue", "abcdef", high=5)


@pytest.mark.parametrize("value", ["a\x00b", "a\ud800", "\udfffb"])
def test_text_must_be_storable(value: str) -> None:
    """What PostgreSQL or UTF-8 has no place for is refused, and shown only where it may be."""
    message = "invalid value for 'x': expected text without NUL characters and lone surrogates"
    with says(InvalidJob, f"{message}, got: {value!r}"):
        FIELDS.storable("x", value)
    with says(InvalidJob, f"{message}, got: text with some"):
        FIELDS.storable("x", value, hidden=True)


@given(st.text())
def test_storable_text_can_be_encoded(value: str) -> None:
    """Text passes just when it is UTF-8 without NUL."""
    try:
        fits = b"\x00" not in value.encode()
    except UnicodeEncodeError:
        fits = False

    if fits:
        assert FIELDS.storable("x", value) == value
    else:
        with pytest.raises(InvalidJob):
            FIELDS.storable("x", value)


@pytest.mark.parametrize(
    ("given", "owner", "message"),
    [
        ("queuess", "", "unknown option 'queuess', did you mean 'queues'?"),
        ("foo", "", "unknown option 'foo'"),
        ("queue", "stager", "unknown option 'queue' for stager, did you mean 'queues'?"),
        ("foo", "stager", "unknown option 'foo' for stager"),
        (7, "stager", "unknown option 7 for stager"),
    ],
)
def test_unknown_options(given: object, owner: str, message: str) -> None:
    """The nearest known option is named, if one is near."""
    with says(ConfigError, message):
        OPTIONS.known([given], ["name", "queues"], owner=owner)


def test_known_options_pass() -> None:
    """Any part of the known names is accepted."""
    OPTIONS.known([], ["name"])
    OPTIONS.known(["name"], ["name", "queues"])


def test_nearest() -> None:
    """The nearest of several is found; nothing is near to what is no name."""
    assert nearest("limits", ["limit", "linter"]) == "limit"
    assert nearest("zzz", ["limit"]) is None
    assert nearest(None, ["limit"]) is None


def test_duplicates() -> None:
    """Each one that comes again is given once, in order."""
    assert duplicates(["b", "a", "b", "a", "b", "c"]) == ["b", "a"]
    assert duplicates([]) == []


def test_long_paths_are_cut() -> None:
    """A key of a megabyte makes no message of a megabyte."""
    with pytest.raises(InvalidJob) as caught:
        FIELDS.boolean("args." + "k" * 1_000_000, 1)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("postgresql://u:secret@host/db", "'postgresql://...'"),
        ("host=h password=secret", "'...'"),
        (["postgresql://u:secret@host/db"], "['postgresql://...']"),
        ({"password": "secret", "a": 1}, "a mapping with the keys ['...', 'a']"),
        (b"secret", "b'...'"),
        (MappingProxyType({"a": "secret"}), "a mapping with the keys ['a']"),
        ([1, [2]], "[1, [2]]"),
        ("a\nb", r"'a\nb'"),
    ],
)
def test_values_are_shown_without_secrets(value: object, text: str) -> None:
    """Addresses, passwords and the values of mappings stay out of messages."""
    assert shown(value) == text


class Hostile:
    """Its repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Wordy:
    """Its repr is long and has many lines."""

    def __repr__(self) -> str:
        return "line\n" * 10_000


@pytest.mark.parametrize(
    "make",
    [Hostile, Wordy, lambda: "x" * 10**6, lambda: [HUGE] * 1000, lambda: {1: [Hostile()]}],
    ids=["hostile", "wordy", "long", "huge", "nested"],
)
def test_any_value_is_shown_briefly(make: Callable[[], object]) -> None:
    """Whatever comes, the message is one short line."""
    text = shown(make())

    assert len(text) < 300
    assert "\n" not in text
