"""What counts as flat."""

import pytest

from tests.soak.flatness import Minute, failures, growth


def minutes(rss: list[float], p50: float = 0.01, p99: float = 5.0) -> list[Minute]:
    """Make minutes of which only memory differs."""
    return [Minute(n, 100, each, p50, p99, ()) for n, each in enumerate(rss, 1)]


@pytest.mark.parametrize(
    ("values", "grown"), [([5.0], 0.0), ([1, 2, 3, 4], 3.0), ([1, 1, 90, 1, 1], 0.0), ([3, 1], -2)]
)
def test_growth(values: list[float], grown: float) -> None:
    """It is that of the whole run, and one value counts for little."""
    assert growth(values) == grown


def test_what_wavers_is_flat() -> None:
    """Memory goes up and down, and a new node begins with less."""
    assert failures(minutes([80, 81, 79, 82, 60, 80, 81, 80])) == []


def test_a_leak_is_named() -> None:
    """A megabyte a minute is named."""
    assert failures(minutes([80.0 + n for n in range(30)])) == [
        "rss grew by 27, at most 9.55 is flat"
    ]


def test_the_beginning_does_not_count() -> None:
    """Caches are filled then."""
    assert failures(minutes([40, 60, *[80.0] * 10])) == []


def test_latency_that_creeps_is_named() -> None:
    """From a hundredth of a second to a few tenths."""
    creeping = [Minute(n, 100, 80, 0.01 * n, 5, ()) for n in range(1, 31)]
    assert failures(creeping) == ["p50 grew by 0.27, at most 0.0825 is flat"]


@pytest.mark.parametrize(("count", "named"), [(2, False), (30, True)])
def test_the_slowest_are_judged_where_the_faults_took_turns(count: int, named: bool) -> None:  # noqa: FBT001 (a parameter)
    """Two minutes differ by the faults that they had."""
    slower = [Minute(n, 100, 80, 0.01, 4.0 * n, ()) for n in range(1, count + 1)]
    assert any("p99" in failure for failure in failures(slower)) is named
