"""Running one worker's job without a database."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from oban_actors.caller_run import CallerRun
from oban_actors.claim import Claim
from oban_actors.config import Config
from oban_actors.errors import ConfigError
from oban_actors.inline import believe, claim_of, claimed
from oban_actors.job import Job
from oban_actors.job_secrets import outgoing
from oban_actors.oban import Oban
from oban_actors.redacting import original
from oban_actors.results import Cancel, Snooze
from oban_actors.testing.naming import spec_of
from oban_actors.validation import FIELDS

# What a row has and `new` does not take.
_ROW = ("attempt", "attempted_at", "attempted_by", "errors", "id", "inserted_at")
_NEW = tuple({each.name for each in fields(Job)} - {"running", "conflict", "args", "worker"})


def build_job(
    worker: Any, args: Mapping[str, Any] | None = None, *, oban: Oban | None = None, **options: Any
) -> Job:
    """Build a job as a worker gets it: executing, for the first time. Mirrors Oban's `build_job`.

    Args:
        worker: a function or class with `@worker`, or a registered worker's name.
        args: the work; they come as they would from the table, tuples as lists.
        oban: the instance whose clock and node count; default: the system's clock.
        **options: what `new` takes, and `attempt`, `attempted_at`, `attempted_by`, `errors`,
            `id` and `inserted_at`.

    Raises:
        ConfigError: there is no such worker.
        InvalidJob: an option is unknown, or a field can't be stored; it is named.

    """
    spec = spec_of(worker)
    if spec is None:
        raise ConfigError(f"unknown worker: {worker}")
    FIELDS.known(options, (*_NEW, *_ROW), "build_job")
    new = {name: value for name, value in options.items() if name not in _ROW}
    job = Job.new(args, worker=spec.name, **{**spec.defaults, **new})
    for name in _ROW:
        if name in options:
            setattr(job, name, options[name])
    built = claimed(_config(oban), job)
    built.validate()
    return built


def perform_job(
    worker: Any, args: Mapping[str, Any] | None = None, *, oban: Oban | None = None, **options: Any
) -> Any:
    """Run a job through its worker, in this thread and without a database.

    It runs as in a queue, with its time-out and telemetry; nothing is acknowledged. An async
    worker's job runs on an event loop of its own. Mirrors `Oban.Testing.perform_job/3`.

    Args:
        worker: as in `build_job`, or a job.
        args: as in `build_job`.
        oban: as in `build_job`.
        **options: as in `build_job`.

    Returns:
        what the worker returned, a `Cancel` or `Snooze` too.

    Raises:
        BaseException: what the worker raised, a `Cancel` or `Snooze` too.
        TimeoutError: its time was over.
        ConfigError: there is no such worker.
        InvalidJob: an option is unknown, or a field can't be stored; it is named.

    """
    config = _config(oban)
    claim = _claim(config, worker, args, oban, options)
    run = CallerRun(config)
    run.run(claim)
    return _outcome(run, claim)


async def aperform_job(
    worker: Any, args: Mapping[str, Any] | None = None, *, oban: Oban | None = None, **options: Any
) -> Any:
    """Do what `perform_job` does, an async worker's job on the running event loop."""
    config = _config(oban)
    claim = _claim(config, worker, args, oban, options)
    run = CallerRun(config)
    await run.arun(claim)
    return _outcome(run, claim)


# Helpers


def _config(oban: Oban | None) -> Config:
    return Config.build(testing="manual") if oban is None else oban.config


def _claim(
    config: Config,
    worker: Any,
    args: Mapping[str, Any] | None,
    oban: Oban | None,
    options: Mapping[str, Any],
) -> Claim:
    if not isinstance(worker, Job):
        return claim_of(*outgoing([build_job(worker, args, oban=oban, **options)]))
    if args is not None or options:
        given = [*([] if args is None else ["args"]), *options]
        raise ConfigError(
            "expected either a job, or a worker with args and options, got both: "
            f"{worker} and {', '.join(given)}"
        )
    worker.validate()
    return claim_of(claimed(config, worker))


def _outcome(run: CallerRun, claim: Claim) -> Any:
    believe(run, claim)
    run.tell_end(claim)
    if claim.verdict in ("failure", "discard") and claim.error is not None:
        raise original(claim.error)
    if isinstance(run.cause, Cancel | Snooze | KeyboardInterrupt):
        raise run.cause
    return run.value
