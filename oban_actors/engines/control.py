"""What control of jobs is on either database; each has its own words for parts of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.dml import ReturningDelete, ReturningUpdate

from oban_actors.engines.engine import ChangedJob
from oban_actors.errors import JobLocked
from oban_actors.filters import Chosen
from oban_actors.job import Job, JobState
from oban_actors.repo.containment import Clause, document
from oban_actors.repo.sqlstates import LOCK_NOT_AVAILABLE, sqlstate
from oban_actors.repo.times import NOW, Dialect, parameter

CANCELLABLE = (
    JobState.AVAILABLE,
    JobState.SUSPENDED,
    JobState.SCHEDULED,
    JobState.EXECUTING,
    JobState.RETRYABLE,
)
RETRYABLE = tuple(s for s in JobState if s not in (JobState.AVAILABLE, JobState.EXECUTING))
DELETABLE = tuple(s for s in JobState if s is not JobState.EXECUTING)

MOST_ATTEMPTS = 2**31 - 1
"""What PostgreSQL's column can hold."""

Changing = ReturningUpdate[Any] | ReturningDelete[Any]


class Control(ABC):
    """Looks for jobs, and changes those that are named.

    A job is changed only where it has still the wanted state and all that was asked for holds
    of the row once it is locked.

    Attributes:
        table: the jobs.
        dialect: the database's kind.

    """

    table: sa.Table
    dialect: Dialect

    # What the databases differ in

    @abstractmethod
    def among(self, ids: Sequence[int]) -> Clause:
        """Say that a job's id is one of these; the primary key has to serve it."""

    @abstractmethod
    def in_states(self, states: Sequence[JobState]) -> Clause:
        """Say that a job is in one of these states, those among them that the table knows."""

    def by_queue(self, chosen: Chosen, states: Sequence[JobState]) -> sa.Select[Any]:
        """Give a query for the ids of jobs of some queues that are in one of these states."""
        return self.found(sa.select(self.table.c.id), chosen, (self.in_states(states),))

    @abstractmethod
    def claimed_at(self) -> sa.ColumnElement[Any]:
        """Give `attempted_at` as text, which can be read whatever it is."""

    @abstractmethod
    def columns(self) -> list[sa.ColumnElement[Any]]:
        """Give all columns of a job, as `Job.from_row` reads them."""

    @abstractmethod
    def keep_others_out(self, connection: sa.Connection) -> None:
        """Let nobody change jobs until the transaction ends, where rows can't be locked singly."""

    def changed(self, connection: sa.Connection, statement: Changing) -> set[int]:
        """Execute it and give the ids of the rows that it changed."""
        return set(connection.execute(statement).scalars())

    # Looking

    def find_jobs(
        self, connection: sa.Connection, chosen: Chosen, states: Sequence[JobState]
    ) -> list[int]:
        """See `JobEngine`."""
        wanted = [s for s in states if chosen.states is None or s in chosen.states]
        if not wanted:
            return []
        # What was asked for stands among the conditions already; more would only mislead.
        stands = chosen.states is not None and len(wanted) == len(chosen.states)
        state = () if stands else (self.in_states(wanted),)
        if chosen.by_queue:
            query = self.by_queue(chosen, wanted)
        else:
            query = self.found(sa.select(self.table.c.id), chosen, state)
        return sorted(connection.execute(query).scalars())

    def all_jobs(self, connection: sa.Connection, chosen: Chosen) -> list[dict[str, Any]]:
        """See `JobEngine`."""
        columns = sa.select(*self.columns()).select_from(self.table)
        query = self.found(columns, chosen, ())
        if not chosen.order:
            query = query.order_by(self.table.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]

    def found(
        self, query: sa.Select[Any], chosen: Chosen, more: tuple[Clause, ...]
    ) -> sa.Select[Any]:
        """Narrow a query down to the chosen jobs, in their order."""
        select = () if chosen.select is None else (self.table.c.id.in_(chosen.select),)
        query = query.where(*select, *chosen.holding, *more)
        if chosen.order or chosen.limit is not None:
            query = query.order_by(*chosen.order, self.table.c.id)
        return query.limit(chosen.limit)

    def claim_of(self, connection: sa.Connection, job_id: int) -> tuple[str, str | None] | None:
        """See `JobEngine`."""
        query = sa.select(sa.cast(self.table.c.state, sa.Text), self.claimed_at())
        row = connection.execute(query.where(self.table.c.id == job_id)).one_or_none()
        return None if row is None else (row[0], row[1])

    # Changing

    def cancel_jobs(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        holding: Sequence[Clause],
        now: datetime | None,
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        """See `JobEngine`."""
        locked = self._lock(connection, ids, holding, CANCELLABLE, wait=wait)
        values = {"state": JobState.CANCELLED.value, "cancelled_at": self._now(now)}
        return self._update(connection, locked, values)

    def retry_jobs(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        holding: Sequence[Clause],
        now: datetime | None,
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        """See `JobEngine`."""
        locked = self._lock(connection, ids, holding, RETRYABLE, wait=wait)
        attempt, most = self.table.c.attempt, self.table.c.max_attempts
        values = {
            "state": JobState.AVAILABLE.value,
            "scheduled_at": self._now(now),
            # One more than the column can hold would fail all that are retried with it.
            "max_attempts": sa.case(
                (most > attempt, most), (attempt < MOST_ATTEMPTS, attempt + 1), else_=most
            ),
            "completed_at": None,
            "cancelled_at": None,
            "discarded_at": None,
        }
        return self._update(connection, locked, values)

    def delete_jobs(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        holding: Sequence[Clause],
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        """See `JobEngine`."""
        locked = self._lock(connection, ids, holding, DELETABLE, wait=wait)
        if not locked:
            return []
        statement = sa.delete(self.table).where(self.among([job.id for job in locked]))
        gone = self.changed(connection, statement.returning(self.table.c.id))
        return [job for job in locked if job.id in gone]

    def lock_job(self, connection: sa.Connection, job_id: int) -> Job | None:
        """See `JobEngine`."""
        self.keep_others_out(connection)
        query = sa.select(*self.columns()).select_from(self.table).where(self.table.c.id == job_id)
        locking = query.with_for_update(skip_locked=True)
        row = connection.execute(locking).mappings().one_or_none()
        return None if row is None else Job.from_row(dict(row))

    def update_job(self, connection: sa.Connection, job_id: int, values: dict[str, Any]) -> None:
        """See `JobEngine`."""
        written = {name: self._written(name, value) for name, value in values.items()}
        statement = sa.update(self.table).where(self.table.c.id == job_id).values(written)
        self.changed(connection, statement.returning(self.table.c.id))

    def _lock(
        self,
        connection: sa.Connection,
        ids: Sequence[int],
        holding: Sequence[Clause],
        states: Sequence[JobState],
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        self.keep_others_out(connection)
        table = self.table
        wanted = sa.and_(
            sa.cast(table.c.state, sa.Text).in_([state.value for state in states]), *holding
        )
        # Within a function a condition is no way to the rows, so that the planner takes the ids.
        query = (
            sa.select(table.c.id, table.c.queue, sa.cast(table.c.state, sa.Text), self.claimed_at())
            .where(self.among(ids), sa.func.coalesce(wanted, sa.false()))
            .order_by(table.c.id)
            .with_for_update(skip_locked=not wait, of=table)
        )
        try:
            rows = connection.execute(query)
        except Exception as error:
            if sqlstate(error) != LOCK_NOT_AVAILABLE:
                raise
            raise JobLocked("jobs are locked by another transaction", ids=tuple(ids)) from error
        return [
            # SQLite's columns hold bytes, too, and no claim has such a time.
            ChangedJob(row[0], row[1], JobState(row[2]), row[3] if type(row[3]) is str else None)
            for row in rows
        ]

    def _update(
        self, connection: sa.Connection, locked: list[ChangedJob], values: dict[str, Any]
    ) -> list[ChangedJob]:
        if not locked:
            return []
        statement = sa.update(self.table).where(self.among([job.id for job in locked]))
        done = self.changed(connection, statement.values(values).returning(self.table.c.id))
        return [job for job in locked if job.id in done]

    def _written(self, name: str, value: Any) -> Any:
        # Not left to the columns' types: a host's connection may be none of SQLAlchemy's.
        if name in ("args", "meta") or (name == "tags" and self.dialect == "sqlite"):
            return document(self.dialect, value)
        if name == "scheduled_at":
            moment = parameter(self.dialect, value)
            return sa.literal(moment, sa.Text if self.dialect == "sqlite" else sa.DateTime)
        return value

    def _now(self, now: datetime | None) -> sa.TextClause:
        return sa.text(NOW[self.dialect]).bindparams(now=parameter(self.dialect, now))
