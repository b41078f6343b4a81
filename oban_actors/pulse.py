"""Pulse: one transaction per node every ten seconds, that proves the notifier and the cluster."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa

from oban_actors import telemetry
from oban_actors.actors import ActorError, Continue, GenServer, Reason, Sender, Timer
from oban_actors.announcing import Announcer
from oban_actors.backoff import jitter
from oban_actors.carrying import Cargo, Carry
from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.engines import BeatReport, JobEngine
from oban_actors.errors import DatabaseError
from oban_actors.messages import (
    Beat,
    CancelClaims,
    Dispatch,
    GetStatus,
    Listen,
    Notification,
    Reconnect,
    Reconnected,
    Refresh,
    Status,
    Switched,
)
from oban_actors.notifiers import Publisher, listen
from oban_actors.proof import Proof
from oban_actors.queues.heart import LOST_AFTER, cut_off
from oban_actors.queues.parts import LeftOver
from oban_actors.queues.roster import Roster
from oban_actors.repo import Repo

Rosters = Callable[[], list[Roster]]

logger = logging.getLogger("oban_actors")

PROOF_TIME = 5.0
"""Seconds within which a node's own ping must come back."""

LOST_BEATS = 4.5
"""Beats after which they are, where that is sooner; others wait for six."""

BEAT_TIME = 8.0
"""Seconds that a beat may take: a node whose beat hangs has to see in time that it is lost."""

FILE_TIME = 4.0
"""Seconds that a beat waits for an SQLite file that somebody keeps to himself, and then once more:
long enough to get it if others do, and both together as long as a beat may take."""

LISTEN_TIME = 2.0
"""Seconds that the first ping waits for the notifier to listen."""

SPREAD = 0.05
"""By what part a beat may come sooner, so that nodes which started together drift apart."""


@dataclass(slots=True)
class LastBeat:
    """When a node has beaten last: who succeeds a Pulse that crashed has to know.

    Attributes:
        at: seconds of the boot clock, counted from the first start until there is one; None before.

    """

    at: float | None = None


