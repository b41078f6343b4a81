"""`make simulate`: plays seeds, as many or for as long as it is told."""

import argparse
import itertools
import random
import sys
from collections import Counter

from oban_actors.actors.clock import SYSTEM_CLOCK
from tests.simulation.plan import SHORT, TINY, Shape
from tests.simulation.runner import Outcome, play

MOST_FAILURES = 5


def main(arguments: list[str] | None = None) -> int:
    """Play seeds and print what came of them; 1 if something failed."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one only")
    for shape, what in ((SHORT, "short"), (TINY, "the shortest")):
        name, told = f"--{shape.name}", f"play {what} stories"
        parser.add_argument(name, dest="shape", action="store_const", const=shape, help=told)
    parser.set_defaults(shape=Shape())
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--first", type=int, help="begin with this seed (default: by chance)")
    parser.add_argument("--seeds", type=int, help="how many seeds")
    parser.add_argument("--seconds", type=float, help="how long (default 60, without --seeds)")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        outcome = play(given.seed, given.shape, tracing=given.trace)
        _say(*outcome.trace, outcome)
        return int(outcome.failure is not None)
    return _many(given)


def _many(given: argparse.Namespace) -> int:
    first = random.SystemRandom().randrange(2**31) if given.first is None else given.first
    seconds = given.seconds or (None if given.seeds else 60.0)
    began = SYSTEM_CLOCK.monotonic()
    failed: list[Outcome] = []
    done, steps = 0, 0
    faults: Counter[str] = Counter()
    for seed in itertools.count(first):
        spent = SYSTEM_CLOCK.monotonic() - began
        enough = given.seeds is not None and done >= given.seeds
        if enough or (seconds is not None and spent >= seconds) or len(failed) >= MOST_FAILURES:
            break
        outcome = play(seed, given.shape)
        done, steps = done + 1, steps + outcome.steps
        faults.update(outcome.faults)
        if outcome.failure is not None:
            failed.append(outcome)
            _say(outcome)
    spent = SYSTEM_CLOCK.monotonic() - began
    _say(f"{done} seeds from {first}, {steps} events in {spent:.1f} s: {len(failed)} failed")
    _say(", ".join(f"{name.lower()} {count}" for name, count in faults.most_common()))
    return int(bool(failed))


def _say(*lines: object) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 (it is a command)


if __name__ == "__main__":
    sys.exit(main())
