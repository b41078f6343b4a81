"""That tests which take long are not left over at the end."""

from collections import Counter

import pytest

from tests.support.order import dealt


@pytest.mark.parametrize("hands", [1, 2, 3, 6])
@pytest.mark.parametrize("long", [0, 1, 3, 4, 13])
@pytest.mark.parametrize("short", [0, 2, 40, 41])
def test_each_part_begins_with_its_long_ones(long: int, short: int, hands: int) -> None:
    """None is lost, and each worker has as many of them as any other, or one less."""
    row = dealt([f"long {n}" for n in range(long)], [f"short {n}" for n in range(short)], hands)

    assert Counter(row) == Counter(
        [*(f"long {n}" for n in range(long)), *(f"short {n}" for n in range(short))]
    )
    assert [each for each in row if "short" in each] == [f"short {n}" for n in range(short)]
    if short < 40:
        return
    at = 0
    for hand in range(hands):
        count = (len(row) - at) // (hands - hand)
        mine, at = row[at : at + count], at + count
        kinds = ["long" in each for each in mine]
        assert kinds == sorted(kinds, reverse=True)
        assert sum(kinds) == len(range(hand, long, hands))
