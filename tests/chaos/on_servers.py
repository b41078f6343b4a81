"""Faults of a PostgreSQL server: it restarts, throws everybody out, can't be written to."""

from typing import Any

import psycopg

from tests.chaos.cases import case
from tests.chaos.scene import Scene

AWAY = r"queue alpha can't reach the database"
BACK = r"queue alpha reaches the database again"
LOST = r"the notifier lost its connection"


def admin(scene: Scene) -> "psycopg.Connection[Any]":
    """Connect as whoever looks after the server, also where nobody can write."""
    assert scene.server is not None
    options = "-c default_transaction_read_only=off -c application_name=chaos"
    return psycopg.connect(scene.server.conninfo(), autocommit=True, options=options)


@case("restart-fast", "the server restarts (fast)", told=(LOST,))
def restart_fast(scene: Scene) -> None:
    """Everybody is thrown out, and comes back."""
    for _ in scene.rounds(10):
        with scene.strike():
            scene.server.restart("fast")


@case("restart-immediate", "the server restarts (immediate)", told=(LOST,))
def restart_immediate(scene: Scene) -> None:
    """It does not even write out what it has in memory."""
    for _ in scene.rounds(10):
        with scene.strike():
            scene.server.restart("immediate")


def throw_out(scene: Scene, whom: str) -> int:
    """Terminate the sessions of whom that is true, and say how many there were."""
    with admin(scene) as connection:
        cursor = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {whom}"
        )
        return sum(count for (count,) in cursor)


@case("terminate", "every backend is terminated", told=(LOST,))
def terminate(scene: Scene) -> None:
    """All sessions end, again and again."""
    for _ in scene.rounds(10, 2):
        with scene.strike():
            assert throw_out(scene, "application_name LIKE 'oban_actors%'")


@case("read-only", "the database is switched to read-only and back", told=(AWAY, BACK))
def read_only(scene: Scene) -> None:
    """As when it became a standby: all can be read, nothing written."""
    for _ in scene.rounds(5):
        with scene.strike():
            with admin(scene) as connection:
                connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                connection.execute("SELECT pg_reload_conf()")
            scene.told(AWAY)
            with admin(scene) as connection:
                connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                connection.execute("SELECT pg_reload_conf()")
