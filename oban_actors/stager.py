"""Stager: makes due jobs available, and tells which queues have work."""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import ActorError, Continue, GenServer, Reason, Sender, Timer
from oban_actors.config import Config, StagerOptions
from oban_actors.engines import JobEngine
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
from oban_actors.passes import Passes, StageResult
from oban_actors.peers import Trouble, is_own, let_another_lead, row_identity
from oban_actors.repo import Repo
from oban_actors.staging import Outcome, Pace, staging_mode

logger = logging.getLogger("oban_actors")

SUCCESSOR_DELAY = 1.0
"""Seconds, at most, until the first pass of a Stager that follows one that crashed."""

FAR = 1e6
"""Seconds beyond which it does not matter when a job is due."""

MOMENT = 1e-6
"""Seconds until a job that has become due since it was looked at."""


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
        self.mode = "global"
        self._pace = Pace(options.interval)
        self._timer: Timer | None = None
        self._beat_at: float | None = None
        self._failing = False
        self._trouble = Trouble()
        self._status: Status = "unknown"
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Arm the timer: the first pass comes after one interval, a successor's soon."""
        self._thread = threading.get_ident()
        self._passes = Passes(
            self.config,
            self.repo,
            self.engine,
            self.publisher,
            self.options.limit,
            self.runtime.clock,
        )
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
            staged=result.staged_count > 0,
            full=result.full,
            failed=result.error is not None,
            next_due_in=self._due_in(result),
        )
        self._arm(self._pace.next_delay(outcome, self.runtime.clock.monotonic()))

    def _due_in(self, result: StageResult) -> float | None:
        # Counted from when it was read: the pass went on for as long as a job may be late.
        due, clock = result.next_due_in, self._passes.database_clock
        if due is None or due <= 0 or clock.latest is None:
            return due
        due_at = clock.shows_at(clock.latest + timedelta(seconds=min(due, FAR)))
        return max(due_at - self.runtime.clock.monotonic(), MOMENT)

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
            moment = None
        if moment is None or moment.tzinfo is None:
            logger.warning("dropped a notification with an unreadable due time: %r", due)
            return
        # Told of many, or of one that is put off by no time again and again, it keeps its pace.
        now = self.runtime.clock.monotonic()
        soonest = self._pace.soonest(now)
        clock = self._passes.database_clock
        if clock.latest is None:
            self._arm_sooner(soonest)
        else:
            self._arm_sooner(max(soonest, clock.shows_at(moment) - now))

    # A pass

    def _pass(self) -> StageResult:
        leads = self._leads()
        self._check_mode(leads=leads)
        about = {"conf": self.config, "plugin": type(self), "leader": leads}
        with telemetry.span("oban.plugin", about) as event:
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
            result = StageResult(leader=True, error=error)
        if result.error is not None:
            result = replace(result, queues=self._tell_anyway() or result.queues)
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
        now = self.runtime.clock.monotonic()
        beat = self._beat() if self._beat_due(now) else None
        result = self._passes.stage(beat)
        if beat is not None and result.leader:
            self._beat_at = now
        return result

    # Telling

    def _beat(self) -> dict[str, Any]:
        return {
            "name": self.config.name,
            "beat": row_identity(self.config),
            "next": self.options.interval,
        }

    def _beat_due(self, now: float) -> bool:
        if self.config.peer is None or self.config.peer.kind != "database":
            return False
        return self._beat_at is None or now - self._beat_at >= self.options.interval * 0.9

    def _tell_anyway(self) -> tuple[str, ...]:
        # Staging failed, but there may be available jobs that somebody could run.
        try:
            return self._passes.tell()
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
        # Where a trigger refuses each row that was tried, it may be this node that lacks a right.
        error = result.error or (None if result.staged else result.refusal)
        if error is None:
            self._trouble.worked()
        elif is_own(error) and self._trouble.failed():
            let_another_lead(self, "staging", error)

    def _note(self, error: DatabaseError | None) -> None:
        if error is not None and not self._failing:
            logger.warning("staging failed and will be tried again: %s", error)
        elif error is None and self._failing:
            logger.info("staging works again")
        self._failing = error is not None
