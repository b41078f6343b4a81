"""Events of a job's run: `oban.job.start`, `stop`, `exception` and `stale`."""

from typing import Any

from oban_actors import error_text, telemetry
from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.errors import RemoteFailure
from oban_actors.job_secrets import shown_args

START = "oban.job.start"
STOP = "oban.job.stop"
EXCEPTION = "oban.job.exception"
STALE = "oban.job.stale"

ENDS = (STOP, EXCEPTION, STALE)
"""What tells that a run has ended."""


def heard() -> bool:
    """Whether anyone listens to how runs end that succeed."""
    return telemetry.attached(STOP) or telemetry.attached(STALE)


def tell_start(config: Config, claim: Claim) -> None:
    """Tell that a run begins; costs nothing when nobody listens."""
    if telemetry.attached(START):
        times = {
            "system_time": config.clock.system_time_ns(),
            "monotonic_time": claim.started_ns,
        }
        telemetry.execute(START, times, _metadata(config, claim))


def tell_end(config: Config, claim: Claim, *, stale: bool = False) -> None:
    """Tell how a run ended; costs nothing when nobody listens.

    `stop` for what succeeded, was snoozed or cancelled, `exception` for what failed, `stale`
    for what was no longer this node's. A run without a verdict tells nothing, nor does one whose
    job was forgotten, as nobody listened when it ended.

    Args:
        config: the instance's options.
        claim: the run.
        stale: whether its row was no longer its own, so that nothing was written.

    """
    if claim.verdict is None or claim.forgotten:
        return
    failed = claim.verdict in ("failure", "discard")
    event = STALE if stale else EXCEPTION if failed else STOP
    if not telemetry.attached(event):
        return
    metadata = _metadata(config, claim) | {
        "state": claim.verdict,
        "result": claim.result,
        "error": claim.error,
    }
    if event == EXCEPTION:
        metadata |= _failure(claim.error)
    telemetry.execute(event, _measurements(claim), metadata)


def _measurements(claim: Claim) -> dict[str, Any]:
    queue_time = 0
    if claim.scheduled_at is not None:
        waited = claim.attempted_at - claim.scheduled_at
        queue_time = (waited.days * 86_400 + waited.seconds) * 10**9 + waited.microseconds * 1000
    return {"duration": claim.duration_ns, "queue_time": queue_time}


def _metadata(config: Config, claim: Claim) -> dict[str, Any]:
    job = claim.job
    return {
        "id": job.id,
        "args": shown_args(job),
        "queue": job.queue,
        "worker": job.worker,
        "attempt": claim.attempt,
        "max_attempts": claim.max_attempts,
        "tags": job.tags,
        "meta": job.meta,
        "conf": config,
        "job": job,
        "prefix": config.prefix,
    }


def _failure(error: BaseException | None) -> dict[str, Any]:
    """Describe an error by Erlang's kinds: an `exit` is what does not derive from Exception."""
    if isinstance(error, RemoteFailure):
        trace = error_text.message(error)
    else:
        trace = "" if error is None else "\n".join(error_text.frames(error))
    kind = "error" if error is None or isinstance(error, Exception) else "exit"
    return {"kind": kind, "reason": error, "stacktrace": trace}
