"""Stager: makes due jobs available, and tells which queues have work."""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from oban_actors import telemetry
from oban_actors.actors import ActorError, Continue, GenServer, Reason, Sender, Timer
from oban_actors.config import Config, StagerOptions
from oban_actors.engines import JobEngine, StagedJob, StagedPass
from oban_actors.errors import DatabaseError
from oban_actors.messages import (
    GetStatus,
    IsLeader,
    Notification,
    Notify,
    Reconnected,
    Stage,
    Status,
    Switched,
)
from oban_actors.notifiers import Publisher, listen
from oban_actors.peers import (
    Trouble,
    duty_idle,
    holds_lease,
    is_own,
    let_another_lead,
    row_identity,
)
from oban_actors.repo import Repo
from oban_actors.staging import Outcome, Pace, SetAside, is_of_a_row, staging_mode

logger = logging.getLogger("oban_actors")

Staging = Callable[[sa.Connection, datetime | None, list[int]], StagedPass]

SUCCESSOR_DELAY = 1.0
"""Seconds, at most, until the first pass of a Stager that follows one that crashed."""

MOMENT = 1e-6
"""Seconds until a job that has become due since it was looked at."""

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


class Stager(GenServer):
    """Sends itself `Stage()`, asks the Peer whether it leads, stages, tells the Notifier.

    Mirrors `Oban.Stager`. Only the leader stages. A pass is one transaction: it begins by
    reading the lease, makes at most `limit` due jobs available, earliest first, and tells the
    queues with available jobs, delivered at its commit.

    Args:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        publisher: how notifications are written in a transaction.
        options: interval and limit.
        began: set once a Stager of this tree has run, so that a successor knows that it is one.

    """

    def __init__(
        self,
        config: Config,
        repo: Repo,
        engine: JobEngine,
        publisher: Publisher,
        options: StagerOptions,
        began: threading.Event,
    ) -> None:
        super().__init__()
        self.config = config
        self.repo = repo
        self.engine = engine
        self.publisher = publisher
        self.options = options
        self._began = began
        self._idle = duty_idle(config)
        self.mode = "global"
        self._pace = Pace(options.interval)
        self._aside = SetAside()
        self._timer: Timer | None = None
        self._beat_at: float | None = None
        self._database_time: tuple[datetime, float] | None = None
        self._failing = False
        self._trouble = Trouble()
        self._status: Status = "unknown"
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Arm the timer: the first pass comes after one interval, a successor's soon."""
        self._thread = threading.get_ident()
        # What the one before knew of due times went with it. Not at once: a pass that crashes
        # each time should not end the tree before anybody has read the log.
        successor = self._began.is_set()
        self._began.set()
        self._arm(min(self.options.interval, SUCCESSOR_DELAY if successor else math.inf))
        return Continue()

    def handle_continue(self, arg: Any) -> None:
        """Listen for jobs that will be due soon, and learn the cluster's status."""
        telemetry.execute("oban.plugin.init", {}, {"conf": self.config, "plugin": type(self)})
        listen(self, ["actors"])
        try:
            self._status = self.ask("pulse", GetStatus(), timeout=1.0)
        except ActorError:
            self._status = "unknown"

    def handle_info(self, message: Any) -> None:
        """Make a pass, or have the next one sooner."""
        match message:
            case Stage():
                self._timed_pass()
            case Notification("actors", payload):
                self._expect(payload)
            case Reconnected():
                self._arm_sooner(0.0)
            case Switched(status):
                self._status = status
            case _:
                super().handle_info(message)

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Make one pass and answer with its `StageResult`."""
        if not isinstance(message, Stage):
            return super().handle_call(message, sender)
        result = self._pass()
        due = self._due_in(result)
        if due is not None and due > 0:
            self._arm_sooner(due)
        return result

    def terminate(self, reason: Reason) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.repo.cancel(self._thread)

    # The timer

    def _timed_pass(self) -> None:
        # Armed first: whatever the pass runs into, there is a next one.
        self._arm(self.options.interval)
        result = self._pass()
        outcome = Outcome(
            led=result.leader,
            full=result.staged_count >= self.options.limit,
            failed=result.error is not None,
            next_due_in=self._due_in(result),
        )
        self._arm(self._pace.next_delay(outcome, self.runtime.clock.monotonic()))

    def _due_in(self, result: StageResult) -> float | None:
        # Counted from when it was read: the pass went on for as long as a job may be late.
        due = result.next_due_in
        if due is None or due <= 0 or self._database_time is None:
            return due
        _, read_at = self._database_time
        return max(due - (self.runtime.clock.monotonic() - read_at), MOMENT)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.send_after(Stage(), seconds)

    def _arm_sooner(self, seconds: float) -> None:
        due = self.runtime.clock.monotonic() + seconds
        if self._timer is None or not self._timer.live or due < self._timer.due:
            self._arm(seconds)

    def _expect(self, payload: Mapping[str, Any]) -> None:
        due = payload.get("due")
        if payload.get("name") != self.config.name or not isinstance(due, str):
            return
        try:
            moment = datetime.fromisoformat(due)
        except ValueError:
            logger.warning("dropped a notification with an unreadable due time: %r", due)
            return
        # Told of many, or of one that is put off by no time again and again, it keeps its pace.
        now = self.runtime.clock.monotonic()
        soonest = self._pace.soonest(now)
        if self._database_time is None:
            self._arm_sooner(soonest)
            return
        then, at = self._database_time
        self._arm_sooner(max(soonest, (moment - then).total_seconds() - (now - at)))

    # A pass

    def _pass(self) -> StageResult:
        leads = self._leads()
        self._check_mode(leads=leads)
        with telemetry.span("oban.plugin", {"conf": self.config, "plugin": type(self)}) as event:
            result = self._lead() if leads else self._follow()
            event.set(
                leader=result.leader,
                staged_count=result.staged_count,
                staged_jobs=result.staged,
            )
            if result.set_aside:
                event.set(set_aside=result.set_aside)
            if result.error is not None:
                event.set(error=result.error)
        self._note(result.error)
        self._mind(result)
        return result

    def _leads(self) -> bool:
        try:
            return self.ask("peer", IsLeader()) is True
        except ActorError as error:
            logger.debug("no answer from the peer, so no staging: %s", error)
            return False

    def _lead(self) -> StageResult:
        try:
            result = self._stage()
        except DatabaseError as error:
            result = StageResult(leader=True, error=error, queues=self._tell_anyway())
        self._tell_locally(result.queues)
        return result

    def _follow(self) -> StageResult:
        # Without a working notifier nobody else tells the queues of this node.
        if self.mode != "local" or not self._local_producers():
            return StageResult(leader=False)
        try:
            queues = tuple(self.repo.transaction(self.engine.check_available, read_only=True))
        except DatabaseError as error:
            return StageResult(leader=False, error=error)
        self._tell_locally(queues)
        return StageResult(leader=False, queues=queues)

    def _stage(self) -> StageResult:
        try:
            return self._stage_with(self._stage_at_once)
        except DatabaseError as error:
            if not is_of_a_row(error.__cause__):
                raise
        return self._stage_with(self._stage_around)

    def _stage_with(self, stage: Staging) -> StageResult:
        now = self.runtime.clock.monotonic()
        beat = self._beat_due(now)
        unfit: list[int] = []

        def work(connection: sa.Connection) -> StageResult:
            unfit.clear()
            at = self.repo.now()
            if not holds_lease(connection, self.config, at):
                return StageResult(leader=False)
            done = stage(connection, at, unfit)
            self._database_time = (done.now, self.runtime.clock.monotonic())
            queues = tuple(self.engine.check_available(connection))
            self._publish(connection, queues, beat=beat)
            return StageResult(True, tuple(done.jobs), queues, done.next_due_in, tuple(unfit))

        # What a crash of the server undoes is due all the same, and whoever claims a job waits for
        # the disk, so also for what came before.
        result = self.repo.transaction(work, attempts=2, idle_timeout=self._idle, durable=False)
        if beat and result.leader:
            self._beat_at = now
        return result

    def _stage_at_once(
        self,
        connection: sa.Connection,
        at: datetime | None,
        unfit: list[int],
    ) -> StagedPass:
        aside = self._aside.ids(self.runtime.clock.monotonic())
        return self.engine.stage_jobs(connection, self.options.limit, at, aside)

    def _stage_around(
        self, connection: sa.Connection, at: datetime | None, unfit: list[int]
    ) -> StagedPass:
        # Smaller and smaller batches, until the row that makes them fail stands alone and is
        # left out; then larger ones again.
        staged: list[StagedJob] = []
        size = self.options.limit
        aside = self._aside.ids(self.runtime.clock.monotonic())
        while True:
            try:
                with connection.begin_nested():
                    done = self.engine.stage_jobs(connection, size, at, aside)
            except sa.exc.DBAPIError as error:
                if not is_of_a_row(error) or len(unfit) >= MOST_FAILING_ROWS:
                    raise
                if size > 1:
                    size //= 2
                elif (job_id := self.engine.first_due(connection, at, aside)) is not None:
                    self._set_aside(job_id, error)
                    unfit.append(job_id)
                    aside.append(job_id)
                continue
            staged += done.jobs
            room = self.options.limit - len(staged)
            if len(done.jobs) < size or room <= 0:
                return replace(done, jobs=staged)
            size = min(size * 2, room)

    def _set_aside(self, job_id: int, error: Exception) -> None:
        self._aside.add(job_id, self.runtime.clock.monotonic())
        logger.error("job %d can't be staged and is left out for a while: %s", job_id, error)

    # Telling

    def _publish(
        self, connection: sa.Connection, queues: Sequence[str], *, beat: bool = False
    ) -> None:
        if queues:
            self.publisher.publish(connection, "insert", [{"queue": queue} for queue in queues])
        if beat:
            payload = {
                "name": self.config.name,
                "beat": row_identity(self.config),
                "next": self.options.interval,
            }
            self.publisher.publish(connection, "actors", [payload])

    def _beat_due(self, now: float) -> bool:
        if self.config.peer is None or self.config.peer.kind != "database":
            return False
        return self._beat_at is None or now - self._beat_at >= self.options.interval * 0.9

    def _tell_anyway(self) -> tuple[str, ...]:
        # Staging failed, but there may be available jobs that somebody could run.
        def work(connection: sa.Connection) -> tuple[str, ...]:
            if not holds_lease(connection, self.config, self.repo.now()):
                return ()
            queues = tuple(self.engine.check_available(connection))
            self._publish(connection, queues)
            return queues

        try:
            return self.repo.transaction(work, attempts=1, idle_timeout=self._idle)
        except DatabaseError as error:
            logger.debug("queues could not be told: %s", error)
            return ()

    def _tell_locally(self, queues: Sequence[str]) -> None:
        if not queues:
            return
        if self.mode == "local":
            for queue in queues:
                self.tell(("producer", queue), Notification("insert", {"queue": queue}))
        else:
            payloads = tuple({"queue": queue} for queue in queues)
            self.tell("notifier", Notify("insert", payloads, published=True))

    def _local_producers(self) -> bool:
        names = self.runtime.registry.names()
        return any(isinstance(name, tuple) and name[0] == "producer" for name in names)

    # Mode and health

    def _check_mode(self, *, leads: bool) -> None:
        mode = staging_mode(self._status, self.mode, leads=leads)
        if mode != self.mode:
            self.mode = mode
            telemetry.execute("oban.stager.switch", {}, {"conf": self.config, "mode": mode})

    def _mind(self, result: StageResult) -> None:
        """Let another node lead, if there is one, where this one lacks what staging takes."""
        if not result.leader:
            return
        if result.error is None:
            self._trouble.worked()
        elif is_own(result.error) and self._trouble.failed():
            let_another_lead(self, "staging", result.error)

    def _note(self, error: DatabaseError | None) -> None:
        if error is not None and not self._failing:
            logger.warning("staging failed and will be tried again: %s", error)
        elif error is None and self._failing:
            logger.info("staging works again")
        self._failing = error is not None
