"""Claims for tests that need no database."""

from datetime import UTC, datetime
from typing import Any

from oban_actors import Job, JobState
from oban_actors.claim import Ack, Claim
from oban_actors.running import Running

AT = datetime(2026, 1, 1, tzinfo=UTC)


def claim(job_id: int = 1, worker: Any = None) -> Claim:
    """Make a claim as a fetch brings it."""
    job = Job(worker="tests.Worker", queue="alpha", id=job_id, attempt=1, attempted_at=AT)
    job.state = JobState.EXECUTING
    job.running = Running()
    return Claim.of(job, worker, job.running)


def ended(one: Claim, state: JobState = JobState.COMPLETED) -> Claim:
    """Let its run be over."""
    one.ack = Ack(one.id, AT, state)
    one.verdict = "success"
    return one
