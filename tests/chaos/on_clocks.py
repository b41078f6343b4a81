"""Clocks that are wrong, and a host that takes all connections."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.cases import case
from tests.chaos.scene import LIMIT, Scene

APART = 600.0


@contextmanager
def apart(scene: Scene) -> Iterator[None]:
    """Have two nodes whose clocks are ten minutes apart."""
    scene.start(ahead=APART / 2)
    scene.start(ahead=-APART / 2)
    yield


@case("clocks", "clocks of the nodes ten minutes apart", stage=apart)
def clocks(scene: Scene) -> None:
    """The database's clock decides for all; whoever leads, and whoever is next."""
    for _ in scene.rounds(4, 2):
        leader = scene.leader()
        with scene.strike():
            assert leader.end() == 0
            scene.start(ahead=leader.options["ahead"])


@case(
    "pool",
    "the host uses all connections of the pool",
    told=(r"the host: all connections of the pool were in use for too long",),
    options={"statement_timeout": 3.0},
)
def pool(scene: Scene) -> None:
    """The actors have connections of their own, and the jobs go on."""
    for _ in scene.rounds(5):
        with scene.strike():
            for node in scene.living:
                node.signal(signal.SIGUSR1)
            scene.told(r"the host: all", anew=True)
            scene.wait_for_runs(LIMIT)
