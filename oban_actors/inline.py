"""Running jobs at once and without a database, in place of inserting them."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from oban_actors.caller_run import CallerRun
from oban_actors.claim import Ack, Claim
from oban_actors.config import Config
from oban_actors.job import Job, JobState
from oban_actors.redacting import original
from oban_actors.running import Running
from oban_actors.worker_registry import find_worker

# Far above the ids that a table gives, so that none is taken for another job's.
_ids = itertools.count(2**62)


def run_inline(config: Config, jobs: Iterable[Job]) -> list[Job]:
    """Run jobs one after another in this thread. Mirrors `Oban.Engines.Inline`.

    Args:
        config: the instance's options.
        jobs: valid ones; scheduled ones are not waited for.

    Returns:
        the jobs as their rows would be now: completed, cancelled or put off.

    Raises:
        BaseException: whatever a worker raised; the jobs after it have not run.

    """
    return [_run(config, job) for job in jobs]


def claimed(config: Config, job: Job) -> Job:
    """Copy a job as its worker would get it: read back from a table, and executing."""
    now = config.clock.now()
    copy = replace(
        job,
        args=json.loads(json.dumps(job.args)),
        meta=json.loads(json.dumps(job.meta)),
        tags=list(job.tags),
        errors=list(job.errors),
        state=JobState.EXECUTING,
        attempt=max(job.attempt, 1),
        attempted_by=job.attempted_by or [config.node, "inline"],
        id=next(_ids) if job.id is None else job.id,
        inserted_at=job.inserted_at or now,
        attempted_at=job.attempted_at or now,
        schedule_in=None,
    )
    copy.scheduled_at = job.scheduled_at or now + timedelta(seconds=job.schedule_in or 0)
    return copy


def claim_of(job: Job) -> Claim:
    """Make a claim of a job that has no row; to complete it in a transaction does nothing."""
    running = job.running = Running(completer=_completed)
    return Claim.of(job, find_worker(job.worker), running)


def believe(run: CallerRun, claim: Claim) -> None:
    """Take a job that completed itself for done: it has no row that could tell."""
    if claim.running.completed and run.cause is None:
        run.completed(claim)


def _completed(_job: Any, _host: Any) -> bool:
    return True


def _run(config: Config, job: Job) -> Job:
    claim = claim_of(claimed(config, job))
    run = CallerRun(config)
    run.run(claim)
    believe(run, claim)
    run.tell_end(claim)
    if claim.error is not None and claim.verdict in ("failure", "discard"):
        raise original(claim.error)
    if isinstance(run.cause, KeyboardInterrupt):
        raise run.cause  # it came as the job ended
    if claim.ack is not None:
        _write(config, claim.job, claim.ack)
    return claim.job


def _write(config: Config, job: Job, ack: Ack) -> None:
    now = config.clock.now()
    job.state = ack.state
    if ack.error is not None:
        job.errors.append(ack.error)
    match ack.state:
        case JobState.COMPLETED:
            job.completed_at = now
        case JobState.CANCELLED:
            job.cancelled_at = now
        case JobState.SCHEDULED:
            job.scheduled_at = now + timedelta(seconds=ack.delay)
            job.attempt -= 1
            snoozed = job.meta.get("snoozed")
            job.meta["snoozed"] = 1 + (snoozed if isinstance(snoozed, int) else 0)
