"""The names of the indexes for keys, by which deployed tables have theirs."""

import pytest

from oban_actors.repo.key_indexes import KeyIndex, Keys


@pytest.mark.parametrize(
    ("keys", "name"), [(("n",), "b8d54dc56e19cde7"), (("a", "b"), "0eee9b877a38008e")]
)
def test_names_stay(keys: Keys, name: str) -> None:
    """Another name would be another index, built beside the one that is there."""
    assert KeyIndex("args", keys).name == f"oban_actors_keys_{name}_index"
    assert KeyIndex("meta", keys).name == f"oban_actors_meta_keys_{name}_index"
