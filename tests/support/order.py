"""The order of tests: those that take long begin first, so that none is left over at the end."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def dealt(long: Sequence[T], short: Sequence[T], hands: int) -> list[T]:
    """Give all in one row, of which each worker takes an equal part, with long ones at its head.

    Args:
        long: those that are to begin first.
        short: all others; each of both stays in its order.
        hands: how many workers there are.

    """
    each, over = divmod(len(long) + len(short), hands)
    row: list[T] = []
    taken = 0
    for hand in range(hands):
        mine = long[hand::hands]
        # What can't be divided goes to the last ones, as in pytest-xdist.
        count = max(0, each + (hand >= hands - over) - len(mine))
        row += [*mine, *short[taken : taken + count]]
        taken += count
    return [*row, *short[taken:]]
