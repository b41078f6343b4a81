"""How long to wait before the next try: Oban's delays, in seconds."""

import math
import os
import random
from collections.abc import Callable
from typing import Literal, assert_never

JitterMode = Literal["inc", "dec", "both"]
Random = Callable[[], float]

CHANCE = random.Random()  # noqa: S311 (spreads, hides nothing)
"""Our own: the sequence of `random` is the host's, who may have seeded it and counts on it."""

# Or all forks of a program would do the same.
os.register_at_fork(after_in_child=CHANCE.seed)

_CLAMP = 20
_MIN_PAD = 15.0


def exponential(
    attempt: int, *, mult: float = 1.0, max_pow: int = 10, min_pad: float = 0.0
) -> float:
    """Delay that doubles with each attempt: `min_pad + mult * 2 ** attempt`.

    Mirrors `Oban.Backoff.exponential/2`.

    Args:
        attempt: how many tries there were.
        mult: seconds that are doubled, default 1.
        max_pow: attempt beyond which the delay stays, default 10.
        min_pad: seconds always added, default 0.

    Returns:
        Seconds.

    """
    return min_pad + mult * 2.0 ** min(attempt, max_pow)


def jitter(
    seconds: float,
    *,
    mode: JitterMode = "both",
    mult: float = 0.1,
    rand: Random = CHANCE.random,
) -> float:
    """Change a delay by chance, so that many who wait don't come back together.

    Mirrors `Oban.Backoff.jitter/2`, but spreads evenly in mode `both`.

    Args:
        seconds: the delay.
        mode: `inc` makes it longer, `dec` shorter, `both` (default) either.
        mult: the largest change as a part of the delay, default 0.1.
        rand: gives numbers from 0 to 1.

    Returns:
        Seconds.

    """
    part = rand()
    match mode:
        case "inc":
            return seconds + seconds * mult * part
        case "dec":
            return seconds - seconds * mult * part
        case "both":
            return seconds + seconds * mult * (2 * part - 1)
        case _:
            assert_never(mode)


def retry_delay(attempt: int, max_attempts: int, *, rand: Random = CHANCE.random) -> float:
    """Delay before a failed job is tried again, as Oban's workers have it by default.

    15 s and 2 to the power of `attempt`, up to 10 % longer by chance. With more than 20
    attempts to come the power grows in proportion, so that the last delay is still 12 days.

    Args:
        attempt: the attempt that failed, counted from 1.
        max_attempts: how many the job may have.
        rand: gives numbers from 0 to 1.

    Returns:
        Seconds.

    """
    # Elixir rounds halves up, Python's round() to even.
    power = attempt if max_attempts <= _CLAMP else math.floor(attempt / max_attempts * _CLAMP + 0.5)
    delay = exponential(power, max_pow=100, min_pad=_MIN_PAD)
    return jitter(delay, mode="inc", rand=rand)
