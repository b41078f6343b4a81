"""When the bench inserts jobs of which it asks how soon they begin."""

import random

COUNT = 200
WARMING = 40
"""The first so many are not counted: a program that runs them may not have begun."""


def pauses(count: int) -> list[float]:
    """Give seconds to wait before each of so many inserts."""
    rng = random.Random(7)
    return [1.0, *(rng.uniform(0.03, 0.07) for _ in range(count - 1))]
