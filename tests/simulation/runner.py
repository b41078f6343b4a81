"""Runs seeds, and says how to play a failing one again."""

import gc
import hashlib
import traceback
from dataclasses import dataclass, field

from tests.simulation.plan import Shape, Story
from tests.simulation.world import world


@dataclass(slots=True)
class Outcome:
    """What a seed came to.

    Attributes:
        seed: which.
        failure: what must not happen, and did; None for nothing.
        trace: what happened, if it was asked for.
        steps: how many events there were.
        digest: of all that was decided by chance, the same whenever the seed is played.
        shape: the name of its shape.
        counts: how often a transaction did what; `faults` how often what struck.

    """

    seed: int
    failure: str | None = None
    trace: list[str] = field(default_factory=list)
    steps: int = 0
    digest: str = ""
    shape: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def replay(self) -> str:
        """The line that plays it again."""
        shape = f" --{self.shape}" if self.shape else ""
        return f'make simulate ARGS="--seed {self.seed}{shape} --trace"'

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.digest}): {self.failure or 'holds'}\n  {self.replay}"


def play(seed: int, shape: Shape | None = None, *, tracing: bool = False) -> Outcome:
    """Play one seed.

    Args:
        seed: which.
        shape: how its story goes, by default as all do.
        tracing: whether to keep what happens.

    """
    shape = shape or Shape()
    outcome = Outcome(seed, shape=shape.name)
    # Its garbage is in cycles: collected at its end and not at any time within.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with world(seed, tracing=tracing) as made:
            try:
                Story(made, shape).play()
            except Exception as error:  # noqa: BLE001 (a model that breaks is a failure too)
                known = isinstance(error, AssertionError)
                said = "" if known else "".join(traceback.format_exception(error))
                outcome.failure = f"{type(error).__name__}: {error}{said and chr(10)}{said}"
                made.say("simulation", outcome.failure)
            outcome.trace, outcome.steps = made.trace, made.hub.steps
            outcome.digest = hashlib.sha256(repr(made.hub.rng.getstate()).encode()).hexdigest()[:16]
            outcome.counts, outcome.faults = made.checks.counts, made.weather.seen
    finally:
        if collecting:
            gc.enable()
    return outcome


def search(first: int, count: int, shape: Shape | None = None) -> Outcome | None:
    """Play seeds until one fails; None if none does."""
    for seed in range(first, first + count):
        outcome = play(seed, shape)
        if outcome.failure is not None:
            return outcome
    return None
