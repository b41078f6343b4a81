"""A Producer's turns: each one transaction, that writes what has ended and claims what there is."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import sqlalchemy as sa

from oban_actors import telemetry
from oban_actors.actors.clock import real_monotonic
from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.errors import DatabaseError, DatabaseUnavailable, TransientError
from oban_actors.job import JobState
from oban_actors.queues.parts import Parts
from oban_actors.queues.roster import Roster
from oban_actors.queues.sieve import Sieve, by_savepoints, by_transactions
from oban_actors.repo.sqlstates import translate
from oban_actors.sifting import halve, in_savepoint, refuses_a_row

T = TypeVar("T")

logger = logging.getLogger("oban_actors")

TURN_TIME = 10.0
"""Seconds that the statement of a turn may take."""

LOCK_TIME = 1.0
"""Seconds that a turn waits for a row; then it leaves locked ones out."""

_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _GivenBack:
    """What became of claims that nobody holds.

    Attributes:
        released: ids of those that were given back.
        locked: ids of those that somebody else has locked.
        refused: ids of those that the database refuses, and why.
        left: ids of those that were not tried.
        cut: ids of all that had been interrupted.

    """

    released: Sequence[int]
    locked: Sequence[int]
    cut: frozenset[int]
    refused: Sequence[tuple[int, Exception]] = ()
    left: Sequence[int] = ()


class Turns:
    """Takes the turns of one queue.

    On PostgreSQL a turn is one message, with which its COMMIT goes. Where that is not possible,
    or went wrong, it goes step by step, by the same statements.

    Args:
        parts: what all queues of an instance share.
        roster: the queue's claims.
        released: called when claims that nobody knew of were given back.

    Attributes:
        seconds: that a statement of a turn may take.
        unsure: whether there may be claims in the table that the roster does not know of; the
            next turn gives them back.
        unbegun: whether that are such as nobody here began, and were let go of.
        refused: ids of jobs whose acknowledgement the database refuses, for as long as it does.

    """

    def __init__(self, parts: Parts, roster: Roster, released: Callable[[], object]) -> None:
        self._parts = parts
        self._repo = parts.repo
        self._engine = parts.engine
        self._roster = roster
        self._released = released
        self.seconds = TURN_TIME
        self.unsure = True
        self.unbegun = False
        self.refused: set[int] = set()
        self._unclaimable = False

    def take(self, acks: Sequence[Ack], limit: int) -> Turn:
        """Take one.

        Args:
            acks: what has ended.
            limit: how many jobs to claim at most.

        Raises:
            DatabaseError: it can't be taken now, or it was and its answer is lost.

        """
        names = {"conf": self._parts.config, "queue": self._roster.queue}
        with telemetry.span("oban.producer", names) as event:
            try:
                turn = self._take(acks, limit)
            except BaseException:
                # It may have been committed all the same, and its claims be known to nobody.
                self.unsure = True
                raise
            event.set(dispatched_count=len(turn.fetched.rows), settled_count=len(turn.settled))
        if self.refused:
            self.refused -= turn.settled | turn.stale
        return turn

    def _take(self, acks: Sequence[Ack], limit: int) -> Turn:
        try:
            turn = self._in_one_message(acks, limit)
            return self._by_steps(acks, limit, again=False) if turn is None else turn
        except DatabaseError as error:
            if not refuses_a_row(error):
                raise
            # A message may have claimed before the look at what it wrote was refused.
            self.unsure = True
        try:
            return self._sifted(acks, limit)
        except DatabaseError as error:
            if self._repo.dialect != "sqlite" or not refuses_a_row(error):
                raise
            # A trigger may have ended the whole transaction.
            return self._apart(acks, limit)

    def _sifted(self, acks: Sequence[Ack], limit: int) -> Turn:
        """Take it without what the database refuses."""
        tries: list[tuple[_GivenBack, Sieve]] = []
        claimant, queue, now = self._roster.claimant, self._roster.queue, self._repo.now()

        def work(connection: sa.Connection) -> Turn:
            def take(some: Sequence[Ack], few: int) -> Turn:
                return self._engine.take_turn(
                    connection, claimant, queue, some, few, now, careful=True
                )

            sieve = Sieve(take, by_savepoints(connection))
            sieve.look()
            tries.append((self._give_back_sifted(connection), sieve))
            turn = sieve.turn(acks, limit)
            self._tell_put_off(connection, acks, turn)
            return turn

        turn = self._transaction(work)
        given_back, sieve = tries[-1]
        self._note_given_back(given_back)
        self._tell_refused(sieve)
        return turn

    def _apart(self, acks: Sequence[Ack], limit: int) -> Turn:
        """Take it likewise, each part in a transaction of its own."""
        claimant, queue, now = self._roster.claimant, self._roster.queue, self._repo.now()

        def take(some: Sequence[Ack], few: int) -> Turn:
            def work(connection: sa.Connection) -> Turn:
                turn = self._engine.take_turn(
                    connection, claimant, queue, some, few, now, careful=True
                )
                self._tell_put_off(connection, some, turn)
                return turn

            return self._transaction(work)

        sieve = Sieve(take, by_transactions)
        sieve.look()
        self._note_given_back(
            self._give_back_parts(
                lambda: self._transaction(self._claimed),
                lambda work: by_transactions(partial(self._transaction, work)),
            )
        )
        turn = sieve.turn(acks, limit)
        self._tell_refused(sieve)
        return turn

    def _note_given_back(self, found: _GivenBack) -> None:
        """Note what a transaction that was committed has given back, and tell of it."""
        known, left = self._roster.unreleased, set(found.left)
        # Those that were known are tried again when there is another reason to look.
        self.unsure = not left.issubset(known)
        for job_id, why in found.refused:
            if job_id not in self._roster.named:
                error = translate(why)
                logger.error(
                    "job %d, claimed by nobody here, can't be given back: %s", job_id, error
                )
        refused = [job_id for job_id, _ in found.refused]
        untried = [job_id for job_id in known if job_id in left]
        self._roster.unreleased = [*untried, *found.locked, *refused]
        self._roster.named.intersection_update(self._roster.unreleased)
        self._roster.named.update(refused)
        self._roster.interrupted -= found.cut.difference(self._roster.unreleased, left)
        if found.released:
            self._released()
            self._tell_given_back(found.released, found.cut)

    def _tell_given_back(self, released: Sequence[int], cut: frozenset[int]) -> None:
        queue = self._roster.queue
        unbegun, self.unbegun = self.unbegun, False
        if interrupted := sorted(cut.intersection(released)):
            logger.info("queue %s gave back jobs that it had to interrupt: %s", queue, interrupted)
        others = sorted(set(released) - cut)
        if not others:
            return
        if self._roster.shutdown_at is not None:
            said = "queue %s ends and gave back what it had claimed and not begun: %d jobs"
            logger.info(said, queue, len(others))
        elif unbegun:
            logger.info("queue %s gave back what was refused: %d jobs", queue, len(others))
        else:
            said = "gave back jobs of queue %s that a lost answer had left claimed: %s"
            logger.warning(said, queue, others)

    def _tell_refused(self, sieve: Sieve) -> None:
        for job_id in sieve.refused.keys() - self.refused:
            error = translate(sieve.refused[job_id])
            logger.error("how job %d ended can't be written, and waits: %s", job_id, error)
        self.refused |= sieve.refused.keys()
        if sieve.unclaimable is not None and not self._unclaimable:
            error = translate(sieve.unclaimable)
            logger.error("the next job of queue %s can't be claimed: %s", self._roster.queue, error)
        self._unclaimable = sieve.unclaimable is not None

    def _in_one_message(self, acks: Sequence[Ack], limit: int) -> Turn | None:
        """Take it in one message if that can be done; None where it can't."""
        if self.unsure or self._parts.announcer.delay_ahead(acks) is not None:
            return None
        claimant, queue = self._roster.claimant, self._roster.queue
        message = self._engine.turn_message(claimant, queue, acks, limit, self._repo.now())
        if message is None:
            return None
        until = real_monotonic() + self.seconds
        try:
            (rows,) = self._repo.message(
                [message.statement],
                message.parameters,
                attempts=1,
                statement_timeout=self.seconds,
                lock_timeout=LOCK_TIME,
                patience=0.0,
            )
        except (DatabaseUnavailable, TransientError) as error:
            if real_monotonic() > until:
                # Who was silent for so long is not worth as long again.
                raise
            logger.debug("queue %s takes its turn again, step by step: %s", queue, error)
            return self._by_steps(acks, limit, again=True)
        written, fetched = message.read(rows)
        if written < len(acks):
            return replace(self._judged(acks), fetched=fetched)
        return Turn(frozenset([ack.job_id for ack in acks]), _NONE, _NONE, fetched)

    def _judged(self, acks: Sequence[Ack]) -> Turn:
        """See what became of each by writing them again, which does no harm.

        Nothing is given back here, whatever fails: what was claimed with them is not held yet.
        """
        claimant, queue, now = self._roster.claimant, self._roster.queue, self._repo.now()

        def work(connection: sa.Connection) -> Turn:
            turn = self._engine.take_turn(connection, claimant, queue, acks, 0, now, careful=True)
            self._tell_put_off(connection, acks, turn)
            return turn

        return self._transaction(work)

    def _by_steps(self, acks: Sequence[Ack], limit: int, *, again: bool) -> Turn:
        engine, roster = self._engine, self._roster
        given_back: _GivenBack | None = None

        def work(connection: sa.Connection) -> Turn:
            nonlocal again, given_back
            # Whatever the first try met, a row that is locked or a lost answer, may be there still.
            careful, again = again, True
            given_back = None
            if self.unsure or careful:
                given_back = self._give_back(connection)
            turn = engine.take_turn(
                connection,
                roster.claimant,
                roster.queue,
                acks,
                limit,
                self._repo.now(),
                careful=careful,
            )
            self._tell_put_off(connection, acks, turn)
            return turn

        turn = self._transaction(work)
        self.unsure = False
        if given_back is not None:
            self._note_given_back(given_back)
        return turn

    def _transaction(self, work: Callable[[sa.Connection], T]) -> T:
        return self._repo.transaction(
            work,
            attempts=2,
            statement_timeout=self.seconds,
            lock_timeout=LOCK_TIME,
            lenient=True,
        )

    def _tell_put_off(self, connection: sa.Connection, acks: Sequence[Ack], turn: Turn) -> None:
        announcer = self._parts.announcer
        put_off = [
            replace(ack, state=JobState.RETRYABLE) if ack.job_id in turn.recounted else ack
            for ack in acks
            if ack.job_id in turn.settled
        ]
        delay = announcer.delay_ahead(put_off)
        if delay is not None:
            now = self._engine.database_now(connection, self._repo.now())
            announcer.tell_due(connection, now + timedelta(seconds=delay))

    def _give_back(self, connection: sa.Connection) -> _GivenBack:
        """Give back what nobody holds."""
        held, cut = self._held()
        released = self._release(connection, held)
        return _GivenBack(released, sorted(self._claimed(connection) - held), cut)

    def _give_back_sifted(self, connection: sa.Connection) -> _GivenBack:
        """Give back what nobody holds, but for what the database refuses."""
        return self._give_back_parts(
            partial(self._claimed, connection),
            lambda work: in_savepoint(connection, partial(work, connection)),
        )

    def _give_back_parts(
        self,
        claimed: Callable[[], set[int]],
        alone: Callable[[Callable[[sa.Connection], Sequence[int]]], Sequence[int]],
    ) -> _GivenBack:
        held, cut = self._held()
        lost = claimed() - held
        # Those that were refused already come last, each in its turn.
        known = [each for each in self._roster.unreleased if each in lost]
        fresh = sorted(lost.difference(known))

        def release(some: Sequence[int]) -> Sequence[int]:
            kept = held.union(lost).difference(some)
            return alone(lambda connection: self._release(connection, kept))

        found = halve([*fresh, *known], release)
        released = [job_id for part in found.done for job_id in part]
        others = [job_id for job_id, _ in found.refused]
        locked = sorted(lost.difference(released, others, found.left))
        return _GivenBack(released, locked, cut, found.refused, found.left)

    def _held(self) -> tuple[set[int], frozenset[int]]:
        """Give the ids of what is held, and of what was interrupted and is not held any more."""
        held = {claim.id for claim in self._roster.held()}
        return held, frozenset(self._roster.interrupted) - held

    def _claimed(self, connection: sa.Connection) -> set[int]:
        roster = self._roster
        return set(self._engine.claimed_ids(connection, roster.claimant, roster.queue))

    def _release(self, connection: sa.Connection, kept: Iterable[int]) -> Sequence[int]:
        roster = self._roster
        return self._engine.release_jobs(
            connection, roster.claimant, roster.queue, list(kept), self._repo.now()
        )
