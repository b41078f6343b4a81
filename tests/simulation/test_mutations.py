"""Every guard that is taken away is missed within a bounded number of seeds."""

import pytest

from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.runner import play, search

MOST_SEEDS = 40


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_missing_guard_is_seen(mutation: Mutation) -> None:
    """Without the guard something happens that must not; with it the same story holds."""
    with mutation.applied():
        failed = search(0, MOST_SEEDS, mutation.shape)

    assert failed is not None, f"nobody missed it in {MOST_SEEDS} seeds"
    assert mutation.seen in str(failed.failure)
    held = play(failed.seed, mutation.shape)
    assert held.failure is None, str(held)
