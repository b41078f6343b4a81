"""What strikes in a soak: one fault after the other, over and over."""

import signal
from collections.abc import Callable

from tests.chaos.nodes import pass_time
from tests.chaos.on_networks import over
from tests.chaos.on_servers import throw_out
from tests.chaos.scene import Scene

FROZEN = 6.0
"""Seconds that a node is stopped or the network silent: twice a lease."""

Fault = Callable[[Scene], None]


def kill(scene: Scene) -> None:
    """Kill a node, but not the first, whose memory is watched, and start another."""
    assert scene.proxy is not None
    scene.random.choice(scene.living[1:]).kill()
    scene.start(url=over(scene, scene.proxy))


def terminate(scene: Scene) -> None:
    """Terminate every session of the nodes."""
    throw_out(scene, "application_name LIKE 'oban_actors%'")


def restart(scene: Scene) -> None:
    """Restart the server."""
    assert scene.server is not None
    scene.server.restart("fast")


def freeze(scene: Scene) -> None:
    """Stop a node for twice its lease, and let it go on."""
    node = scene.random.choice(scene.living)
    node.signal(signal.SIGSTOP)
    pass_time(FROZEN)
    node.signal(signal.SIGCONT)


def silence(scene: Scene) -> None:
    """Let every connection be silent for a while."""
    assert scene.proxy is not None
    scene.proxy.freeze()
    pass_time(FROZEN)
    scene.proxy.thaw()


FAULTS: tuple[Fault, ...] = (kill, terminate, restart, freeze, silence)
