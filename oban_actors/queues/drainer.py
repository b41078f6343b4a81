"""Drainer: runs a queue's jobs in the thread that asks for it, until none is left."""

import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from oban_actors import engines, job_events, telemetry
from oban_actors.actors.clock import real_monotonic
from oban_actors.caller_run import CallerRun
from oban_actors.claim import Claim, Claimant
from oban_actors.errors import DatabaseError
from oban_actors.job import JobState
from oban_actors.queues.claims import claims_of
from oban_actors.queues.heart import LOST_AFTER, Heart, cut_off
from oban_actors.queues.parts import Parts
from oban_actors.queues.roster import producer_uuid
from oban_actors.repo.times import parameter, to_text

logger = logging.getLogger("oban_actors")

ALL = 2**31 - 1
"""The limit of a fetch without one."""

WATCH = 1.0
"""Seconds between two looks at whether the job that runs is still the drain's."""

BEAT_TIME = 8.0
"""Seconds that a beat beside a job may take."""

EXECUTING = str(JobState.EXECUTING)

_STAGE = """
UPDATE {jobs} SET state = 'available'
WHERE queue = :queue AND state IN ('scheduled', 'retryable') AND {due}
"""
_DUE = {
    "postgresql": "scheduled_at <= :until",
    # Other writers give fewer digits, or a blank before the time of day.
    "sqlite": "rtrim(replace(scheduled_at, ' ', 'T'), 'Z') <= rtrim(:until, 'Z')",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCounts:
    """How many jobs of a drained queue met which end.

    Attributes:
        cancelled: whose worker said `Cancel`, or that were cancelled before they ended.
        discard: failed for the last time.
        failure: failed and to be tried again.
        snoozed: put off by their worker.
        success: completed.

    """

    cancelled: int = 0
    discard: int = 0
    failure: int = 0
    snoozed: int = 0
    success: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainTerms:
    """What of a queue is drained, and how.

    Attributes:
        queue: its name.
        limit: most jobs that are claimed at once; None: all that there are.
        recursion: whether jobs that come meanwhile are run too.
        safety: whether a worker's error only counts; it is raised otherwise.
        scheduled: whether jobs that are not due are run too, or until when they have to be.

    """

    queue: str
    limit: int | None = None
    recursion: bool = False
    safety: bool = True
    scheduled: bool | datetime = False


class Drainer:
    """One drain of a queue: a producer without a tree. Mirrors `Oban.Queue.Drainer`.

    It claims by the statements that all producers use, under an identity of its own, so it can
    do so beside them. Each job is acknowledged when it ends, fenced as always. However long a job
    takes, the drain shows meanwhile that it lives, and a job that was taken from it is told to end.

    Args:
        parts: what all queues of an instance share.
        terms: what is drained.

    """

    def __init__(self, parts: Parts, terms: DrainTerms) -> None:
        self.parts = parts
        self.terms = terms
        self.claimant = Claimant(parts.config.node, producer_uuid())
        self._claim: Claim | None = None
        self._counts: dict[str, int] = asdict(DrainCounts())
        self._beaten_at = real_monotonic()
        self._cut = False

    def drain(self) -> DrainCounts:
        """Run the jobs one after another.

        Raises:
            BaseException: without safety what a worker raised. Its job is recorded as failed
                before, and those claimed with it are given back.
            DatabaseError: the database failed; what was claimed is given back where that is
                possible.

        """
        repo = self.parts.repo
        try:
            interval = min(WATCH, self.parts.config.pulse.interval)
            with Heart(interval, self._pulse, repo.cancel):
                while self._pass() and self.terms.recursion:
                    pass
        except BaseException:
            self._give_back()
            raise
        if self._cut:
            self._give_back()
        else:
            self._forget()
        return DrainCounts(**self._counts)

    def _pass(self) -> bool:
        """Run what there is now; False when that was nothing."""
        if self.terms.scheduled is not False:
            self._transaction(self._stage)
        turn = self._fetch()
        claims = claims_of(turn.fetched, self.parts.completer)
        state: str | None = EXECUTING
        for claim, after in zip_longest(claims, claims[1:]):
            if state == EXECUTING:
                state = self._run(claim, after)
            else:
                # One that ran before it may have cancelled it.
                self._note_taken(claim, state)
                state = self._look(after)
        return bool(claims)

    def _run(self, claim: Claim, after: Claim | None) -> str | None:
        """Run one, and give the state of the one after it."""
        run = CallerRun(self.parts.config)
        self._claim = claim
        run.run(claim)
        self._claim = None
        state = self._acknowledge(claim, run, after)
        if isinstance(run.cause, KeyboardInterrupt):
            raise run.cause  # whoever drains wants to end
        if claim.error is not None and claim.verdict in ("failure", "discard"):
            if not self.terms.safety and not isinstance(run.cause, engines.UnreadableRow):
                raise claim.error
            # What it holds of the run's frames is no longer needed.
            claim.error = None
        return state

    # Statements

    def _stage(self, connection: sa.Connection) -> None:
        repo, terms = self.parts.repo, self.terms
        until = terms.scheduled if isinstance(terms.scheduled, datetime) else _LATEST
        jobs = "oban_jobs"
        if repo.dialect == "postgresql":
            schema = connection.dialect.identifier_preparer.quote(repo.config.prefix)
            jobs = f"{schema}.oban_jobs"
        statement = sa.text(_STAGE.format(jobs=jobs, due=_DUE[repo.dialect]))
        values = {"queue": terms.queue, "until": parameter(repo.dialect, until)}
        connection.execute(statement, values)

    def _fetch(self) -> engines.Turn:
        engine, queue, tries = self.parts.engine, self.terms.queue, 0

        def work(connection: sa.Connection) -> engines.Turn:
            nonlocal tries
            tries += 1
            now = self.parts.repo.now()
            if tries > 1:
                # The answer may have been lost, not the claims.
                engine.release_jobs(connection, self.claimant, queue, [], now)
            self._beat(connection)
            limit = self.terms.limit or ALL
            return engine.take_turn(connection, self.claimant, queue, [], limit, now)

        turn: engines.Turn = self._transaction(work)
        return turn

    def _acknowledge(self, claim: Claim, run: CallerRun, after: Claim | None) -> str | None:
        ack, engine, queue = claim.ack, self.parts.engine, self.terms.queue
        if ack is None or claim.verdict is None:
            return self._look(after)
        now = self.parts.repo.now()
        # Who is told of the end may cancel the one after it.
        heard = any(map(telemetry.attached, job_events.ENDS))

        def work(connection: sa.Connection) -> tuple[engines.Turn, str | None, str | None]:
            turn = engine.take_turn(connection, self.claimant, queue, [ack], 0, now)
            own = self._state_under(claim, connection) if turn.stale else None
            return turn, own, None if heard else self._state_under(after, connection)

        turn: engines.Turn
        state: str | None
        turn, own, state = self._transaction(work)
        stale = claim.id in turn.stale
        if claim.id in turn.completed:
            run.completed(claim)
        elif claim.id in turn.recounted:
            run.recounted(claim)
        if stale:
            self._note_taken(claim, own)
        else:
            self._counts[claim.verdict] += 1
        run.tell_end(claim, stale=stale)
        return self._look(after) if heard else state

    def _look(self, claim: Claim | None) -> str | None:
        if claim is None:
            return None
        state: str | None = self._transaction(partial(self._state_under, claim))
        return state

    def _note_taken(self, claim: Claim, state: str | None) -> None:
        if state == "cancelled":
            self._counts["cancelled"] += 1
            return
        logger.warning(
            "job %d had been taken from its drain (%s): its row was left as it is",
            claim.id,
            claim.verdict or "not begun",
        )

    def _state_under(self, claim: Claim | None, connection: sa.Connection) -> str | None:
        """Give the state that a row has, None where that shows another claim or is gone."""
        found = claim and self.parts.engine.claim_of(connection, claim.id)
        return found[0] if claim and found and found[1] == to_text(claim.attempted_at) else None

    def _pulse(self) -> None:
        claim, began = self._claim, real_monotonic()
        try:
            report: engines.BeatReport = self.parts.repo.transaction(
                self._beat, attempts=1, statement_timeout=BEAT_TIME, vital=True, lenient=True
            )
        except DatabaseError as error:
            if cut_off(self.parts.repo.dialect, error):
                self._miss(claim)
            raise
        self._beaten_at = began
        if claim is None or claim.ack is not None:
            return
        if claim.running.completed or claim.running.cancelled:
            return
        if (claim.id, claim.attempted_at) not in {
            (c.job_id, c.attempted_at) for c in report.claims
        }:
            said = "job %d was cancelled, or taken from its drain, and is told to end"
            logger.warning(said, claim.id)
            claim.running.cancel("cancelled")

    def _miss(self, claim: Claim | None) -> None:
        """Others may take this drain for dead soon, and run its jobs again."""
        if real_monotonic() - self._beaten_at < LOST_AFTER or claim is None:
            return
        if claim.ack is None and not claim.running.cancelled:
            said = "no beat of a drain for %g s: job %d is told to end"
            logger.error(said, LOST_AFTER, claim.id)
            self._cut = True
            claim.running.cancel("shutdown")

    def _beat(self, connection: sa.Connection) -> engines.BeatReport:
        """Show that it lives, so that nobody takes its claims for a dead producer's."""
        config, limit = self.parts.config, self.terms.limit or ALL
        beat = engines.ProducerBeat(
            claimant=self.claimant,
            identity=config.identity,
            name=config.name,
            queue=self.terms.queue,
            limit=limit,
            paused=False,
            running=1,
        )
        return self.parts.engine.beat(connection, [beat], self.parts.repo.now())

    def _give_back(self) -> None:
        engine, queue = self.parts.engine, self.terms.queue
        try:
            self._transaction(
                lambda c: engine.release_jobs(c, self.claimant, queue, [], self.parts.repo.now())
            )
            self._forget()
        except DatabaseError as error:
            logger.warning("jobs of queue %s stay claimed, to be rescued: %s", queue, error)

    def _forget(self) -> None:
        self._transaction(lambda c: self.parts.engine.forget_producer(c, self.claimant))

    def _transaction(self, work: Any) -> Any:
        return self.parts.repo.transaction(work, lenient=True)


_LATEST = datetime(9999, 12, 31, tzinfo=UTC)
