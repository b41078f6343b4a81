"""PgBouncer in transaction mode: with a way around it for listening, and without."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.chaos.cases import case
from tests.chaos.on_networks import plain
from tests.chaos.on_servers import throw_out
from tests.chaos.scene import LIMIT, Scene
from tests.cluster.pooling import pgbouncer, program


def no_pooler() -> str | None:
    """Why there can be none."""
    return None if program() else "PgBouncer is not on this machine (Debian's package pgbouncer)"


@contextmanager
def with_listen_url(scene: Scene) -> Iterator[None]:
    """Have two nodes behind a pooler that listen without it."""
    with pgbouncer(scene.database.url) as url, ended_before(scene):
        scene.start(2, url=url, notifier={"listen_url": plain(scene.database.url)})
        yield


@contextmanager
def without_one(scene: Scene) -> Iterator[None]:
    """Have two nodes behind a pooler with all that they do."""
    with pgbouncer(scene.database.url) as url, ended_before(scene):
        scene.start(2, url=url)
        yield


@contextmanager
def ended_before(scene: Scene) -> Iterator[None]:
    """End the nodes before what they stand on goes."""
    try:
        yield
    finally:
        for node in scene.nodes:
            node.end()


@case(
    "pooler",
    "PgBouncer in transaction mode, with `listen_url`, and every backend terminated",
    stage=with_listen_url,
    missing=no_pooler,
    told=(r"the notifier lost its connection",),
)
@case(
    "pooler-alone",
    "PgBouncer in transaction mode, without, and every backend terminated",
    stage=without_one,
    missing=no_pooler,
)
def pooler(scene: Scene) -> None:
    """Sessions mix, and nothing that is set or locked in one may be relied on."""
    for _ in scene.rounds(5, 2):
        scene.wait_for_runs(2 * LIMIT)
        with scene.strike():
            assert throw_out(scene, "true")
