"""Turns of producers, for the tests of the job stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oban_actors.claim import Ack, Claimant
from oban_actors.engines import ProducerBeat, Turn
from oban_actors.job import Job, JobState
from tests.engines.conftest import Store

ME = Claimant("web.1", "00000000-0000-8000-8000-000000000001")
ERROR = {"at": "2026-11-24T12:00:00.000000Z", "attempt": 1, "error": "boom"}


@dataclass(frozen=True)
class Hand:
    """A producer's hand on a store.

    Attributes:
        store: where its jobs are.
        claimant: who it is.
        queue: what it serves.

    """

    store: Store
    claimant: Claimant = ME
    queue: str = "default"

    def turn(
        self,
        acks: Sequence[Ack] = (),
        limit: int = 0,
        now: datetime | None = None,
        *,
        careful: bool = False,
        lock_timeout: float | None = None,
    ) -> Turn:
        """Take a turn in a transaction."""
        return self.store.repo.transaction(
            lambda c: self.store.engine.take_turn(
                c, self.claimant, self.queue, acks, limit, now, careful=careful
            ),
            lock_timeout=lock_timeout,
            statement_timeout=1.0 if lock_timeout else None,
        )

    def fetch(self, limit: int = 100, now: datetime | None = None) -> list[Job]:
        """Claim jobs."""
        return self.turn(limit=limit, now=now).jobs

    def release(self, *held: int) -> list[int]:
        """Give back all that is not held."""
        return self.store.repo.transaction(
            lambda c: self.store.engine.release_jobs(c, self.claimant, self.queue, held, None)
        )

    def beat(self, **changed: Any) -> ProducerBeat:
        """Make its beat."""
        values: dict[str, Any] = {
            "identity": "i",
            "name": "Oban",
            "limit": 10,
            "paused": False,
            "running": 0,
        }
        return ProducerBeat(claimant=self.claimant, queue=self.queue, **(values | changed))


def ids(*jobs: Job) -> frozenset[int]:
    """Give the ids of jobs, as a turn names them."""
    return frozenset(job.id or 0 for job in jobs)


def ack(job: Job, state: JobState | str = "completed", **changed: Any) -> Ack:
    """Make a job's acknowledgement."""
    assert job.id is not None
    assert job.attempted_at is not None
    return Ack(job.id, job.attempted_at, JobState(state), **changed)
