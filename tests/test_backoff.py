"""Delays: Oban's numbers, within their bounds whatever chance says."""

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.backoff import JitterMode, exponential, jitter, retry_delay

DAY = 86_400
PART = st.floats(0, 1)


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 1), (1, 2), (5, 32), (10, 1024), (11, 1024)])
def test_delays_double_up_to_a_bound(attempt: int, seconds: float) -> None:
    """Without options it is a power of two that stops growing after ten attempts."""
    assert exponential(attempt) == seconds


def test_exponential_options() -> None:
    """A delay is multiplied, padded, and bounded by another power."""
    assert exponential(3, mult=0.5, min_pad=2) == 6
    assert exponential(12, max_pow=100) == 4096
    assert exponential(10**9, max_pow=4) == 16


@pytest.mark.parametrize(
    ("mode", "part", "seconds"),
    [
        ("inc", 0.0, 100),
        ("inc", 1.0, 110),
        ("dec", 0.0, 100),
        ("dec", 1.0, 90),
        ("both", 0.0, 90),
        ("both", 0.5, 100),
        ("both", 1.0, 110),
    ],
)
def test_jitter_modes(mode: JitterMode, part: float, seconds: float) -> None:
    """Each mode moves the delay its own way, by ten percent at most."""
    assert jitter(100, mode=mode, rand=lambda: part) == pytest.approx(seconds)


@given(st.floats(0, 1e9), st.floats(0, 1), PART, st.sampled_from(["inc", "dec", "both"]))
def test_jitter_stays_within_its_bounds(
    seconds: float, mult: float, part: float, mode: JitterMode
) -> None:
    """No chance moves a delay further than the given part of it, or below zero."""
    result = jitter(seconds, mode=mode, mult=mult, rand=lambda: part)

    slack = seconds * 1e-9
    assert seconds * (1 - mult) - slack <= result <= seconds * (1 + mult) + slack
    assert result >= 0


@pytest.mark.parametrize(
    ("attempt", "max_attempts", "seconds"),
    [
        (1, 20, 17),
        (2, 20, 19),
        (10, 20, 1039),
        (20, 20, 2**20 + 15),
        (1, 40, 17),  # half an attempt of twenty is rounded up, as Elixir does
        (3, 40, 19),
        (40, 40, 2**20 + 15),
        (5, 100, 17),
        (100, 100, 2**20 + 15),
        (25, 20, 2**25 + 15),
    ],
)
def test_retries_wait_as_long_as_in_oban(attempt: int, max_attempts: int, seconds: float) -> None:
    """Without jitter the numbers are Oban's."""
    assert retry_delay(attempt, max_attempts, rand=lambda: 0.0) == seconds


@given(st.integers(1, 1000), st.integers(1, 1000), PART)
def test_retries_wait_at_most_two_weeks(attempt: int, max_attempts: int, part: float) -> None:
    """However many attempts there are, a delay is 16 s at least and below 14 days."""
    delay = retry_delay(min(attempt, max_attempts), max_attempts, rand=lambda: part)

    assert 16 <= delay < 14 * DAY


def test_chance_comes_from_the_standard_generator() -> None:
    """Without a source of chance the delays differ."""
    assert len({jitter(100.0) for _ in range(20)}) > 1


FORKS = """
import os
from oban_actors.backoff import CHANCE

for _ in range(2):
    if os.fork() == 0:
        os.write(1, b"%r\\n" % CHANCE.random())
        os._exit(0)
    os.wait()
"""


def test_chance_is_our_own() -> None:
    """A host's own sequence goes on as if nobody else were there; forks have each another one."""
    before = random.getstate()
    jitter(1.0)
    retry_delay(1, 20)
    assert random.getstate() == before

    told = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert len(set(told.stdout.split())) == 2
