"""Losses: runs whose jobs others may run, told to end, and ended by force where that can be."""

import logging
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from oban_actors.claim import Claim
from oban_actors.engines import JobEngine
from oban_actors.errors import DatabaseError
from oban_actors.job import JobState
from oban_actors.queues.workforce import Post
from oban_actors.repo import Repo
from oban_actors.repo.times import to_text
from oban_actors.running import EndReason

logger = logging.getLogger("oban_actors")

LOOK_TIME = 2.0
"""Seconds that a look whether jobs were cancelled may take."""


class Losses:
    """What becomes of one queue's runs once their claims are lost.

    Args:
        post: the queue's post.
        repo: where to look whether jobs were cancelled.
        engine: how.

    """

    def __init__(self, post: Post, repo: Repo, engine: JobEngine) -> None:
        self._post = post
        self._repo = repo
        self._engine = engine

    def tell(self, claims: Sequence[Claim], reason: EndReason) -> None:
        """Tell runs to end; what goes on is for `end`."""
        for claim in claims:
            claim.lost = True
            told = claim.running.cancelled
            if claim.ack is None:
                claim.running.cancel(reason)
                # One that did not end when it was told to is interrupted once only.
                if not told:
                    self._post.interrupt(claim)

    def end(self, claims: Sequence[Claim]) -> None:
        """End by force those that have not ended, but for jobs that somebody has cancelled."""
        going_on = [claim for claim in claims if claim.ack is None and not claim.aborted]
        cancelled = self._cancelled([c for c in going_on if c.running.reason == "cancelled"])
        for claim in going_on:
            if claim.id not in cancelled and self._post.abort(claim):
                said = "job %d (%s) went on while others may run it; its process was killed"
                logger.warning(said, claim.id, claim.job.worker)

    def _cancelled(self, claims: Sequence[Claim]) -> Collection[int]:
        """Find those that somebody has cancelled, so that nobody else runs them; by their ids."""

        def look(connection: sa.Connection) -> list[int]:
            of = self._engine.claim_of
            return [
                c.id for c in claims if of(connection, c.id) == (state, to_text(c.attempted_at))
            ]

        state = JobState.CANCELLED.value
        if not claims:
            return ()
        try:
            return self._repo.transaction(
                look, attempts=1, statement_timeout=LOOK_TIME, read_only=True
            )
        except DatabaseError as failure:
            logger.warning("whether jobs were cancelled or taken is not known: %s", failure)
            return ()
