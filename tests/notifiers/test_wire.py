"""How payloads are written and read."""

import base64
import gzip
import json
import math
import re
import zlib
from collections import UserDict
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.config import Config
from oban_actors.errors import WireError
from oban_actors.notifiers.wire import (
    MAX_BYTES,
    MAX_INFLATED,
    check_channel,
    decode,
    encode,
    seconds_of,
)
from oban_actors.validation import MAX_SECONDS

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
OBJECTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=10),
    max_size=5,
)


def packed(data: bytes) -> str:
    """Compress as Elixir does."""
    return base64.b64encode(gzip.compress(data)).decode()


@given(OBJECTS)
def test_what_was_written_can_be_read(payload: dict[str, Any]) -> None:
    """In each of the forms that come over the wire."""
    text = encode(payload)

    assert decode(text) == payload
    assert decode(packed(text.encode())) == payload
    assert decode("Z:" + packed(text.encode())) == payload


@given(st.text() | st.binary().map(lambda b: "H4sI" + base64.b64encode(b).decode()))
def test_whatever_comes_is_an_object_or_refused(text: str) -> None:
    """There is no third way."""
    try:
        payload = decode(text)
    except WireError:
        return
    assert isinstance(payload, dict)


@pytest.mark.parametrize("mark", ["", "Z:"])
@given(data=st.binary(max_size=200))
def test_compressed_rubbish_is_refused(mark: str, data: bytes) -> None:
    """What unfolds well may still be no object."""
    with pytest.raises(WireError):
        decode(mark + packed(data))


def test_plain_and_compact() -> None:
    """As every version of Oban reads it, in as few bytes as may be."""
    assert encode({"queue": "é", "n": [1, 2.5, None, True]}) == (
        '{"queue":"é","n":[1,2.5,null,true]}'
    )


def test_values_that_json_does_not_know() -> None:
    """They are written as Elixir's encoder writes them."""
    payload = {
        "at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "local": datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 (a naive one is the point)
        "time": time(3, 4),
        "sum": Decimal("1.50"),
        "id": UUID(int=1),
        "more": UserDict({"a": 1}),
    }

    assert decode(encode(payload)) == {
        "at": "2026-01-02T03:04:05.000006Z",
        "local": "2026-01-02T03:04:05",
        "time": "03:04:00",
        "sum": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "more": {"a": 1},
    }


@pytest.mark.parametrize(
    "payload",
    [
        [],
        "text",
        None,
        {"x": object()},
        {"x": {1, 2}},
        {"x": b"bytes"},
        {(1, 2): "x"},
        {"x": math.nan},
        {"x": math.inf},
        {"x": "\ud800"},
    ],
    ids=lambda payload: re.sub(" at 0x[0-9a-f]+", "", repr(payload)),
)
def test_what_can_not_be_written(payload: Any) -> None:
    """It is refused, and never half sent."""
    with pytest.raises(WireError):
        encode(payload)


def test_a_circle_can_not_be_written() -> None:
    """Nor can what is nested without end."""
    circle: dict[str, Any] = {}
    circle["self"] = circle

    with pytest.raises(WireError, match="JSON"):
        encode(circle)


def test_the_limit_is_in_bytes() -> None:
    """A letter may have two."""
    room = MAX_BYTES - len('{"x":""}')

    assert len(encode({"x": "y" * room})) == MAX_BYTES
    with pytest.raises(WireError, match="8000"):
        encode({"x": "é" + "y" * (room - 1)})


def test_a_bomb_is_not_unfolded() -> None:
    """What unfolds to the limit is read, one byte more is not."""
    filler = b" " * (MAX_INFLATED - 2)

    assert decode(packed(b"{" + filler + b"}")) == {}
    with pytest.raises(WireError, match="unfolds to more"):
        decode(packed(b"{" + filler + b" }"))


@pytest.mark.parametrize("size", [4, 10, 20, -1, -9])
def test_compressed_data_that_was_cut(size: int) -> None:
    """It is refused however much of it is there."""
    whole = gzip.compress(json.dumps({"x": "y" * 50}).encode())

    with pytest.raises(WireError):
        decode("Z:" + base64.b64encode(whole[:size]).decode())


def test_only_gzip_counts() -> None:
    """Other ways to compress are not Oban's."""
    with pytest.raises(WireError):
        decode("Z:" + base64.b64encode(zlib.compress(b"{}")).decode())


def test_a_channels_name_fits_with_its_prefix() -> None:
    """PostgreSQL would cut a longer one, and nobody would hear on it."""
    config = Config.build(prefix="p" * 40)
    room = 63 - len(config.channel(""))

    assert check_channel(config, "c" * room) == "c" * room
    with pytest.raises(WireError, match="too long"):
        check_channel(config, "c" * (room + 1))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (-1, 0.0),
        (-(10**400), 0.0),
        (-math.inf, 0.0),
        (10**400, MAX_SECONDS),
        (math.inf, MAX_SECONDS),
        (math.nan, None),
        (True, None),
        ("1", None),
        (None, None),
        ([], None),
    ],
)
def test_seconds_are_bounded(given: object, expected: float | None) -> None:
    """Any number may come, and whoever reads it can reckon with what it gets."""
    assert seconds_of({"next": given}, "next") == expected
    assert seconds_of({}, "next") is None
