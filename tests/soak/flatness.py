"""Whether what was measured each minute stays flat: steps without effects."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WARM = 2
"""Minutes at the beginning that count for nothing, where there are more than twice as many."""

MEMORY_GROWTH = 0.10
"""Share by which a node's memory may grow over the run, by its slope."""

LATENCY_GROWTH = 0.50
"""The same for latencies, which a fault or another program moves a lot."""

LEAST_LATENCY = 0.05
"""Seconds by which latency may grow in any case."""

ROUNDS = 10
"""Minutes from which on the slowest are judged: in fewer they only tell the faults."""


@dataclass(frozen=True)
class Minute:
    """What a minute came to.

    Attributes:
        number: from 1.
        jobs: how many began.
        rss: memory at its end of the node that lives all the time, in MiB.
        p50: seconds from a job's insertion to its beginning, in the middle.
        p99: the same of the slowest hundredth: those that a fault held up.
        faults: which struck.

    """

    number: int
    jobs: int
    rss: float
    p50: float
    p99: float
    faults: tuple[str, ...]


def growth(values: Sequence[float]) -> float:
    """By how much values grow from the first to the last, as their slope has it.

    The slope is the median of those of all pairs, so that single values count for little.
    """
    slopes = [
        (values[j] - values[i]) / (j - i)
        for i in range(len(values))
        for j in range(i + 1, len(values))
    ]
    return statistics.median(slopes) * (len(values) - 1) if slopes else 0.0


def failures(minutes: Sequence[Minute]) -> list[str]:
    """Say what did not stay flat."""
    counted = minutes[WARM:] if len(minutes) > 2 * WARM else minutes
    found = []
    for name, least in (("rss", 0.0), ("p50", LEAST_LATENCY), ("p99", LEAST_LATENCY)):
        if name == "p99" and len(counted) < ROUNDS:
            continue
        values = [getattr(minute, name) for minute in counted]
        share = MEMORY_GROWTH if name == "rss" else LATENCY_GROWTH
        bound = max(share * statistics.median(values), least)
        if (grown := growth(values)) > bound:
            found.append(f"{name} grew by {grown:.3g}, at most {bound:.3g} is flat")
    return found
