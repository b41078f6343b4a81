"""Seeds: whole nodes, faults and all, hold what is promised; and a seed is one story for ever."""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from oban_actors.actors.clock import SYSTEM_CLOCK
from tests.simulation.__main__ import main
from tests.simulation.mutations import MUTATIONS
from tests.simulation.plan import SHORT, TINY
from tests.simulation.runner import play, search

SEEDS = 25
BY_CHANCE = 3

CHUNKS = 2
CHUNK = 60
BOX = 20.0
"""Seconds that a chunk of short stories may take; a slow machine plays fewer of them."""

TINY_SEEDS = 10_000
TINY_CHUNK = 250


def test_seeds_hold() -> None:
    """Nothing that must not happen does, whatever strikes."""
    failed = search(0, SEEDS)

    assert failed is None, str(failed)


@pytest.mark.parametrize("_", range(BY_CHANCE))
def test_seeds_by_chance_hold(_: int) -> None:
    """Nor in stories that nobody has played before."""
    outcome = play(random.SystemRandom().randrange(2**31))

    assert outcome.failure is None, str(outcome)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_short_stories_hold(chunk: int, record_property: Callable[[str, object], None]) -> None:
    """Nor in many small ones, as many as there is time for; the report says how many."""
    began, played = SYSTEM_CLOCK.monotonic(), 0
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        outcome = play(seed, SHORT)
        played += 1
        assert outcome.failure is None, str(outcome)
        if SYSTEM_CLOCK.monotonic() - began > BOX:
            break
    record_property("seeds", played)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, TINY_SEEDS, TINY_CHUNK))
def test_ten_thousand_tiny_stories_hold(first: int) -> None:
    """Nor in any of those that are over as soon as their jobs are, in which all kinds happen."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + TINY_CHUNK):
        outcome = play(seed, TINY)
        seen.update(outcome.counts)
        assert outcome.failure is None, str(outcome)

    assert all(seen[kind] for kind in ("stage", "claim", "ack", "rescue", "cron")), seen


def test_a_seed_is_one_story() -> None:
    """A seed decides everything, also in another process, whose sets have another order."""
    first, again = play(12), play(12)
    command = "from tests.simulation.runner import play; print(play(12).digest)"
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    elsewhere = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
    )

    assert first.digest == again.digest == elsewhere.stdout.strip()
    assert first.digest != play(13).digest


def test_what_fails_says_how_to_play_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A failing seed names itself and its line, and that line shows what happened."""
    piling = next(each for each in MUTATIONS if each.name == "timers pile up")
    with piling.applied():
        failed = search(0, 10)

        assert failed is not None
        assert f'make simulate ARGS="--seed {failed.seed} --trace"' in str(failed)
        assert main(["--seed", str(failed.seed), "--trace"]) == 1
    said = capsys.readouterr().out
    assert "starts" in said
    assert str(failed) in said

    assert main(["--seed", str(failed.seed)]) == 0
    assert play(1, SHORT).replay == 'make simulate ARGS="--seed 1 --short --trace"'
    assert play(1, TINY).replay == 'make simulate ARGS="--seed 1 --tiny --trace"'
    assert main(["--first", "1", "--seeds", "2", "--short"]) == 0
    assert main(["--first", "1", "--seeds", "2", "--tiny"]) == 0
    assert main(["--first", "1", "--seeds", "2"]) == 0
    assert "2 seeds from 1" in capsys.readouterr().out
