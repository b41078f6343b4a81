"""Producer: fetches a queue's jobs, hands them out, and acknowledges those that have ended."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from oban_actors import engines
from oban_actors.actors import ActorError, Continue, GenServer, Reason, Sender, Timer, send
from oban_actors.actors.clock import real_monotonic
from oban_actors.config_options import positive
from oban_actors.errors import ConfigError, DatabaseError
from oban_actors.messages import (
    CancelClaims,
    Check,
    Dispatch,
    Listen,
    Notification,
    QueueView,
    Reconnected,
    Refresh,
    Shutdown,
)
from oban_actors.notifiers import listen
from oban_actors.queues.claims import claims_of
from oban_actors.queues.parts import Drained, Parts
from oban_actors.queues.rhythm import Idle, Rhythm, Turn, Wait, share
from oban_actors.queues.turning import Turns
from oban_actors.queues.workforce import Post
from oban_actors.repo.times import to_text

logger = logging.getLogger("oban_actors")

CHANNELS = ("insert", "signal")

LISTEN_TIME = 2.0
"""Seconds that the first look waits for the notifier to listen."""

BLOCKED_DELAY = 0.5
"""Seconds until a row that was locked by somebody is tried again."""

REFUSED_DELAY = 60.0
"""Seconds until a row that the database refuses to change is tried again."""

STARVED_DELAY = 1.0
"""Seconds until those that run jobs are woken again, where they got no thread or executor."""

LAST_TIME = 5.0
"""Seconds within which the last acknowledgements are written when the queue ends."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """Jobs have ended."""


@dataclass(frozen=True, slots=True)
class _Unblock:
    """Rows that were locked are worth another try, threads and executors that refused."""


@dataclass(frozen=True, slots=True)
class _GraceOver:
    """The queue ends, and its jobs have had the time that they are given."""


@dataclass(frozen=True, slots=True)
class _Again:
    """Look whether another turn is due."""


class Producer(GenServer):
    """Takes turns: each one transaction, that writes what has ended and claims what there is.

    What it knows of claims stands in the roster, so that its successor goes on where it crashed.
    Mirrors `Oban.Queue.Producer`.

    Args:
        parts: what all queues of an instance share.
        post: the queue's roster and crews.
        cooldown: seconds between two looks for jobs.

    """

    def __init__(self, parts: Parts, post: Post, cooldown: float) -> None:
        super().__init__()
        self.parts = parts
        self.config = parts.config
        self.post = post
        self.roster = post.roster
        self.queue = post.roster.queue
        self._rhythm = Rhythm(0.0 if self.config.clock.virtual else cooldown)
        self._turns = Turns(parts, self.roster, released=self._rhythm.feed)
        self._pending = False
        self._failing = False
        self._timer: Timer | None = None
        self._retry: Timer | None = None
        self._grace: Timer | None = None
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Take up what the one before left; the database comes later."""
        self._thread = threading.get_ident()
        self._process.note = self.roster.summary
        self.roster.restore()
        self.post.forget_unhanded()
        self.roster.ended = lambda: send(self.actor_ref, _Ended())
        self.roster.active = True
        listen(self, CHANNELS)
        return Continue()

    def handle_continue(self, arg: Any) -> None:
        """Subscribe first, then look."""
        try:
            self.ask("notifier", Listen(CHANNELS, self.actor_ref), timeout=LISTEN_TIME)
        except ActorError as error:
            logger.debug("the first look comes before the notifier listens: %s", error)
        self._wake()
        if self.roster.shutdown_at is not None:
            self._shut_down()
        self._go()

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Dispatch, or tell how the queue stands."""
        match message:
            case Check():
                return self._view()
            case Dispatch() | Refresh():
                self.handle_info(message)
                return None
            case _:
                return super().handle_call(message, sender)

    def handle_info(self, message: Any) -> None:
        """Take a turn when there is a reason to."""
        match message:
            case _Ended():
                pass
            case Dispatch():
                self._rhythm.feed()
            case Notification("insert", payload):
                if payload.get("queue") != self.queue:
                    return
                self._rhythm.feed()
            case Notification("signal", payload):
                self._signal(payload)
            case Reconnected() | Refresh():
                self._turns.unsure = True
                self._rhythm.feed()
            case Shutdown() | _GraceOver():
                self._end(message)
            case _Unblock():
                self.roster.unblock()
                self._wake()
            case _Again():
                self._pending = False
            case _:
                super().handle_info(message)
                return
        self._go()

    def terminate(self, reason: Reason) -> None:
        """Write what has ended, when the queue ends; a successor does so otherwise."""
        for timer in (self._timer, self._retry, self._grace):
            if timer is not None:
                timer.cancel()
        # The roster outlives this actor, and must not keep it.
        self.roster.ended = None
        if self.roster.shutdown_at is not None:
            self._finish()

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.parts.repo.cancel(self._thread)

    # Turns

    def _go(self) -> None:
        if self._pending:
            return
        roster = self.roster
        now = self.runtime.clock.monotonic()
        none = roster.paused or self.post.refuses
        demand = 0 if none else min(roster.demand, share(roster.limit))
        unwritten, unsure = roster.unwritten, self._turns.unsure
        match self._rhythm.next(now, unwritten=unwritten, demand=demand, unsure=unsure):
            case Turn(limit):
                self._turn(limit)
                # By message, so that signals and questions get in between.
                self._pending = True
                send(self.actor_ref, _Again())
            case Wait(seconds):
                self._timer = self._sooner(self._timer, _Ended(), seconds)
            case Idle():
                if roster.shutdown_at is not None and not roster.held():
                    self.tell("queues", Drained(self.queue))

    def _sooner(self, timer: Timer | None, message: object, seconds: float) -> Timer:
        """Have one timer for a message, due as soon as anybody wants it."""
        if timer is not None and timer.live:
            if timer.due <= self.runtime.clock.monotonic() + seconds:
                return timer
            timer.cancel()
        return self.send_after(message, seconds)

    def _turn(self, limit: int) -> bool:
        taken = self.roster.take()
        try:
            acks = [claim.ack for claim in taken if claim.ack is not None]
            turn = self._turns.take(acks, limit)
        except DatabaseError as error:
            self.roster.restore()
            self._rhythm.failed(self.runtime.clock.monotonic())
            self._note(error)
            return False
        self._note(None)
        self._settle(turn)
        got = self._start(turn)
        self._rhythm.worked(self.runtime.clock.monotonic(), asked=limit, got=got)
        if got and self._rhythm.waits(self.roster.unwritten, demand=self.roster.demand, got=got):
            time.sleep(0)  # noqa: TID251 (it lets other threads run and waits for nothing)
        return True

    def _settle(self, turn: engines.Turn) -> None:
        over = self.roster.settle(turn.blocked, turn.left)
        if turn.blocked:
            refused = turn.blocked <= self._turns.refused
            self._try_again(REFUSED_DELAY if refused else BLOCKED_DELAY)
        for claim in over:
            stale = claim.id in turn.stale
            if claim.id in turn.completed:
                self.post.performer.completed(claim)
            elif claim.id in turn.recounted:
                self.post.performer.recounted(claim)
            if stale:
                logger.warning(
                    "job %d was cancelled, or taken from this node, before it ended (%s): its row "
                    "was left as it is",
                    claim.id,
                    claim.verdict,
                )
            self.post.performer.tell_end(claim, stale=stale)

    def _start(self, turn: engines.Turn) -> int:
        claims = claims_of(turn.fetched, self.parts.completer)
        self.roster.hold(claims)
        self.post.add(claims)
        self._wake_again()
        return len(claims)

    def _wake(self) -> None:
        self.post.wake()
        self._wake_again()

    def _wake_again(self) -> None:
        if self.post.starved:
            self._try_again(STARVED_DELAY)
        if self.post.give_up():
            # Other nodes may have who takes it.
            self._turns.unsure = self._turns.unbegun = self.roster.unsure = True

    def _try_again(self, seconds: float) -> None:
        self._retry = self._sooner(self._retry, _Unblock(), seconds)

    def _note(self, error: DatabaseError | None) -> None:
        if error is not None and not self._failing:
            logger.warning("queue %s can't reach the database: %s", self.queue, error)
        elif error is None and self._failing:
            logger.info("queue %s reaches the database again", self.queue)
        self._failing = error is not None

    # Signals

    def _signal(self, payload: Mapping[str, Any]) -> None:
        action = payload.get("action")
        if action == "pkill":
            self._kill(payload.get("job_id"), payload.get("attempted_at"))
            return
        if payload.get("queue") not in (self.queue, "*") or self.roster.shutdown_at is not None:
            return
        match action:
            case "pause":
                self.roster.paused = True
            case "resume":
                self.roster.paused = False
                self._rhythm.feed()
            case "scale":
                self._scale(payload.get("limit"))
            case _:
                return
        self.roster.updated_at = self.config.clock.now()

    def _scale(self, limit: object) -> None:
        try:
            self.roster.limit = positive("limit", limit)
        except ConfigError as error:
            logger.warning("queue %s can't be scaled as a signal says: %s", self.queue, error)
            return
        self._rhythm.feed()

    def _kill(self, job_id: object, claimed_at: object) -> None:
        claims = self.roster.find(job_id) if type(job_id) is int else []
        if isinstance(claimed_at, str):
            # Elixir's signals don't say it, and mean whichever run there is.
            claims = [claim for claim in claims if to_text(claim.attempted_at) == claimed_at]
        if claims:
            self.tell(("foreman", self.queue), CancelClaims(claims, "cancelled"))

    def _view(self) -> QueueView:
        roster, ending_since = self.roster, self.roster.shutdown_started_at
        return QueueView(
            queue=self.queue,
            name=self.config.name,
            node=self.config.node,
            uuid=roster.claimant.uuid,
            limit=roster.limit,
            paused=roster.paused,
            running=tuple(sorted(claim.id for claim in roster.running())),
            stuck=tuple(sorted(claim.id for claim in roster.stuck())),
            unwritten=roster.waiting,
            started_at=roster.started_at,
            updated_at=roster.updated_at,
            shutting_down=ending_since is not None,
            shutdown_started_at=ending_since,
        )

    # The end

    def _end(self, message: Shutdown | _GraceOver) -> None:
        if isinstance(message, Shutdown):
            self._shut_down()
        else:
            self._cut_off()

    def _shut_down(self) -> None:
        self.roster.begin_shutdown()
        # What nobody has begun is for other nodes.
        if self.post.take_back():
            self._turns.unsure = self.roster.unsure = True
        if self._grace is None:
            self._grace = self.send_after(_GraceOver(), self.config.shutdown_grace_period)

    def _cut_off(self) -> None:
        # The Watchman would do so too, but one after the other: each waits for its own queue.
        untold = [each for each in self.roster.running() if not each.running.cancelled]
        if untold:
            self.tell(("foreman", self.queue), CancelClaims(untold, "shutdown"))

    def _finish(self) -> None:
        roster, turns = self.roster, self._turns
        # A turn that crashed has left what it took.
        roster.restore()
        turns.seconds = LAST_TIME
        until = real_monotonic() + LAST_TIME
        # What was cut off without having come to anything is given back too, as is what nobody
        # has begun; what still runs is held and stays claimed.
        if self.post.take_back() or roster.unsure or roster.unreleased:
            roster.unsure, turns.unsure = False, True
        worked = True
        # Once at least: that the turn before failed says nothing of now.
        while worked and (roster.unwritten or turns.unsure):
            worked = self._turn(0) and real_monotonic() < until
        # Whoever ends meanwhile with nothing to write says so too: it is not taken back here.
        if turns.unsure or roster.unreleased:
            roster.unsure = True
        roster.active = False
        if roster.held() or not worked:
            return
        try:
            self.parts.repo.transaction(
                lambda connection: self.parts.engine.forget_producer(connection, roster.claimant),
                attempts=1,
                statement_timeout=LAST_TIME,
            )
        except DatabaseError as error:
            logger.debug("the producer's row stays for others to remove: %s", error)
