"""How payloads are written on the wire: as every version of Elixir's Oban can read them."""

import base64
import json
import math
import zlib
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

from oban_actors.config import Config
from oban_actors.errors import WireError
from oban_actors.validation import MAX_SECONDS

MAX_BYTES = 7_999
"""The longest payload that PostgreSQL takes; all notifiers share the limit."""

MAX_INFLATED = 1 << 20
"""Bytes that a compressed payload may unfold to; nobody's are near that."""

_MAX_CHANNEL = 63
_GZIP = "H4sI"
_MARKED = "Z:"
_GZIP_WINDOW = 31


def encode(payload: Mapping[str, Any]) -> str:
    """Write a payload as plain JSON, which Oban reads in every version.

    Keys become strings, tuples become arrays, dates and times ISO 8601.

    Args:
        payload: a mapping of JSON values; dates, times, decimals and UUIDs are fine too.

    Raises:
        WireError: it is no mapping, holds something else, or is longer than `MAX_BYTES`.

    """
    if not isinstance(payload, Mapping):
        raise WireError(f"expected a mapping as payload, got one of type {type(payload).__name__}")
    try:
        text = json.dumps(
            payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"a payload can't be written as JSON: {error}") from error
    if size > MAX_BYTES:
        raise WireError(
            f"a payload may have at most {MAX_BYTES} bytes of JSON, this one has {size}: split it"
        )
    return text


def decode(text: str) -> dict[str, Any]:
    """Read a payload: plain JSON, or JSON as gzip in base64, with or without `Z:` before it.

    Raises:
        WireError: it is none of these, no JSON object, or unfolds to more than `MAX_INFLATED`.

    """
    try:
        if text.startswith(_MARKED):
            text = _inflate(text.removeprefix(_MARKED))
        elif text.startswith(_GZIP):
            text = _inflate(text)
        payload = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON in a known encoding ({error})") from error
    if not isinstance(payload, dict):
        raise WireError(f"not a JSON object but of type {type(payload).__name__}")
    return payload


def seconds_of(payload: Mapping[str, Any], key: str) -> float | None:
    """Read a number of seconds, which may be any number that JSON can hold.

    Args:
        payload: what came.
        key: where in it.

    Returns:
        0 to `MAX_SECONDS`, whatever is beyond either; None where there is no number.

    """
    given = payload.get(key)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    if isinstance(given, float) and math.isnan(given):
        return None
    # Not a float before it is bounded: an integer may be larger than any.
    return float(min(max(given, 0), MAX_SECONDS))


def check_channel(config: Config, channel: object) -> str:
    """Check the name of a channel, without the prefix.

    Raises:
        WireError: it is no name, or too long for PostgreSQL.

    """
    if not isinstance(channel, str) or not channel or "\0" in channel:
        raise WireError(f"expected the name of a channel, got: {channel!r}")
    if len(config.channel(channel).encode(errors="replace")) > _MAX_CHANNEL:
        raise WireError(f"the name of the channel {channel!r} is too long")
    return channel


def _plain(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


def _inflate(text: str) -> str:
    data = base64.b64decode(text, validate=True)
    inflater = zlib.decompressobj(_GZIP_WINDOW)
    try:
        inflated = inflater.decompress(data, MAX_INFLATED + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(inflated) > MAX_INFLATED:
        raise ValueError(f"unfolds to more than {MAX_INFLATED} bytes")
    if not inflater.eof:
        raise ValueError("its gzip data is cut short")
    return inflated.decode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
