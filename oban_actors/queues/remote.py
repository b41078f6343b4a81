"""Running a job in another process: what goes there and what comes back is plain data."""

import asyncio
import contextlib
import importlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from concurrent.futures.thread import BrokenThreadPool
from dataclasses import fields
from typing import Any

from oban_actors import error_text, tracing, worker_definition
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.args_codec import refuse_encoded
from oban_actors.claim import Claim
from oban_actors.completing import Completion
from oban_actors.engines import UnreadableRow
from oban_actors.job import Job, JobState
from oban_actors.performing import NeverBegun, Performer
from oban_actors.queues.afar import TimedRunning, borrowed, end_loan, lend, moment, seconds_since
from oban_actors.results import Cancel, Snooze, meant
from oban_actors.running import EndReason, Running
from oban_actors.worker_registry import find_worker
from oban_actors.worker_spec import WorkerSpec

Outcome = dict[str, Any]
"""How a run ended: `kind` is returned, cancel, snooze, failure, interrupted or unbegun.

`completed` is there where the worker has completed its job, `timed_out` where the run was told
that its time is over.
"""

_FIELDS = tuple(each.name for each in fields(Job) if each.name != "running")
_OURS = frozenset({__file__, worker_definition.__file__})
# By the executor's thread, the instance whose job it runs; the executor may be of this process.
_runs: dict[int, str | None] = {}


class Refused(Exception):
    """An executor takes no jobs at all, so this one has not begun."""


def submit(
    executor: Executor, claim: Claim, performer: Performer, over: Callable[[Claim], None]
) -> "Future[Outcome] | None":
    """Let an executor run a claim; what goes wrong with it is a failure of this job.

    Its time counts from here. A cancellation reaches a job that runs in this process, but none in
    another; its deadline goes along. One that surely never began has no acknowledgement.

    Args:
        executor: any; it must be able to import this package and the worker's module.
        claim: filled when the job has ended.
        performer: fills it.
        over: called with the claim then, in any thread.

    Returns:
        what the executor gave, None where nothing could be handed over, and `over` was called.

    Raises:
        Refused: it takes nothing; the claim is as if it had never been handed over.

    """
    spec: WorkerSpec | None = claim.worker
    if spec is None:
        performer.perform(claim)
        over(claim)
        return None
    try:
        span = tracing.performing(claim.open())
    except UnreadableRow as error:
        performer.raised(claim, error)
        over(claim)
        return None
    token = lend(claim)
    try:
        performer.begin(claim)
        span.begin()
        given = payload(claim, span, performer)
        given |= {"instance": performer.config.identity, "token": token, "handed": moment()}
        future = _hand_over(executor, spec, given)
    except Refused as error:
        end_loan(token)
        span.end(error)
        claim.running.deadline = None
        raise
    except Exception as error:  # noqa: BLE001 (an executor may raise anything)
        end_loan(token)
        span.end(error)
        performer.raised(claim, error)
        over(claim)
        return None

    def done(future: "Future[Outcome]") -> None:
        end_loan(token)
        try:
            outcome = span.told(_begun(future.result()))
        except BaseException as error:  # noqa: BLE001 (as above)
            span.end(error)
            performer.raised(claim, NeverBegun() if _unbegun(executor, error) else error)
        else:
            span.end()
            performer.record(claim, outcome)
        over(claim)

    future.add_done_callback(done)
    return future


def accepts(executor: Executor) -> bool:
    """Whether an executor takes anything, tried by a call that does nothing."""
    try:
        executor.submit(_nothing)
    except Exception:  # noqa: BLE001 (as above)
        return False
    return True


def tells_begin(executor: Executor) -> bool:
    """Whether what an executor gives is known to be marked as running once its call may run.

    Only then does a future that could be cancelled say that its call never runs. Those of
    `dask.distributed` can be cancelled while their call runs, and it runs on.
    """
    if isinstance(executor, ThreadPoolExecutor | ProcessPoolExecutor):
        return True
    names = [f"{each.__module__}.{each.__qualname__}" for each in type(executor).__mro__]
    return any(name.endswith("loky.process_executor.ProcessPoolExecutor") for name in names)


def payload(claim: Claim, span: tracing.Span, performer: Performer) -> dict[str, Any]:
    """Give what another process needs to know of a run, as plain data."""
    job = {name: getattr(claim.job, name) for name in _FIELDS}
    return {
        "job": job | {"state": str(claim.job.state)},
        "time_left": claim.running.time_left,
        "trace": span.passed_on(),
        "completing": None if performer.completing is None else performer.completing(),
    }


def perform_remotely(module: str, name: str, payload: dict[str, Any]) -> Outcome:
    """Run a job where this is called.

    Args:
        module: where the worker is defined, as the submitting process's registry says.
        name: the worker's.
        payload: what `payload` gave; the identity of the instance, the token of the claim, and the
            moment at which it was handed over.

    """
    here = threading.get_ident()
    _runs[here] = payload.get("instance")
    try:
        claim = borrowed(payload.get("token"))
        if claim is None:
            return perform_here(module, name, payload, TimedRunning())
        return _perform_borrowed(module, name, payload, claim)
    finally:
        _runs.pop(here, None)


def runs_for(identity: str) -> bool:
    """Whether the calling thread is an executor's, and runs a job for this instance."""
    return _runs.get(threading.get_ident()) == identity


