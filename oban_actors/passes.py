"""The Stager's pass: one transaction, that stages what is due and tells which queues have work."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from oban_actors.staging import DatabaseClock, SetAside, may_be_of_a_row

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
        full: whether it did as much as it may at once, so that more may be due.
        refusal: why the last of those that it set aside could not be staged.
        error: why the pass failed, None when it did not.

    """

    leader: bool
    staged: tuple[StagedJob, ...] = ()
    queues: tuple[str, ...] = ()
    next_due_in: float | None = None
    set_aside: tuple[int, ...] = ()
    full: bool = False
    refusal: DatabaseError | None = field(default=None, compare=False)
    error: DatabaseError | None = field(default=None, compare=False)

    @property
    def staged_count(self) -> int:
        """How many jobs were made available."""
        return len(self.staged)


@dataclass
class _Found:
    """What became of a pass around rows that are refused, so far.

    Attributes:
        latest: the try before.
        size: of the next batch.
        staged: the jobs made available.
        unfit: ids of those left out.
        refusal: why the last of these was refused.
        error: why it ended before its time.

    """

    latest: StageResult
    size: int
    staged: list[StagedJob] = field(default_factory=list)
    unfit: list[int] = field(default_factory=list)
    refusal: DatabaseError | None = None
    error: DatabaseError | None = None


class Passes:
    """Makes passes as the leader: no lease, no act.

    On PostgreSQL a pass is one message, with which its COMMIT goes: a round trip costs more than
    all else. Where that is not possible it goes step by step, by the same statements in the same
    order. Where a row is refused it is several transactions, so that a constraint which is only
    looked at by the COMMIT is found out as well, and what was staged stays so.

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
        self._batch = limit
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
            if result.error is not None:
                event.set(error=result.error)
        return result

    def _stage(self, beat: Mapping[str, Any] | None) -> StageResult:
        aside = self._aside.ids(self._clock.monotonic())
        try:
            if self._gate is not None and self._engine.pass_sql is not None:
                return self._in_one_message(self._gate, self._engine.pass_sql, aside, beat)
            return self._by_steps(self._limit, aside, beat=beat)
        except DatabaseError as error:
            if not may_be_of_a_row(error.__cause__):
                raise
        return self._around(aside, beat)

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
        aside: Sequence[int],
        beat: Mapping[str, Any] | None,
    ) -> StageResult:
        statement, lease = gate
        values = lease | {
            "now": parameter("postgresql", self._repo.now()),
            "limit": self._limit,
            "aside": aside,
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
        return self._result(done, tuple(queues))

    # Step by step

    def _by_steps(
        self,
        limit: int,
        aside: Sequence[int],
        *,
        tells: bool = True,
        beat: Mapping[str, Any] | None = None,
        tried: list[int] | None = None,
    ) -> StageResult:
        def work(connection: sa.Connection) -> StageResult:
            at = self._repo.now()
            if not holds_lease(connection, self._config, at):
                return StageResult(leader=False)
            if tried is not None:
                first = self._engine.first_due(connection, at, aside)
                tried[:] = [] if first is None else [first]
            done = self._engine.stage_jobs(connection, limit, at, aside)
            self._read_clock(done)
            return self._result(done, self._tell(connection, beat) if tells else ())

        # What a crash of the server undoes is due all the same, and whoever claims a job waits for
        # the disk, so also for what came before.
        return self._repo.transaction(work, attempts=2, idle_timeout=self._idle, durable=False)

    def _result(self, done: StagedPass, queues: tuple[str, ...]) -> StageResult:
        full = len(done.jobs) >= self._limit
        return StageResult(True, tuple(done.jobs), queues, done.next_due_in, full=full)

    # Around rows that are refused

    def _around(self, aside: list[int], beat: Mapping[str, Any] | None) -> StageResult:
        """Stage smaller and smaller batches, until the row that makes them fail stands alone.

        It is left out, and they get larger again. Who stopped early goes on as it left off.
        """
        # Without any row: what fails then, too, is of none.
        told = self._by_steps(0, aside, beat=beat)
        found, queues = _Found(told, self._batch), told.queues
        try:
            if told.leader:
                self._halve(found, aside)
            if found.staged:
                queues = self.tell()
        except DatabaseError as error:
            if not found.staged and not found.unfit:
                raise
            # What was done before it stays done.
            found.error = error
        early = len(found.unfit) >= MOST_FAILING_ROWS and not self._aside.full
        self._batch = found.size if early else self._limit
        return replace(
            found.latest,
            leader=told.leader,
            staged=tuple(found.staged),
            queues=queues,
            set_aside=tuple(found.unfit),
            full=early or len(found.staged) >= self._limit,
            refusal=found.refusal,
            error=found.error,
        )

    def _halve(self, found: "_Found", aside: list[int]) -> None:
        while len(found.unfit) < MOST_FAILING_ROWS:
            tried: list[int] | None = [] if found.size == 1 else None
            try:
                found.latest = self._by_steps(found.size, aside, tells=False, tried=tried)
            except DatabaseError as error:
                if not may_be_of_a_row(error.__cause__) or tried == []:
                    raise
                if tried:
                    found.refusal = error
                    self._set_aside(tried[0], error)
                    found.unfit += tried
                    aside += tried
                found.size = max(found.size // 2, 1)
                continue
            found.staged += found.latest.staged
            room = self._limit - len(found.staged)
            if found.latest.staged_count < found.size or room <= 0:
                return
            found.size = min(found.size * 2, room)

    def _set_aside(self, job_id: int, error: Exception) -> None:
        self._aside.add(job_id, self._clock.monotonic())
        logger.error("job %d can't be staged and is left out for a while: %s", job_id, error)

    # Telling

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
