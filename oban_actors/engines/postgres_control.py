"""Control of jobs on PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from oban_actors.engines.control import Changing, Control
from oban_actors.job import JobState
from oban_actors.repo.containment import Clause
from oban_actors.repo.job_table import make_job_table
from oban_actors.repo.transactions import TRANSACTION_ID


class PostgresControl(Control):
    """The part of `PostgresEngine` that looks for jobs and changes them."""

    dialect = "postgresql"

    def prepare_control(self, prefix: str) -> None:
        """Prepare it for the tables of a schema, given without quotes."""
        self.table = make_job_table("postgresql", prefix)
        state = sa.cast(sa.null(), self.table.c.state.type)
        # Tables of older versions lack a state, and to name it there would be an error.
        each = sa.func.unnest(sa.func.enum_range(state)).column_valued("each")
        self._known = sa.select(each), sa.cast(each, sa.Text)

    def among(self, ids: Sequence[int]) -> Clause:
        """See `Control`."""
        given = sa.literal(list(ids), ARRAY(sa.BigInteger))
        return self.table.c.id == sa.func.any(given)

    def in_states(self, states: Sequence[JobState]) -> Clause:
        """See `Control`."""
        known, name = self._known
        among = known.where(name.in_([state.value for state in states])).scalar_subquery()
        return self.table.c.state == sa.func.any(sa.func.array(among))

    def columns(self) -> list[sa.ColumnElement[Any]]:
        """See `Control`."""
        texts = ARRAY(sa.Text)
        return [
            sa.cast(column, texts).label(column.name) if column.name == "tags" else column
            for column in self.table.c
        ]

    def changed(self, connection: sa.Connection, statement: Changing) -> set[int]:
        """See `Control`; leaves the transaction's id for `Repo.transaction`."""
        xid = sa.cast(sa.func.pg_current_xact_id(), sa.Text)
        rows: Sequence[Any] = connection.execute(statement.returning(xid)).all()
        if rows:
            connection.info[TRANSACTION_ID] = rows[0][1]
        return {row[0] for row in rows}
