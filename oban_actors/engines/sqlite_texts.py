"""The texts that may stand for a JSON object in SQLite's table: one, but for its numbers.

PostgreSQL's jsonb takes `1`, `1.0` and `1.0e0` for the same. A text is as its writer wrote it, and
writers are Python and Elixir, which both sort keys and put in no blanks.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from json import dumps
from typing import Any

Pieces = Sequence[Sequence[str]]
"""A text in pieces, of each the ways that it may be written in; the longest first."""

_EXACT = 2**53
"""From here on not every integer is a float, and Erlang always writes an exponent."""


def to_json(value: object) -> str:
    """Write JSON so that equal objects are equal texts but for numbers, as Elixir does."""
    return dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def pieces_of(value: Mapping[str, Any]) -> Pieces:
    """Give the texts that may stand for an object.

    Args:
        value: one that holds no arrays, but for empty ones.

    """
    pieces: list[tuple[str, ...]] = []
    start: list[str] = []
    for ways in _written(value):
        if len(ways) == 1:
            start += ways
        else:
            before = "".join(start)
            pieces.append(tuple(before + way for way in ways))
            start = []
    return [*pieces, ("".join(start),)]


def is_one_of(text: str, pieces: Pieces) -> bool:
    """Tell whether a text is one of those."""
    place = 0
    for ways in pieces:
        way = next((way for way in ways if text.startswith(way, place)), None)
        if way is None:
            return False
        place += len(way)
    return place == len(text)


def within(pieces: Pieces, length: int) -> Pieces:
    """Give as many pieces as the first so many characters may be made of."""
    size = 0
    for place, ways in enumerate(pieces, start=1):
        size += min(map(len, ways))
        if size >= length:
            return pieces[:place]
    return pieces


def _written(value: Any) -> Iterator[Sequence[str]]:
    if isinstance(value, Mapping) and value:
        mark = "{"
        for key in sorted(value):
            yield (f"{mark}{to_json(key)}:",)
            yield from _written(value[key])
            mark = ","
        yield ("}",)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield _number(value)
    else:
        yield (to_json(value),)


def _number(number: float) -> Sequence[str]:
    if not number:
        return ("-0.0", "0.0", "0")
    try:
        nearest = repr(float(number))
    except OverflowError:
        return (str(number),)
    exact = Decimal(nearest)
    if isinstance(number, int) and exact != number:
        return (str(number),)
    ways = {nearest, *_in_elixir(exact)}
    if exact == int(exact):
        ways.add(str(int(exact)))
    return sorted(ways, key=len, reverse=True)


def _in_elixir(number: Decimal) -> Iterator[str]:
    """Write a float as Erlang does, with or without an exponent, whichever is shorter."""
    sign, found, exponent = number.as_tuple()
    digits = "".join(map(str, found)).rstrip("0")
    point = len(found) + int(exponent)
    if point >= len(digits):
        plain = f"{digits.ljust(point, '0')}.0"
    elif point > 0:
        plain = f"{digits[:point]}.{digits[point:]}"
    else:
        plain = f"0.{'0' * -point}{digits}"
    short = f"{digits[0]}.{digits[1:] or '0'}e{point - 1}"
    minus = "-" * sign
    if len(short) >= len(plain):
        yield minus + plain
    if len(short) < len(plain) or abs(number) >= _EXACT:
        yield minus + short
