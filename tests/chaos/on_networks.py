"""Faults of the network: connections that go silent without closing, and one that loses."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.cases import case
from tests.chaos.nodes import pass_time
from tests.chaos.scene import BOUND, Scene
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

DELAY = (0.0, 0.03)
"""Seconds that a part of a message takes over the bad network."""

LOSS = 0.01
"""Share of them that end their connection."""


@contextmanager
def network(scene: Scene) -> Iterator[TcpProxy]:
    """Give a network before the server; it ends when no node of the scene uses it any more."""
    assert scene.server is not None
    with TcpProxy(scene.server.port) as scene.proxy:
        try:
            yield scene.proxy
        finally:
            for node in scene.nodes:
                node.end()


def over(scene: Scene, proxy: TcpProxy) -> str:
    """Give the database's address over it."""
    assert scene.server is not None
    return scene.database.url.replace(f":{scene.server.port}/", f":{proxy.port}/")


def plain(url: str) -> str:
    """Write an address as libpq takes it."""
    return url.replace("postgresql+psycopg", "postgresql")


@contextmanager
def listening_over_it(scene: Scene) -> Iterator[None]:
    """Have two nodes whose listening connections alone lead over a network."""
    with network(scene) as proxy:
        scene.start(2, notifier={"listen_url": plain(over(scene, proxy))})
        yield


@case(
    "silent-notifier",
    "the listening connections go silent",
    told=(r"a ping through the database did not come back; listening anew",),
    stage=listening_over_it,
)
def silent_notifier(scene: Scene) -> None:
    """The nodes' own pings, that don't come back, tell."""
    for _ in scene.rounds(5):
        with scene.strike():
            scene.proxy.strand()
            scene.told(r"listening anew", anew=True)
            # Whoever is only about to listen has nothing that could go silent in the next round.
            wait_until(lambda: scene.proxy.flowing >= len(scene.nodes), 60, "both listen anew")
            pass_time(2.0)


@contextmanager
def all_but_listening_over_it(scene: Scene) -> Iterator[None]:
    """Have two nodes whose pools lead over a network, while they listen without it."""
    with network(scene) as proxy:
        direct = plain(scene.database.url)
        scene.start(2, url=over(scene, proxy), notifier={"listen_url": direct})
        yield


@case(
    "silent-pool",
    "the connections of the pools go silent",
    told=(r"queue alpha can't reach the database: no answer within \d+ s, connection cut",),
    # Nodes that are so silent are taken for dead by a watch as short as the others have it.
    options={"lifeline": {}, "pulse": {}},
    stage=all_but_listening_over_it,
)
def silent_pool(scene: Scene) -> None:
    """Each call ends in time, and with it all connections that are as old."""
    for _ in scene.rounds(3):
        with scene.strike():
            scene.proxy.strand()


@contextmanager
def leader_over_it(scene: Scene) -> Iterator[None]:
    """Have a leader that reaches the database over a network only, and another node."""
    with network(scene) as proxy:
        scene.start(url=over(scene, proxy))
        scene.leader()
        scene.start()
        yield


@case(
    "silent-leader",
    "all connections of the leader go silent",
    told=(r"is no longer leader: .*",),
    again=lambda scene: BOUND * scene.strikes,
    stage=leader_over_it,
)
def silent_leader(scene: Scene) -> None:
    """Another one leads as soon as the lease has lapsed."""
    far, near = scene.nodes
    with scene.strike():
        scene.proxy.freeze()
        wait_until(lambda: near.leads or scene.hear(), 60, "the other one leads")
        assert scene.leader() is near
        assert not far.leads
    scene.proxy.thaw()


@contextmanager
def over_it(scene: Scene) -> Iterator[None]:
    """Have two nodes that reach the database over a network only."""
    with network(scene) as proxy:
        scene.start(2, url=over(scene, proxy))
        yield


@case(
    "network",
    "a network that delays, and breaks a connection at one chunk in a hundred",
    # One or two for each connection that breaks: hundreds in half a minute.
    few=1_000,
    stage=over_it,
)
def bad_network(scene: Scene) -> None:
    """Connections break at any point, commits included."""
    chance = scene.random

    def weather() -> float | None:
        return None if chance.random() < LOSS else chance.uniform(*DELAY)

    with scene.strike():
        scene.proxy.worsen(weather)
        pass_time(30.0 if scene.long else 4.0)
        scene.proxy.worsen(None)
