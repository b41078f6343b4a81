"""What this process knows of a job's secrets, by its worker: how it is stored, and shown."""

from collections.abc import Mapping, Sequence
from typing import Any

from oban_actors import worker_registry
from oban_actors.args_codec import check_unique, encoded, is_encoded
from oban_actors.guarded_call import opened
from oban_actors.job import Job
from oban_actors.redacting import KEY, either, redaction_in
from oban_actors.worker_registry import find_worker
from oban_actors.worker_spec import WorkerSpec


def outgoing(jobs: Sequence[Job]) -> list[Job]:
    """Give jobs as they go to the table: args encoded, or what is not shown named in the meta.

    Those of other workers are given as they are, and copies of these.

    Args:
        jobs: valid ones.

    Raises:
        CodecError: a codec raised.
        InvalidJob: a job is unique by what its codec hides, or what that gave can't be stored.

    """
    if not worker_registry.guards():
        return list(jobs)
    return [_outgoing(job) for job in jobs]


def outgoing_changes(job: Job, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Give changes of a stored job as they go to the table.

    Its meta goes on to say what is not shown of it. With another worker it says what was not
    shown under the one before, and what the new one does not show.

    Args:
        job: as it stands.
        changes: new values by column.

    Raises:
        CodecError: a codec raised.
        InvalidJob: what it gave can't be stored.

    """
    values = dict(changes)
    spec = find_worker(values.get("worker", job.worker))
    if "args" in values and spec is not None and spec.codec is not None:
        values["args"] = encoded(spec.name, spec.codec, values["args"])
    told, given = redaction_in(job.meta), values.get("meta", {})
    if "worker" in values:
        told = either(told, redaction_in(given))
        for each in (find_worker(job.worker), spec):
            told = told if each is None else either(told, each.redaction)
    elif "meta" not in values or KEY in given:
        told = None
    if told is not None:
        values["meta"] = {**values.get("meta", job.meta), KEY: told.told}
    return values


def shown_args(job: Job) -> dict[str, Any]:
    """Give a job's args as they are shown: encoded ones as they stand, the others redacted."""
    if (not worker_registry.guards() and KEY not in job.meta) or is_encoded(job.args):
        return job.args
    spec = find_worker(job.worker)
    for redaction in (redaction_in(job.meta), None if spec is None else spec.redaction):
        if redaction is not None:
            job = _with_args(job, redaction.shown(job.args))
    return job.args


def plain(job: Job) -> Job:
    """Give a job as its worker gets it: a copy with its args decoded, where it is encoded.

    Raises:
        CodecError: they can't be.

    """
    spec = find_worker(job.worker)
    return job if spec is None or spec.codec is None else opened(job, spec.codec)


# Helpers


def _outgoing(job: Job) -> Job:
    spec = find_worker(job.worker)
    if spec is None:
        return job
    if spec.codec is not None:
        check_unique(spec.name, spec.codec, job.unique)
        return _with_args(job, encoded(spec.name, spec.codec, job.args))
    return job if spec.redaction is None else _telling(job, spec)


def _telling(job: Job, spec: WorkerSpec) -> Job:
    unique = job.unique
    # One that is unique by all of its meta would not be like those that tell nothing.
    whole = unique is not None and "meta" in unique.fields and not unique.keys
    if whole or spec.redaction is None or KEY in job.meta:
        return job
    copy = job.copy()
    copy.meta = {**job.meta, KEY: spec.redaction.told}
    return copy


def _with_args(job: Job, args: dict[str, Any]) -> Job:
    copy = job.copy()
    copy.args = args
    return copy
