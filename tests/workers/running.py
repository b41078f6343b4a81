"""Run a job without a database: claims, and what runs them."""

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

from oban_actors import Config, Job, JobState, VirtualClock
from oban_actors.claim import Claim
from oban_actors.performing import Performer
from oban_actors.running import EndReason, Running
from oban_actors.worker import find_worker
from tests.workers import jobs

EVENTS = ("oban.job.start", "oban.job.stop", "oban.job.exception", "oban.job.stale")
"""What is told of a run."""

AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def performer(**options: Any) -> Performer:
    """Make one that runs claims by a clock that stands still."""
    return Performer(Config.build(**{"clock": VirtualClock()} | options))


class ToldToEnd(Performer):
    """Runs claims as usual, but each is told to end as soon as it has begun.

    Args:
        reason: why.

    """

    def __init__(self, reason: EndReason) -> None:
        super().__init__(performer().config)
        self._reason = reason

    def start(self, claim: Claim) -> None:
        """See `Performer`."""
        super().start(claim)
        claim.running.cancel(self._reason)


def claimed(job: Job, attempt: int = 1, running: Running | None = None) -> Claim:
    """Make a claim of a job, as a fetch brings it."""
    now = VirtualClock().now()
    job.id, job.attempt, job.state = 7, attempt, JobState.EXECUTING
    job.attempted_at, job.scheduled_at = now, now - timedelta(seconds=2)
    job.attempted_by = ["node", "uuid"]
    return Claim.of(job, find_worker(job.worker), running or Running())


def run(claim: Claim, by: Performer | None = None) -> Claim:
    """Run a claim to its end, as its kind wants."""
    by = by or performer()
    if claim.worker is not None and claim.worker.kind == "async":
        asyncio.run(by.aperform(claim))
    else:
        by.perform(claim)
    return claim


def do(kind: Any, what: str | None = None, *, attempt: int = 1, **args: Any) -> Claim:
    """Make a claim of a job that tells a worker of `jobs` what to do."""
    job: Job = kind.new({"do": what, **args})
    return claimed(job, attempt)


def text(claim: Claim) -> str:
    """The text of the error that goes to the row."""
    assert claim.ack is not None
    assert claim.ack.error is not None
    assert claim.ack.error.keys() == {"at", "attempt", "error"}
    assert claim.ack.error["attempt"] == claim.job.attempt
    assert AT.fullmatch(claim.ack.error["at"])
    return str(claim.ack.error["error"])


def calling(function: Any) -> Claim:
    """A claim whose worker calls this function."""
    claim = do(jobs.plain)
    claim.worker = replace(claim.worker, call=function)
    return claim
