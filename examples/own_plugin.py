"""A plugin of a host's own: how much work waits, told every minute.

    python -m examples.own_plugin [database URL]

One class with its options and `perform`. Here it only looks, so that every node may run it.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa

from oban_actors import Job, Oban, Perform, Plugin, PluginRun
from oban_actors.plugins import Duty


@dataclass(frozen=True, kw_only=True)
class Backlog(Plugin):
    """Counts the jobs that wait, by queue.

    Attributes:
        interval: seconds between two looks, default 60.

    """

    duty: ClassVar[Duty] = "own"
    interval: float = 60.0

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Count them; what is returned is in the event `oban.plugin.stop` too."""
        jobs = run.context.engine.table
        query = (
            sa.select(jobs.c.queue, sa.func.count())
            .where(jobs.c.state == "available")
            .group_by(jobs.c.queue)
        )

        def count(connection: sa.Connection) -> dict[str, int]:
            return {row.queue: row[1] for row in connection.execute(query)}

        return {"waiting": run.transaction(count, read_only=True)}


def main(arguments: Sequence[str]) -> None:
    """Insert some jobs that nobody runs, and ask how many wait."""
    with tempfile.TemporaryDirectory() as folder:
        url = arguments[0] if arguments else f"sqlite:///{folder}/jobs.db"
        oban = Oban(url, plugins=[Backlog()])
        oban.migrate()
        with oban:
            oban.insert_all(Job.new(worker="mail.Welcome", queue="mailers") for _ in range(3))
            print(oban.ask(("plugin", "backlog"), Perform()).extra)


if __name__ == "__main__":
    main(sys.argv[1:])
