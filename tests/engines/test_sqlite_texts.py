"""The texts that may stand for one object in SQLite's table."""

from decimal import Decimal
from itertools import islice, product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oban_actors.engines.sqlite_texts import is_one_of, pieces_of, to_json, within

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3) | st.just([])
)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
).map(lambda value: {"v": value, "w": 1})


@given(OBJECTS)
def test_what_is_written_is_one_of_them(value: dict[str, Any]) -> None:
    """Also with a blank behind it, it is none any more."""
    pieces = pieces_of(value)

    assert is_one_of(to_json(value), pieces)
    assert not is_one_of(to_json(value) + " ", pieces)
    assert not is_one_of(to_json(value)[:-1], pieces)


@given(OBJECTS)
def test_each_of_them_is_the_same_object(value: dict[str, Any]) -> None:
    """They differ in nothing but how numbers are written, and each is told from all others."""
    pieces = pieces_of(value)

    for text in map("".join, islice(product(*pieces), 50)):
        assert is_one_of(text, pieces)
        assert list(map(len, pieces_of({"n": 1, "text": text}))) == [2, 1]


@given(NUMBERS)
def test_ways_to_write_a_number(number: float) -> None:
    """Each of them is exactly this number, written once."""
    wanted = Decimal(repr(number))
    ways, *_ = pieces_of({"n": number})
    texts = [way.removeprefix('{"n":').removesuffix("}") for way in ways]

    assert len(set(texts)) == len(texts)
    assert sorted(texts, key=len, reverse=True) == texts
    assert all(Decimal(text) == wanted for text in texts)
    assert repr(number) in texts


def test_pieces_of_the_first_characters() -> None:
    """No more of them than are needed, however a number is written."""
    pieces = pieces_of({"a": 1, "b": 2, "c": 3})

    assert [len(within(pieces, length)) for length in (1, 6, 7, 12, 18, 19, 99)] == [
        *(1, 1, 2, 2, 3, 4, 4)
    ]
