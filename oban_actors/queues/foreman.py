"""Foreman: looks after the runs of a queue, their deadlines and their ends."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oban_actors.actors import GenServer, Reason, Timer
from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.engines import JobEngine
from oban_actors.errors import DatabaseError
from oban_actors.messages import CancelClaims, Dispatch, Watch
from oban_actors.queues.losses import Losses
from oban_actors.queues.workforce import Post
from oban_actors.repo import Repo
from oban_actors.running import EndReason

logger = logging.getLogger("oban_actors")

MARGIN = 1.0
"""Seconds that a run has to end in by itself, once its time is over or its claim lost."""

RECORD_TIME = 5.0
"""Seconds that recording a time-out's error may take; it is tried once."""

SILENCE = 30.0
"""Seconds after one that failed in which none is recorded at once, but when its job ends."""


@dataclass(frozen=True, slots=True, eq=False)
class _Overdue:
    """A run's time may be over.

    Attributes:
        last: whether it had its margin as well.

    """

    claim: Claim
    last: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Lost:
    """Runs whose jobs others may run have had their margin."""

    claims: Sequence[Claim]


class Foreman(GenServer):
    """Ends runs whose time is over, or that others want ended.

    The claims themselves stand in the roster, and those who run them are the post's: both are
    older than this actor and outlive it, so its crash ends no job.

    Args:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        post: the queue's roster and crews.

    """

    def __init__(self, config: Config, repo: Repo, engine: JobEngine, post: Post) -> None:
        super().__init__()
        self.config = config
        self.repo = repo
        self.engine = engine
        self.post = post
        self._losses = Losses(post, repo, engine)
        self._timers: dict[Claim, Timer] = {}
        self._thread = 0
        self._silent_until = 0.0

    # Callbacks

    def init(self) -> None:
        """Take up what runs already: the one before may have crashed."""
        self._thread = threading.get_ident()
        running = self.post.roster.running()
        for claim in running:
            if claim.running.deadline is not None and not claim.stuck:
                self._watch(claim)
        self._end_later([claim for claim in running if claim.lost])

    def handle_info(self, message: Any) -> None:
        """Watch a run, or end some."""
        match message:
            case Watch(claim):
                self._watch(claim)
            case _Overdue(claim, last):
                self._overdue(claim, last=last)
            case CancelClaims(claims, reason, lost=False):
                for claim in claims:
                    self._cancel(claim, reason)
            case CancelClaims(claims, reason):
                self._losses.tell(claims, reason)
                self._end_later(claims)
            case _Lost(claims):
                self._losses.end(claims)
            case _:
                super().handle_info(message)

    def terminate(self, reason: Reason) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.repo.cancel(self._thread)

    # Runs

    def _watch(self, claim: Claim) -> None:
        deadline = claim.running.deadline
        if deadline is not None and claim.ack is None:
            timers = self.runtime.timers
            self._timers[claim] = timers.send_at(self.actor_ref, _Overdue(claim), deadline)
        # Those that have ended in time are not told of one by one.
        if len(self._timers) > 2 * self.post.roster.limit + 100:
            self._forget_ended()

    def _forget_ended(self) -> None:
        # A timer keeps its claim, and so all that the job was given.
        for claim in [claim for claim in self._timers if claim.ack is not None]:
            self._timers.pop(claim).cancel()

    def _overdue(self, claim: Claim, *, last: bool) -> None:
        self._timers.pop(claim, None)
        # Without a deadline: it was to begin, and its executor refused it.
        if claim.ack is not None or claim.stuck or claim.running.deadline is None:
            return
        if not last:
            self._tell_overdue(claim)
            self._timers[claim] = self.send_after(_Overdue(claim, last=True), MARGIN)
        elif not self.post.abort(claim):
            self._stuck(claim)

    def _tell_overdue(self, claim: Claim) -> None:
        # It may have been told before, for another reason, and not have ended for that either.
        if not claim.running.cancelled:
            claim.running.cancel("timeout")
            self.post.interrupt(claim)
        elif claim.running.reason == "shutdown":
            claim.running.reason = "timeout"

    def _cancel(self, claim: Claim, reason: EndReason) -> None:
        if claim.ack is None:
            claim.running.cancel(reason)
            self.post.interrupt(claim)

    def _end_later(self, claims: Sequence[Claim]) -> None:
        if claims:
            self.send_after(_Lost(claims), MARGIN)

    def _stuck(self, claim: Claim) -> None:
        # Its row stays claimed until its thread ends, or the job would run twice at once.
        claim.recorded = claim.recorded or self._record(claim)
        if not self.post.roster.mark_stuck(claim):
            return
        logger.error(
            "job %d (%s) is out of time and goes on; %s",
            claim.id,
            claim.job.worker,
            self.post.place(claim),
        )
        self.tell(("producer", self.post.roster.queue), Dispatch())

    def _record(self, claim: Claim) -> bool:
        now = self.runtime.clock.monotonic()
        if now < self._silent_until:
            return False
        error = self.post.performer.timed_out(claim)
        claimant = self.post.roster.claimant
        try:
            return self.repo.transaction(
                lambda connection: self.engine.record_error(
                    connection, claimant, claim.id, claim.attempted_at, error
                ),
                idempotent=False,
                attempts=1,
                statement_timeout=RECORD_TIME,
            )
        except DatabaseError as failure:
            # Others wait to be told to end meanwhile, and not for a try of each that is stuck.
            self._silent_until = now + SILENCE
            logger.warning("a time-out is recorded later, when its job ends: %s", failure)
            return False
