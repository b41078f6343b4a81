"""The Stager's pass: one transaction, that stages what is due and tells which queues have work."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from oban_actors import telemetry
from oban_actors.actors.clock import Clock
from oban_actors.config import Config
from oban_actors.engines import JobEngine, StagedJob, StagedPass
from oban_actors.engines.staging import read_pass
from oban_actors.errors import DatabaseError
from oban_actors.notifiers import Publisher, note_sent, sends_by_statement
from oban_actors.notifiers.wire import encode
from oban_actors.peers import duty_idle, holds_lease, lease_gate
from oban_actors.repo import Repo
from oban_actors.repo.times import parameter
from oban_actors.staging import DatabaseClock, SetAside, is_of_a_row

logger = logging.getLogger("oban_actors")

MOST_FAILING_ROWS = 20
"""Rows found unfit in one pass at most; the next pass goes on."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """What one pass came to.

    Attributes:
        leader: whether this instance led, and so staged.
        staged: the jobs made available, with their queues and former states.
        queues: the queues told that they have available jobs.
        next_due_in: seconds until the next job is due, None when there is none.
        set_aside: ids of jobs that could not be staged.
        error: why the pass failed, None when it did not.

    """

    leader: bool
    staged: tuple[StagedJob, ...] = ()
    queues: tuple[str, ...] = ()
    next_due_in: float | None = None
    set_aside: tuple[int, ...] = ()
    error: DatabaseError | None = field(default=None, compare=False)

    @property
    def staged_count(self) -> int:
        """How many jobs were made available."""
        return len(self.staged)


class Passes:
    """Makes passes as the leader: no lease, no act.

    On PostgreSQL a pass is one message, with which its COMMIT goes: a round trip costs more than
    all else. Where that is not possible, or a row is refused, it goes step by step, by the same
    statements in the same order.

    Args:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        publisher: how notifications are written in a transaction.
        limit: jobs that one pass makes available at most.
        clock: the tree's.

    Attributes:
        database_clock: what the database's clock showed in them.

    """

    def __init__(
        self,
        config: Config,
        repo: Repo,
        engine: JobEngine,
        publisher: Publisher,
        limit: int,
        clock: Clock,
    ) -> None:
        self._config = config
        self._repo = repo
        self._engine = engine
        self._publisher = publisher
        self._limit = limit
        self._clock = clock
        self._idle = duty_idle(config)
        self._aside = SetAside()
        self._gate = lease_gate(config) if sends_by_statement(publisher) else None
        self.database_clock = DatabaseClock()

    def stage(self, beat: Mapping[str, Any] | None) -> StageResult:
        """Make one pass.

        Args:
            beat: what to tell the followers with it, or nothing.

        Raises:
            DatabaseError: it can't be made now.

        """
        about = {"conf": self._config, "engine": type(self._engine)}
        with telemetry.span("oban.engine.stage_jobs", about) as event:
            result = self._stage(beat)
            event.set(jobs=result.staged, queues=result.queues)
        return result

    def _stage(self, beat: Mapping[str, Any] | None) -> StageResult:
        try:
            if self._gate is not None and self._engine.pass_sql is not None:
                return self._in_one_message(self._gate, self._engine.pass_sql, beat)
            return self._by_steps(beat, halving=False)
        except DatabaseError as error:
            if not is_of_a_row(error.__cause__):
                raise
        return self._by_steps(beat, halving=True)

    def tell(self) -> tuple[str, ...]:
        """Tell the queues that have available jobs, and stage nothing.

        Raises:
            DatabaseError: it can't be done now.

        """

        def work(connection: sa.Connection) -> tuple[str, ...]:
            if not holds_lease(connection, self._config, self._repo.now()):
                return ()
            return self._tell(connection, None)

        return self._repo.transaction(work, attempts=1, idle_timeout=self._idle)

    # One message

    def _in_one_message(
        self,
        gate: tuple[str, dict[str, Any]],
        statements: Sequence[str],
        beat: Mapping[str, Any] | None,
    ) -> StageResult:
        statement, lease = gate
        values = lease | {
            "now": parameter("postgresql", self._repo.now()),
            "limit": self._limit,
            "aside": self._aside.ids(self._clock.monotonic()),
            "insert_channel": self._config.channel("insert"),
            "beat_channel": self._config.channel("actors"),
            "beat": None if beat is None else encode(beat),
        }
        # Doing it twice does no harm, also if the first COMMIT was not answered: what is staged
        # is staged, and all queues are told anyway.
        ((leads,),), *found = self._repo.message(
            [statement, *statements], values, attempts=2, durable=False
        )
        if leads != "yes":
            return StageResult(leader=False)
        done, queues = read_pass(found)
        self._read_clock(done)
        if queues:
            note_sent(self._config, "insert", [{"queue": queue} for queue in queues])
        if beat is not None:
            note_sent(self._config, "actors", [beat])
        return StageResult(True, tuple(done.jobs), tuple(queues), done.next_due_in)

    # Step by step

    def _by_steps(self, beat: Mapping[str, Any] | None, *, halving: bool) -> StageResult:
        unfit: list[int] = []

        def work(connection: sa.Connection) -> StageResult:
            unfit.clear()
            at = self._repo.now()
            if not holds_lease(connection, self._config, at):
                return StageResult(leader=False)
            if halving:
                done = self._stage_around(connection, at, unfit)
            else:
                aside = self._aside.ids(self._clock.monotonic())
                done = self._engine.stage_jobs(connection, self._limit, at, aside)
            self._read_clock(done)
            queues = self._tell(connection, beat)
            return StageResult(True, tuple(done.jobs), queues, done.next_due_in, tuple(unfit))

        # What a crash of the server undoes is due all the same, and whoever claims a job waits for
        # the disk, so also for what came before.
        return self._repo.transaction(work, attempts=2, idle_timeout=self._idle, durable=False)

    def _stage_around(
        self, connection: sa.Connection, at: datetime | None, unfit: list[int]
    ) -> StagedPass:
        # Smaller and smaller batches, until the row that makes them fail stands alone and is
        # left out; then larger ones again.
        staged: list[StagedJob] = []
        size = self._limit
        aside = self._aside.ids(self._clock.monotonic())
        while True:
            try:
                with connection.begin_nested():
                    done = self._engine.stage_jobs(connection, size, at, aside)
            except sa.exc.DBAPIError as error:
                if not is_of_a_row(error) or len(unfit) >= MOST_FAILING_ROWS:
                    raise
                if size > 1:
                    size //= 2
                elif (job_id := self._engine.first_due(connection, at, aside)) is not None:
                    self._set_aside(job_id, error)
                    unfit.append(job_id)
                    aside.append(job_id)
                continue
            staged += done.jobs
            room = self._limit - len(staged)
            if len(done.jobs) < size or room <= 0:
                return replace(done, jobs=staged)
            size = min(size * 2, room)

    def _set_aside(self, job_id: int, error: Exception) -> None:
        self._aside.add(job_id, self._clock.monotonic())
        logger.error("job %d can't be staged and is left out for a while: %s", job_id, error)

    def _tell(self, connection: sa.Connection, beat: Mapping[str, Any] | None) -> tuple[str, ...]:
        queues: Sequence[str] = self._engine.check_available(connection)
        if queues:
            payloads = [{"queue": queue} for queue in queues]
            self._publisher.publish(connection, "insert", payloads)
        if beat is not None:
            self._publisher.publish(connection, "actors", [beat])
        return tuple(queues)

    def _read_clock(self, done: StagedPass) -> None:
        self.database_clock.read(done.now, self._clock.monotonic())
