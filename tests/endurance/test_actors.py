"""Each actor of a tree is ended and started from ten threads at once; nothing of it is left."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Oban
from oban_actors.actors import Ref, RestartChild, TerminateChild, UnknownChild, WhichChildren
from tests.endurance.leftovers import holdings, nothing_beyond
from tests.endurance.test_cycles import CYCLES, at_once, check_database, make, place
from tests.support.databases import Database

__all__ = ["place"]

QUEUE = ("queues", "alpha")
ACTORS = [
    ("health",),
    ("notifier",),
    ("peer",),
    ("pulse",),
    ("stager",),
    ("queues",),
    QUEUE,
    (*QUEUE, "foreman"),
    (*QUEUE, "producer"),
    (*QUEUE, "watchman"),
    ("plugins",),
]
"""By the ids on the way from the root; the plugins are found by themselves."""

pytestmark = pytest.mark.timeout(max(240, 3 * CYCLES))


def children(supervisor: Ref) -> dict[object, Ref]:
    """Ask a supervisor for its children."""
    answer: Any = supervisor.ask(WhichChildren(), timeout=60)
    return dict(answer)


def above(oban: Oban, path: tuple[object, ...]) -> Ref:
    """Find the supervisor of an actor."""
    supervisor = oban.whereis("oban")
    for id_ in path[:-1]:
        supervisor = children(supervisor)[id_]
    return supervisor


def flip(supervisor: Ref, id_: object) -> None:
    """End an actor and start it, as often as it takes to be the one of all threads that did."""
    while True:
        supervisor.ask(TerminateChild(id_), timeout=120)
        try:
            started = supervisor.ask(RestartChild(id_), timeout=120)
        except UnknownChild:
            continue  # Another thread started it.
        assert started is not None
        return


def flip_all(oban: Oban) -> None:
    """Do so with each actor, and see that it stands in the end."""
    plugins = [("plugins", id_) for id_ in children(oban.whereis("plugins"))]
    assert len(plugins) == 4
    for path in [*ACTORS, *plugins]:
        supervisor = above(oban, path)
        at_once(CYCLES, partial(flip, supervisor, path[-1]))
        assert children(supervisor)[path[-1]].is_alive(), path


def test_each_actor_from_ten_threads_at_once(place: Database, tmp_path: Path) -> None:
    """However their ends and starts meet, each stands once, and goes with the tree."""
    oban = make(place)
    oban.migrate()
    with oban:
        pass
    before, files = holdings(), {path.name for path in tmp_path.iterdir()}
    with oban:
        root = oban.whereis("oban")
        flip_all(oban)
        assert oban.whereis("oban") is root, "the tree gave up meanwhile"
    nothing_beyond(before)
    check_database(place, tmp_path, files)
