"""Each actor of a tree is ended and started from ten threads at once; nothing of it is left."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Oban
from oban_actors.actors import Ref, RestartChild, TerminateChild, UnknownChild, WhichChildren
from tests.endurance.leftovers import holdings, nothing_beyond
from tests.endurance.test_cycles import CYCLES, check_database, make, place
from tests.support.databases import Database

__all__ = ["place"]

THREADS = 10
ROUNDS = max(1, CYCLES // THREADS)
"""Ends and starts of each actor by each thread."""

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

pytestmark = pytest.mark.timeout(max(240, 30 * ROUNDS))


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


def flip(supervisor: Ref, id_: object, _: int) -> int:
    """End an actor and start it, unless another thread did; says how often it was this one."""
    started = 0
    for _ in range(ROUNDS):
        supervisor.ask(TerminateChild(id_), timeout=120)
        try:
            started += supervisor.ask(RestartChild(id_), timeout=120) is not None
        except UnknownChild:
            continue  # Another thread started it.
    return started


def flip_all(oban: Oban) -> None:
    """Do so with each actor, and see that it stands in the end."""
    plugins = [("plugins", id_) for id_ in children(oban.whereis("plugins"))]
    assert len(plugins) == 4
    with ThreadPoolExecutor(THREADS) as threads:
        for path in [*ACTORS, *plugins]:
            supervisor = above(oban, path)
            started = sum(threads.map(partial(flip, supervisor, path[-1]), range(THREADS)))
            assert started >= ROUNDS, path
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
