"""Layers of options, whatever they hold: the last that says something counts."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oban_actors.errors import ConfigError
from oban_actors.settings.layers import Given, Merged

PATHS = [("name",), ("stager",), ("stager", "limit"), ("stager", "interval"), ("queues",)]
GIVEN = st.builds(
    Given, st.sampled_from(PATHS), st.sampled_from([None, False, 1, 2]), st.sampled_from("abc")
)


def expected(layers: list[list[Given]], path: tuple[str, ...]) -> Any:
    """What the last word on an option is: its own, or one on its whole part that came later."""
    said = [each for layer in layers for each in layer]
    for each in reversed(said):
        if each.path == path:
            return each
        if path[:1] == each.path:
            return None
    return None


@given(st.lists(st.lists(GIVEN, max_size=4), max_size=4))
def test_the_last_word_counts_and_is_remembered(layers: list[list[Given]]) -> None:
    """For each option, with who said it; a part that is given whole leaves nothing of before."""
    merged = Merged()
    for layer in layers:
        merged.add(layer)

    for path in PATHS:
        if len(path) == 1:
            continue
        last = expected(layers, path)
        part = merged.values.get("stager")
        found = part.get(path[1]) if isinstance(part, dict) else None
        assert found == (last.value if last else None)
        assert merged.origins.get(".".join(path)) == (last.origin if last else None)
    for name in ("name", "queues"):
        last = expected(layers, (name,))
        assert merged.values.get(name) == (last.value if last else None)
        assert merged.origins.get(name) == (last.origin if last else None)


def blamed(message: str, **origins: str) -> str:
    """Who is named in front of a message."""
    paths = {path.replace("__", "."): origin for path, origin in origins.items()}
    return str(Merged(origins=paths).blame(ConfigError(message)))


def test_blame_falls_on_what_the_message_is_about() -> None:
    """On options that it names, parts of them and wholes of them; never on what came."""
    wrong = "invalid value for 'stager.limit': expected x, got: 'name'"
    nested = "invalid value for 'queues.a.limit': expected x, got: 0"
    owner = "unknown option 'limmit' for queues.a, did you mean 'limit'?"

    assert blamed(wrong, stager__limit="A", name="B") == f"A: {wrong}"
    assert blamed(wrong, stager="A", name="B") == f"A: {wrong}"
    assert blamed(nested, queues="A", name="B") == f"A: {nested}"
    odd = 'invalid value for "queues.it\'s": expected x, got: 0'
    assert blamed(odd, queues="A", name="B") == f"A: {odd}"
    assert blamed(owner, queues="A", name="B") == f"A: {owner}"
    assert blamed(wrong, name="B") == wrong
    assert blamed(wrong, stager__limit="") == wrong
