"""Performer: runs one claimed job, and says what becomes of its row."""

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Mapping
from types import CoroutineType
from typing import Any

from oban_actors import backoff, error_text, job_events, tracing, worker_definition
from oban_actors.args_codec import MARK, refuse_encoded
from oban_actors.claim import Claim, Verdict
from oban_actors.config import Config
from oban_actors.engines import Unreadable, UnreadableRow
from oban_actors.errors import PerformError, ProcessDied, RemoteFailure
from oban_actors.job import Job, JobState
from oban_actors.results import Cancel, Snooze, meant
from oban_actors.worker_spec import WorkerSpec

KILLED = "cancelled while it ran"
"""The reason kept with a job that somebody cancelled while it ran."""

logger = logging.getLogger("oban_actors")


class NeverBegun(Exception):
    """A run was told to end before it began, so its worker is not called."""


_SPECIAL = (Cancel, Snooze, CoroutineType)
_INTERRUPTED = (asyncio.CancelledError, concurrent.futures.CancelledError)
_OURS = frozenset({__file__, worker_definition.__file__})


class Performer:
    """Runs claims. Every method fills the claim and raises nothing, whatever its worker does.

    How a run ends:

    - Any value is success, `Cancel` and `Snooze`, returned or raised, are what they say, and
      whatever else is raised (also SystemExit and KeyboardInterrupt) is a failure.
    - A job that was cancelled while it ran ends cancelled, and one out of time fails with a
      TimeoutError, whatever its worker does then; unless it completed itself before.
    - One that completed itself has succeeded if its row says so, and failed otherwise: what the
      worker returned then was never committed.
    - When the node stops, a job that ends by itself is acknowledged with what it returned or
      raised. An async one that is cancelled for it has no verdict and no acknowledgement: its
      row stays `executing`, to be given back or rescued. Nor has one whose process is killed for
      it.
    - A row that can't be read fails without a run.
    - A job that was told to end before it began does not run: cancelled, it ends cancelled, and
      when the node stops it has no acknowledgement, so that it is given back.

    Args:
        config: the instance's options.
        watch: told of each run that has a deadline as it begins, default nobody.
        completing: gives what another process needs to know to complete a job, as plain data;
            None (default) where none can.

    """

    def __init__(
        self,
        config: Config,
        watch: Callable[[Claim], object] | None = None,
        completing: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.config = config
        self.watch = watch
        self.completing = completing
        self._now_ns = config.clock.monotonic_ns

    def perform(self, claim: Claim) -> None:
        """Run a sync worker's job in the calling thread."""
        try:
            self.begin(claim)
            with tracing.performing(claim.job) as span:
                result = span.returned(meant(_worker(claim).call(claim.job)))
        except BaseException as error:  # noqa: BLE001 (a worker may raise anything)
            self.raised(claim, error)
        else:
            self.returned(claim, result)

    async def aperform(self, claim: Claim) -> None:
        """Run an async worker's job in the calling task."""
        try:
            self.begin(claim)
            with tracing.performing(claim.job) as span:
                result = span.returned(meant(await _worker(claim).call(claim.job)))
        except BaseException as error:  # noqa: BLE001 (a worker may raise anything)
            self.raised(claim, error)
        else:
            self.returned(claim, result)

    # Steps of a run, for those that run it elsewhere

    def begin(self, claim: Claim) -> None:
        """Read its job, note that it begins, and set its deadline.

        Raises:
            UnreadableRow: what was fetched is no job; `raised` is to be told of it.
            NeverBegun: it was told to end; likewise.

        """
        self.open(claim)
        self.start(claim)

    def open(self, claim: Claim) -> None:
        """Read its job, where something has to be got ready before it can begin.

        Raises:
            UnreadableRow: as `begin`.

        """
        claim.started_ns = self._now_ns()
        claim.open().running = claim.running

    def start(self, claim: Claim) -> None:
        """Note that it begins, after `open`, and set its deadline.

        Raises:
            NeverBegun: as `begin`.

        """
        claim.started_ns = self._now_ns()
        running, spec = claim.running, claim.worker
        if running.cancelled:
            raise NeverBegun
        if spec is not None and spec.timeout is not None:
            seconds = spec.timeout_for(claim.job)
            if seconds is not None:
                running.clock = self.config.clock
                running.deadline = claim.started_ns / 1e9 + seconds
                if self.watch is not None:
                    self.watch(claim)
        job_events.tell_start(self.config, claim)

    def returned(self, claim: Claim, result: Any) -> None:
        """Note what its worker returned."""
        self._note(claim, self._returned, result)

    def raised(self, claim: Claim, error: BaseException) -> None:
        """Note what its worker raised, or `begin`."""
        self._note(claim, self._raised, error)

    def _note(self, claim: Claim, note: Callable[[Claim, Any], None], given: Any) -> None:
        try:
            note(claim, given)
        except Exception:
            # Without an end it would be taken for a fetch that was lost, and run again for ever.
            # What the worker has made of its job is not looked at again.
            logger.exception("how job %d ended can't be told", claim.id)
            if claim.ack is None:
                claim.worker = None
                error = RuntimeError("how it ended can't be told: see the log of its node")
                self._fail(claim, error, self._element(claim, error_text.describe(error)))

    def _returned(self, claim: Claim, result: Any) -> None:
        if isinstance(result, _SPECIAL):
            self._special(claim, result)
            return
        self._over(claim)
        if claim.running.cancelled and self._was_ended(claim):
            return
        claim.result = result
        if claim.running.completed:
            error = PerformError(
                f"{claim.job.worker} completed its job in a transaction that was not committed"
            )
            self._fail(claim, error, self._element(claim, error_text.describe(error)))
            return
        self._succeed(claim)

    def completed(self, claim: Claim) -> None:
        """Note that the row of an ended run shows that its worker has completed it."""
        if claim.error is not None and not isinstance(claim.error, PerformError):
            failed = "job %d completed itself before its worker failed: %s"
            logger.warning(failed, claim.id, error_text.describe(claim.error, _OURS))
        claim.error = None
        self._succeed(claim)

    def recounted(self, claim: Claim) -> None:
        """Note that its row had another number of attempts by the time at which it failed."""
        claim.verdict = "failure" if claim.verdict == "discard" else "discard"

    def _raised(self, claim: Claim, error: BaseException) -> None:
        if isinstance(error, UnreadableRow):
            self._refuse(claim, error.row)
            return
        if isinstance(error, NeverBegun):
            self._over(claim)
            self._was_ended(claim)
            return
        if error.__traceback__ is not None:
            # Our own frame would hold the claim that holds the error. A frozen dataclass lets
            # nobody set anything.
            BaseException.with_traceback(error, error.__traceback__.tb_next)
        if isinstance(error, Cancel | Snooze):
            self._special(claim, error)
            return
        self._over(claim)
        if claim.running.cancelled and self._was_ended(claim):
            return
        if self._ended_with_its_node(claim, error):
            return
        if isinstance(error, ProcessDied) and claim.running.reason == "timeout":
            # Killed for that, in the transaction in which its worker had completed it.
            error = _timeout(claim)
        self._fail(claim, error, self._element(claim, error_text.describe(error, _OURS)))

    def record(self, claim: Claim, outcome: Any) -> None:
        """Note what `remote.perform_remotely` gave, which an executor may have changed."""
        try:
            self._record(claim, outcome)
        except Exception:  # noqa: BLE001 (whatever is wrong with it, the job was not seen to end)
            self.raised(claim, RuntimeError(f"no outcome of a run: {error_text.shown(outcome)}"))

    # What is told and written besides

    def tell_end(self, claim: Claim, *, stale: bool = False) -> None:
        """Tell by telemetry how it ended, once that is in the table; see `job_events`."""
        try:
            job_events.tell_end(self.config, claim, stale=stale)
        except Exception:
            # It has the job as its worker left it, and whoever tells has others to tell of.
            logger.exception("nobody can be told how job %d ended", claim.id)

    def timed_out(self, claim: Claim) -> dict[str, Any]:
        """Give the element for a row's errors that says that its time is over.

        For a sync job that goes on nevertheless. Whoever has written it sets `claim.recorded`,
        so that the acknowledgement, when the job ends, doesn't add it again. It is the same each
        time, so where nobody knows whether it was written it is written once all the same.
        """
        claim.running.cancel("timeout")
        if claim.overdue is None:
            claim.overdue = self._element(claim, error_text.describe(_timeout(claim)))
        return claim.overdue

    # Ends

    def _succeed(self, claim: Claim) -> None:
        claim.verdict = "success"
        claim.acknowledge(JobState.COMPLETED)

    def _refuse(self, claim: Claim, row: Unreadable) -> None:
        """End a claim whose row can't be read."""
        logger.error("job %d can't be read, so it can't run: %s", row.job_id, row.reason)
        job = Job(worker=row.worker, queue=row.queue, id=row.job_id, attempt=row.attempt)
        job.max_attempts, job.attempted_at = row.max_attempts, row.attempted_at
        claim.stand_in(job)
        # Nobody's back-off knows what to make of it.
        claim.worker = None
        error = RuntimeError(row.reason)
        text = error_text.storable(f"** (InvalidJob) {row.reason}")
        self._fail(claim, error, self._element(claim, text))

    def _record(self, claim: Claim, outcome: Mapping[str, Any]) -> None:
        if outcome.get("completed"):
            claim.running.completed = True
        if outcome.get("timed_out"):
            # It may have seen that before anybody here did.
            claim.running.cancel("timeout")
        match outcome["kind"]:
            case "returned":
                self.returned(claim, outcome["result"])
            case "cancel":
                self._special(claim, Cancel(outcome["reason"]))
            case "snooze":
                self._special(claim, Snooze(outcome["seconds"]))
            case "interrupted" if claim.running.reason == "shutdown":
                self._over(claim)
            case _:
                text = error_text.storable(outcome["error"])
                self._over(claim)
                if not (claim.running.cancelled and self._was_ended(claim)):
                    self._fail(claim, RemoteFailure(text), self._element(claim, text))

    def _over(self, claim: Claim) -> None:
        claim.duration_ns = self._now_ns() - claim.started_ns
        claim.job.running = None

    def _was_ended(self, claim: Claim) -> bool:
        """Tell whether it was told to end, so that how it ended by itself doesn't count."""
        if claim.running.completed:
            return False
        if claim.running.reason == "cancelled":
            self._cancelled(claim, KILLED)
            return True
        if claim.running.reason == "timeout":
            element = None if claim.recorded else self.timed_out(claim)
            self._fail(claim, _timeout(claim), element)
            return True
        return False

    def _ended_with_its_node(self, claim: Claim, error: BaseException) -> bool:
        """Tell whether it came to nothing for what its node met, and not for its own doing."""
        if claim.running.reason != "shutdown":
            return False
        killed = isinstance(error, ProcessDied) and claim.aborted and not claim.running.completed
        return killed or isinstance(error, _INTERRUPTED)

    def _special(self, claim: Claim, result: Any) -> None:
        self._over(claim)
        if claim.running.cancelled and self._was_ended(claim):
            if isinstance(result, CoroutineType):
                result.close()
            return
        if isinstance(result, Cancel):
            self._cancelled(claim, result.reason)
        elif isinstance(result, Snooze):
            self._snoozed(claim, result)
        else:
            result.close()
            error = TypeError(
                "a worker that is not async returned a coroutine, which nobody awaited"
            )
            self._fail(claim, error, self._element(claim, error_text.describe(error)))

    def _snoozed(self, claim: Claim, snooze: Snooze) -> None:
        try:
            # Who derives from it, or changes it, may have set anything.
            seconds = Snooze(snooze.seconds).seconds
        except Exception as error:  # noqa: BLE001 (as it says)
            error.__traceback__ = None
            self._fail(claim, error, self._element(claim, error_text.describe(error)))
            return
        claim.result = seconds
        claim.verdict = "snoozed"
        claim.acknowledge(JobState.SCHEDULED, delay=seconds)

    def _cancelled(self, claim: Claim, reason: object) -> None:
        said = error_text.shown(reason)
        claim.error = PerformError(f"{claim.job.worker} failed with Cancel({said})")
        claim.result = reason
        claim.verdict = "cancelled"
        element = self._element(claim, error_text.describe(claim.error))
        # Also where it ended so by itself: somebody else's cancel may have come right before.
        claim.acknowledge(JobState.CANCELLED, element, killed=True)

    def _fail(self, claim: Claim, error: BaseException, element: dict[str, Any] | None) -> None:
        claim.error = error
        attempt, most = claim.attempt, claim.max_attempts
        verdict: Verdict = "discard" if attempt >= most else "failure"
        if verdict == "discard":
            # Should its row have more attempts by now, it is tried again after that time.
            usual = backoff.retry_delay(min(attempt, most), most)
            claim.acknowledge(JobState.DISCARDED, element, delay=usual)
        else:
            spec: WorkerSpec | None = claim.worker
            delay = None if spec is None else spec.backoff_for(claim.job)
            if delay is None:
                delay = backoff.retry_delay(attempt, most)
            claim.acknowledge(JobState.RETRYABLE, element, delay=delay)
        claim.verdict = verdict

    def _element(self, claim: Claim, text: str) -> dict[str, Any]:
        at = self.config.clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"at": at, "attempt": claim.attempt, "error": text}


# Helpers


def _worker(claim: Claim) -> WorkerSpec:
    spec: WorkerSpec | None = claim.worker
    if spec is None:
        raise RuntimeError(f"unknown worker: {claim.job.worker}")
    if spec.codec is None and MARK in claim.job.args:
        refuse_encoded(spec.name, claim.job.args)
    return spec


def _timeout(claim: Claim) -> TimeoutError:
    deadline = claim.running.deadline
    if deadline is None:
        return TimeoutError(f"{claim.job.worker} timed out")
    # What it was given, whatever has passed since.
    seconds = deadline - claim.started_ns / 1e9
    return TimeoutError(f"{claim.job.worker} timed out after {round(seconds, 3):g} s")
