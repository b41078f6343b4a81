"""Whose jobs are to be rescued, and in which order."""

from oban_actors.engines.rescue import ClaimGroup, ProducerReport
from oban_actors.plugins.orphans import Orphans, beats_of, orphans_of
from oban_actors.plugins.watch import Sighting, Watch

OURS = "00000000-0000-8000-8000-00000000000"
ELIXIR = "c2a8a5f4-0000-4000-8000-000000000000"


def watched(report: ProducerReport, *, seconds: float = 60.0) -> Watch:
    """Give a watch that has seen nothing else for so long."""
    watch = Watch(60.0)
    at = 0.0
    while at <= seconds:
        watch = watch.looked(Sighting(at, at, report.server, beats_of(report)))
        at += 10.0
    return watch


def test_beats() -> None:
    """All rows count, and claims of ours without one; others' claims are no producers'."""
    claims = [
        ClaimGroup(f"{OURS}1", "a", aged=True),
        ClaimGroup(f"{OURS}2", "a", aged=True),
        ClaimGroup(ELIXIR, "a", aged=True),
        ClaimGroup(None, "a", aged=True),
    ]
    report = ProducerReport("s", {f"{OURS}1": "x", "any": "y"}, claims)

    assert beats_of(report) == {f"{OURS}1": "x", "any": "y", f"{OURS}2": None}


def test_the_dead_with_all_their_queues_then_what_is_aged() -> None:
    """Nobody who is watched is given up by age; of others, only what is old enough."""
    claims = [
        ClaimGroup(f"{OURS}1", "b", aged=True),
        ClaimGroup(f"{OURS}1", "a", aged=False),
        ClaimGroup(ELIXIR, "a", aged=False),
        ClaimGroup(ELIXIR, "b", aged=True),
        ClaimGroup(None, "a", aged=True),
    ]
    report = ProducerReport("s", {f"{OURS}1": "x", f"{OURS}2": "y"}, claims)
    aged = [Orphans(ELIXIR, ("b",), age=9.0), Orphans(None, ("a",), age=9.0)]
    dead = [Orphans(f"{OURS}1", ("a", "b"), "x"), Orphans(f"{OURS}2", (), "y")]

    assert orphans_of(report, watched(report), {}, age=9.0) == [*dead, *aged]
    assert orphans_of(report, watched(report, seconds=50), {}, age=9.0) == aged
    assert orphans_of(report, watched(report), {}, age=9.0, lag=1.0) == aged
    assert [each.producer for each in dead + aged] == [f"{OURS}1", f"{OURS}2", None, None]


def test_who_was_tried_stands_back() -> None:
    """What can't be settled is tried after all others, in turn."""
    report = ProducerReport("s", {f"{OURS}{n}": "x" for n in range(1, 5)}, [])
    all_of_them = orphans_of(report, watched(report), {}, age=9.0)
    first, second, third, fourth = all_of_them

    tried = {first: 7, second: 3}

    assert orphans_of(report, watched(report), tried, age=9.0) == [third, fourth, second, first]