class Pulse(GenServer):
    """Pings through the database, and learns from what comes back.

    In the same transaction the node's producers show that they live, the claims in the table are
    compared with what really runs, and queues with available jobs are told. Who has to read about
    as often lets it carry that too.

    Mirrors `Oban.Sonar`: the same channel, the same payload. Beside it stands a ping of our
    own, in the same transaction, which names the process and not only the node.

    Args:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        publisher: how notifications are written in a transaction.
        rosters: gives what the queues of this node hold.
        last: the node's last beat, kept for a successor; a new one by default.
        announcer: the queues', which learns from the leader's beats; one of its own by default.

    """

    def __init__(
        self,
        config: Config,
        repo: Repo,
        engine: JobEngine,
        publisher: Publisher,
        rosters: Rosters = list,
        last: LastBeat | None = None,
        announcer: Announcer | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.repo = repo
        self.engine = engine
        self.publisher = publisher
        self.rosters = rosters
        self._last = last or LastBeat()
        self._announcer = announcer or Announcer(config, publisher)
        # Also its successor's, which hears a ping that was committed before a crash.
        self.proof = Proof(config.identity)
        self._cargo = Cargo()
        self._status: Status = "unknown"
        self._timer: Timer | None = None
        self._judging: Timer | None = None
        self._failing = False
        self._told_lost = False
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Put the first beat off, so that a slow database delays nobody's start."""
        self._thread = threading.get_ident()
        if self._last.at is None:
            self._last.at = self.runtime.clock.boottime()
        return Continue()

    def handle_continue(self, arg: Any) -> None:
        """Listen first, then ping."""
        channels = ["actors", "sonar"]
        listen(self, channels)
        try:
            self.ask("notifier", Listen(channels, self.actor_ref), timeout=LISTEN_TIME)
        except ActorError as error:
            logger.debug("pinging before the notifier listens: %s", error)
        self._beat()

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Beat, or tell the status."""
        match message:
            case Beat():
                self._beat()
                return None
            case GetStatus():
                return self._status
            case _:
                return super().handle_call(message, sender)

    def handle_info(self, message: Any) -> None:
        """Beat, hear a ping, judge the last one."""
        match message:
            case Beat():
                self._beat()
            case Reconnected():
                self._announcer.forget()
                self._beat()
            case Notification("actors", payload):
                self._announcer.hear(payload)
                self._hear(payload.get("token"))
            case Notification("sonar", payload):
                self._hear_foreign(payload.get("node"))
            case Carry():
                self._cargo.add(message)
            case _Judge():
                self._judge()
            case _:
                super().handle_info(message)

    def terminate(self, reason: Reason) -> None:
        """Cancel the timers."""
        for timer in (self._timer, self._judging):
            if timer is not None:
                timer.cancel()

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.repo.cancel(self._thread)

    # The beat

    def _beat(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.send_after(
            Beat(), jitter(self.config.pulse.interval, mode="dec", mult=SPREAD)
        )
        rosters, cargo, self._cargo = self.rosters(), self._cargo, Cargo()
        # What runs is listed before the table is read: what is fetched meanwhile is not missed.
        running = {roster.queue: roster.running() for roster in rosters}
        # Counted from before it, as the others' clocks may have begun with its commit.
        began = self.runtime.clock.boottime()
        seconds = min(BEAT_TIME, self.config.statement_timeout)
        try:
            report = self.repo.transaction(
                partial(self._ping, rosters, cargo),
                attempts=1,
                statement_timeout=seconds,
                lock_timeout=FILE_TIME if self.repo.dialect == "sqlite" else None,
                vital=True,
                # What is carried reads rows of any writer.
                lenient=True,
            )
        except DatabaseError as error:
            self._unload(cargo, began, error)
            self._failed(error)
            return
        self._unload(cargo, began)
        self._failing = self._told_lost = False
        self._last.at = began
        self._compare(rosters, running, report)
        self._forget_ended(rosters)
        self.proof.sent()
        if self._judging is None or not self._judging.live:
            patience = min(PROOF_TIME, self.config.pulse.interval / 2)
            self._judging = self.send_after(_Judge(), patience)

    def _ping(self, rosters: list[Roster], cargo: Cargo, connection: sa.Connection) -> BeatReport:
        # Ours goes first: whoever hears a ping of Oban's right behind one of ours, from the
        # same session, knows that it isn't an Elixir node's.
        mine = {"name": self.config.name, "pulse": self.config.node, "token": self.proof.token}
        self.publisher.publish(connection, "actors", [mine])
        self.publisher.publish(connection, "sonar", [{"node": self.config.node, "ping": True}])
        beats = [roster.beat() for roster in rosters]
        report = self.engine.beat(connection, beats, self.repo.now())
        cargo.carry(connection, written=bool(beats))
        return report

    def _unload(self, cargo: Cargo, began: float, failure: DatabaseError | None = None) -> None:
        ended = self.runtime.clock.boottime()
        for ref, carried in cargo.unload(began, ended, failure):
            self.tell(ref, carried)

    def _failed(self, error: DatabaseError) -> None:
        if not self._failing:
            logger.warning("the pulse failed and will be tried again: %s", error)
        self._failing = True
        if not cut_off(self.repo.dialect, error):
            return
        lost_after = min(LOST_AFTER, LOST_BEATS * self.config.pulse.interval)
        if self.runtime.clock.boottime() - (self._last.at or 0.0) < lost_after:
            return
        # Others may take this node for dead soon, and run its jobs again.
        if not self._told_lost:
            logger.error("no beat for %g s: the jobs of this node are told to end", lost_after)
        self._told_lost = True
        for roster in self.rosters():
            lost = [claim for claim in roster.running() if _may_run_twice(claim)]
            if lost:
                self._lose(roster, CancelClaims(lost, "shutdown", lost=True))

    def _lose(self, roster: Roster, message: CancelClaims) -> None:
        if not self.tell(("foreman", roster.queue), message):
            # Its queue has ended, and what it has left goes on.
            self.tell("queues", message)

    def _compare(
        self, rosters: list[Roster], running: dict[str, list[Claim]], report: BeatReport
    ) -> None:
        for roster in rosters:
            uuid = roster.claimant.uuid
            table = {(c.job_id, c.attempted_at) for c in report.claims if c.uuid == uuid}
            lost = [c for c in running[roster.queue] if (c.id, c.attempted_at) not in table]
            lost = [claim for claim in lost if claim.ack is None and not claim.running.completed]
            lost = [claim for claim in lost if _may_run_twice(claim)]
            if lost:
                ids = [claim.id for claim in lost]
                # What a cancel says comes after its commit, and so perhaps after this beat.
                said = "jobs were cancelled, or taken from this node, and are told to end: %s"
                logger.warning(said, ids)
                self._lose(roster, CancelClaims(lost, "cancelled", lost=True))
            held = {claim.id for claim in roster.held()}
            if roster.left_over:
                self.tell("queues", LeftOver(roster.queue))
            elif any(job_id not in held for job_id, _ in table):
                # The producer looks again, between two fetches, before it gives any back.
                self.tell(("producer", roster.queue), Refresh())
            elif roster.queue in report.busy:
                self.tell(("producer", roster.queue), Dispatch())

    def _forget_ended(self, rosters: list[Roster]) -> None:
        # A queue that has ended meanwhile has removed its row, and this beat brought it back.
        ended = [r for r in rosters if not (r.active or r.held() or r.unsure)]

        def forget(connection: sa.Connection) -> None:
            for roster in ended:
                self.engine.forget_producer(connection, roster.claimant)

        if ended:
            try:
                self.repo.transaction(forget, attempts=1, statement_timeout=BEAT_TIME)
            except DatabaseError as error:
                logger.debug("rows of ended producers stay for others to remove: %s", error)

    def _hear(self, token: object) -> None:
        if isinstance(token, str):
            self.proof.heard(token, self.runtime.clock.monotonic())
            self._settle()

    def _hear_foreign(self, node: object) -> None:
        # Our own node's name is no proof of anybody else: the announcement beside it is.
        if isinstance(node, str) and node != self.config.node:
            self.proof.heard(f"node:{node}", self.runtime.clock.monotonic())
            self._settle()

    def _judge(self) -> None:
        if self.proof.judge():
            logger.warning("a ping through the database did not come back; listening anew")
            self.tell("notifier", Reconnect())
        self._settle()

    def _settle(self) -> None:
        status = self.proof.status(self.runtime.clock.monotonic())
        if status != self._status:
            self._status = status
            telemetry.execute("oban.notifier.switch", {}, {"conf": self.config, "status": status})
            self.tell("stager", Switched(status))


def _may_run_twice(claim: Claim) -> bool:
    """Whether a run goes on, once others may take its job, that nobody was told of for that yet."""
    # One that somebody has cancelled was not taken from here, and nobody else runs it; one out of
    # time is ended for that.
    return not claim.lost and claim.running.reason in (None, "shutdown")


@dataclass(frozen=True, slots=True)
class _Judge:
    """The last ping has had its time."""
