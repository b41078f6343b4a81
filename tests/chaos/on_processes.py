"""Faults of processes: nodes are killed, and stopped for longer than their lease."""

import signal

from tests.chaos.cases import case
from tests.chaos.nodes import pass_time
from tests.chaos.scene import BOUND, OPTIONS, Scene

GONE = r"is gone: \d+ of its jobs are available again"


def _bound(scene: Scene) -> int:
    return BOUND * scene.strikes


@case("kill", "kill -9 of a node", told=(GONE,), again=_bound)
@case("kill-sqlite", "kill -9 of a node", kind="sqlite", told=(GONE,), again=_bound)
def kill(scene: Scene) -> None:
    """Any node, at any time; a service manager starts another."""
    for _ in scene.rounds(10):
        with scene.strike():
            scene.random.choice(scene.living).kill()
            scene.start()


@case("stop-leader", "SIGSTOP of the leader for twice its lease, then SIGCONT", again=_bound)
def stop_leader(scene: Scene) -> None:
    """Another leads meanwhile; when it goes on, it does not act."""
    for _ in scene.rounds(3):
        leader = scene.leader()
        with scene.strike():
            leader.signal(signal.SIGSTOP)
            leader.leads = False
            pass_time(2 * OPTIONS["peer"]["lease"])
            assert scene.leader() is not leader
            leader.signal(signal.SIGCONT)
        scene.told(r"is no longer leader: .*")
