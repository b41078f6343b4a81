"""Control of jobs on PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from oban_actors.engines.control import Changing, Control
from oban_actors.engines.postgres_traces import trace_of_change
from oban_actors.filters import Chosen
from oban_actors.job import JobState
from oban_actors.job_row import MOMENTS, UNREADABLE
from oban_actors.repo.commits import leave
from oban_actors.repo.containment import Clause
from oban_actors.repo.job_table import make_job_table
from oban_actors.repo.times import READABLE


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

    def by_queue(self, chosen: Chosen, states: Sequence[JobState]) -> sa.Select[Any]:
        """See `Control`; through the index on state and queue, whatever the planner knows.

        Where no sorting is allowed, no other one has the order that each part is asked for in.
        """
        jobs = self.table.c
        known, name = self._known
        state = known.where(name.in_([each.value for each in states])).subquery()
        names = sa.literal(list(chosen.queues or ()), ARRAY(sa.Text))
        queue = sa.func.unnest(names).table_valued("name").render_derived()
        of_each = (jobs.state == next(iter(state.c)), jobs.queue == queue.c.name)
        part = self.found(sa.select(jobs.id), chosen, of_each)
        part = part.order_by(jobs.queue, jobs.priority, jobs.scheduled_at, jobs.id)
        part_of = part.correlate(state, queue).lateral()
        every = state.join(queue, sa.true()).join(part_of, sa.true())
        return sa.select(part_of.c.id).select_from(every)

    def claimed_at(self) -> sa.ColumnElement[Any]:
        """See `Control`."""
        # Not by a cast: that is written as the host's session likes it.
        return sa.func.to_char(self.table.c.attempted_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')

    def columns(self) -> list[sa.ColumnElement[Any]]:
        """See `Control`."""
        texts = ARRAY(sa.Text)
        jobs = self.table.c
        # The driver would fail at a time that Python has not, and with it all other rows.
        bad: list[tuple[sa.ColumnElement[bool], sa.ColumnElement[Any]]] = [
            (sa.not_(_is_readable(jobs[name])), sa.literal_column(f"'{name}'")) for name in MOMENTS
        ]
        special: dict[str, sa.ColumnElement[Any]] = {
            name: sa.case((_is_readable(jobs[name]), jobs[name])) for name in MOMENTS
        }
        special["tags"] = sa.cast(jobs.tags, texts)
        return [
            *(special[c.name].label(c.name) if c.name in special else c for c in jobs),
            sa.case(*bad).label(UNREADABLE),
        ]

    def changed(self, connection: sa.Connection, statement: Changing) -> set[int]:
        """See `Control`; leaves the transaction's trace for `Repo.transaction`."""
        xid = sa.cast(sa.func.pg_current_xact_id(), sa.Text)
        rows: Sequence[Any] = connection.execute(statement.returning(xid)).all()
        ids = {row[0] for row in rows}
        if rows:
            gone = isinstance(statement, sa.Delete)
            leave(connection, trace_of_change(self.table, rows[0][1], sorted(ids), gone=gone))
        return ids

    def keep_others_out(self, connection: sa.Connection) -> None:
        """See `Control`; its rows are locked one by one."""


def _is_readable(moment: sa.ColumnElement[Any]) -> Clause:
    return moment.op("BETWEEN", is_comparison=True)(sa.literal_column(READABLE))
