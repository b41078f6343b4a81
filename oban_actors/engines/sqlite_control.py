"""Control of jobs on SQLite; who changes some has the file to itself, so no row is locked."""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from oban_actors.engines.control import Control
from oban_actors.engines.sqlite_lock import keep_writers_out
from oban_actors.job import JobState
from oban_actors.repo.containment import Clause
from oban_actors.repo.job_table import make_job_table


class SqliteControl(Control):
    """The part of `SqliteEngine` that looks for jobs and changes them."""

    dialect = "sqlite"
    table = make_job_table("sqlite", "public")

    def among(self, ids: Sequence[int]) -> Clause:
        """See `Control`."""
        each = sa.func.json_each(json.dumps(list(ids))).table_valued("value")
        return self.table.c.id.in_(sa.select(each.c.value))

    def in_states(self, states: Sequence[JobState]) -> Clause:
        """See `Control`."""
        return self.table.c.state.in_([state.value for state in states])

    def claimed_at(self) -> sa.ColumnElement[Any]:
        """See `Control`."""
        return sa.cast(self.table.c.attempted_at, sa.Text)

    def columns(self) -> list[sa.ColumnElement[Any]]:
        """See `Control`."""
        # As they are: one that can't be read shall not take the others with it.
        return [sa.type_coerce(c, sa.types.NullType()).label(c.name) for c in self.table.c]

    def keep_others_out(self, connection: sa.Connection) -> None:
        """See `Control`."""
        keep_writers_out(connection)
