"""Tables that are not as we made them: of an older version, of a newer one, altered meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from oban_actors import SchemaTooNew
from tests.chaos.cases import case
from tests.chaos.nodes import Node
from tests.chaos.on_servers import AWAY, BACK
from tests.chaos.scene import OPTIONS, Scene
from tests.support.waiting import wait_until


@contextmanager
def older(scene: Scene) -> Iterator[None]:
    """Have two nodes on older tables, after one that found less than all versions have in common.

    It refuses to start, and names the call that helps.
    """
    scene.tables.execute("ALTER TABLE {jobs} RENAME COLUMN cancelled_at TO gone")
    node = Node(scene.database.url, scene.database.prefix, OPTIONS, scene.directory, 100)
    wait_until(lambda: not node.lives, 60, "the node has ended")
    assert node.process.returncode == 1
    scene.quote(r"has no column cancelled_at: call oban.migrate\(\) first", node.stderr.read_text())
    scene.tables.execute("ALTER TABLE {jobs} RENAME COLUMN gone TO cancelled_at")

    scene.oban.rollback(version=11)
    scene.start(2)
    yield


@case("old-schema", "tables of an older version, migrated under running nodes", stage=older)
def old_schema(scene: Scene) -> None:
    """Nodes work on them, and go on when they are migrated."""
    with scene.strike():
        scene.oban.migrate()


@case("newer-schema", "tables of a newer version")
def newer_schema(scene: Scene) -> None:
    """Nodes start on what they don't know, as all that they use is there; migrating refuses."""
    with scene.strike():
        for change in (
            "ALTER TYPE oban_job_state ADD VALUE 'dreaming'",
            "ALTER TABLE {jobs} ADD COLUMN mood text NOT NULL DEFAULT 'good'",
            "COMMENT ON TABLE {jobs} IS '99'",
        ):
            scene.tables.execute(change)
        for node in scene.living:
            assert node.end() == 0
        scene.start(2)
        try:
            scene.oban.migrate()
        except SchemaTooNew as error:
            scene.quote(r"version 99, .*", str(error))
        else:
            raise AssertionError("tables of version 99 were migrated")


@case("altered", "the table is altered under running nodes", told=(AWAY, BACK))
def altered(scene: Scene) -> None:
    """Columns come, change and go for a while; statements that were prepared are no obstacle."""
    changes = (
        "ALTER TABLE {jobs} ADD COLUMN mood text DEFAULT 'good'",
        "ALTER TABLE {jobs} ALTER COLUMN priority TYPE bigint, ALTER COLUMN worker TYPE varchar",
        "DROP INDEX oban_actors_staging_index",
        "ALTER TABLE {jobs} DROP COLUMN mood",
    )
    for change in changes:
        with scene.strike():
            scene.tables.execute(change)
    for _ in scene.rounds(3):
        with scene.strike():
            scene.tables.execute("ALTER TABLE {jobs} RENAME COLUMN meta TO gone")
            scene.told(AWAY, anew=True)
            scene.tables.execute("ALTER TABLE {jobs} RENAME COLUMN gone TO meta")