def perform_here(module: str, name: str, payload: dict[str, Any], running: Running) -> Outcome:
    """Run a job with a `running` that somebody here may cancel; raises nothing."""
    if (left := payload.get("time_left")) is not None:
        left -= seconds_since(payload.get("handed"))
        running.deadline = SYSTEM_CLOCK.monotonic() + left
    if (about := payload.get("completing")) is not None:
        running.completer = lambda job, host: Completion.elsewhere(about).complete(job, host)
    return _perform(module, name, payload, running)


def load(module: str, name: str) -> None:
    """Import a worker's module ahead of its first run, whose time does not count for that.

    Args:
        module: as in `perform_remotely`.
        name: likewise.

    """
    # The run will meet the same error, and tell it.
    with contextlib.suppress(BaseException):
        _find(module, name)


# Helpers


def _perform_borrowed(module: str, name: str, payload: dict[str, Any], claim: Claim) -> Outcome:
    if claim.running.cancelled:
        return {"kind": "unbegun"}
    claim.thread = threading.get_ident()
    try:
        return _perform(module, name, payload, claim.running)
    finally:
        # The thread is the host's, and its executor may be slow to tell that this is over.
        claim.thread = None


def _perform(module: str, name: str, payload: dict[str, Any], running: Running) -> Outcome:
    outcome = _call(module, name, payload, running)
    if running.completed:
        outcome["completed"] = True
    if running.reason == "timeout":
        outcome["timed_out"] = True
    return outcome


def _call(module: str, name: str, payload: dict[str, Any], running: Running) -> Outcome:
    job: Job | None = None
    try:
        job = Job(**payload["job"] | {"state": JobState(payload["job"]["state"])})
        job.running = running
        spec = _find(module, name)
        if spec.codec is None:
            refuse_encoded(spec.name, job.args)
        try:
            with tracing.resumed(payload["trace"]):
                result = _run(spec, job, running) if spec.kind == "async" else spec.call(job)
        except (Cancel, Snooze) as signal:
            result = signal
        if asyncio.iscoroutine(result):
            result.close()
            raise TypeError("a worker that is not async returned a coroutine, which nobody awaited")  # noqa: TRY301 (told as any other failure)
        return _outcome(result)
    except asyncio.CancelledError as error:
        return {"kind": "interrupted", "error": error_text.describe(error, _OURS)}
    except BaseException as error:  # noqa: BLE001 (a worker may raise anything)
        return {"kind": "failure", "error": error_text.describe(error, _OURS)}
    finally:
        if job is not None:
            # What a worker leaves behind has no part in a run that is over.
            job.running = None


def _hand_over(executor: Executor, spec: WorkerSpec, given: dict[str, Any]) -> "Future[Outcome]":
    try:
        future = executor.submit(perform_remotely, spec.module, spec.name, given)
    except Exception as error:
        # Where it got no thread, it may stand in the executor's line all the same.
        given.clear()
        if isinstance(error, BrokenExecutor) or not accepts(executor):
            raise Refused(error_text.head(error)) from error
        raise
    _check_future(executor, future)
    return future


def _begun(outcome: Any) -> Any:
    if isinstance(outcome, dict) and outcome.get("kind") == "unbegun":
        raise NeverBegun
    return outcome


def _nothing() -> None:
    """Do nothing."""


def _unbegun(executor: Executor, error: BaseException) -> bool:
    # Threads don't break of a job, only of what they have to do before their first.
    if isinstance(error, BrokenThreadPool | NeverBegun):
        return True
    return isinstance(error, CancelledError) and tells_begin(executor)


def _check_future(executor: Executor, future: object) -> None:
    if not all(hasattr(future, name) for name in ("add_done_callback", "cancel", "done")):
        said = error_text.shown(future)
        raise TypeError(f"{type(executor).__qualname__}.submit gave no future, but: {said}")


def _find(module: str, name: str) -> WorkerSpec:
    spec = find_worker(name)
    if spec is None:
        importlib.import_module(module)
        spec = find_worker(name)
    if spec is None:
        raise RuntimeError(f"unknown worker: {name} is not defined where {module} is imported")
    return spec


def _run(spec: WorkerSpec, job: Job, running: Running) -> Any:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(_await(spec, job))

        def cancel(_reason: EndReason) -> None:
            # The run may be over and its loop closed, before whoever cancels comes to this.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)

        running.on_cancel = cancel
        if running.cancelled:
            task.cancel()
        try:
            kind, value = await task
        finally:
            running.on_cancel = None
        if kind == "raised":
            raise value
        return value

    return asyncio.run(main())


async def _await(spec: WorkerSpec, job: Job) -> tuple[str, Any]:
    """Run a worker in its task; what would break the loop is kept until after it."""
    try:
        return "returned", await spec.call(job)
    except (SystemExit, KeyboardInterrupt) as error:
        return "raised", error


def _outcome(result: Any) -> Outcome:
    result = meant(result)
    if isinstance(result, Cancel):
        return {"kind": "cancel", "reason": _plain(result.reason)}
    if isinstance(result, Snooze):
        return {"kind": "snooze", "seconds": Snooze(result.seconds).seconds}
    return {"kind": "returned", "result": _plain(result)}


def _plain(value: Any) -> Any:
    """Give a JSON value as it is, and the repr of any other."""
    if value is None:
        return None
    try:
        return json.loads(json.dumps(value))
    except BaseException:  # noqa: BLE001 (nothing that a worker returns may break us)
        return error_text.shown(value)
