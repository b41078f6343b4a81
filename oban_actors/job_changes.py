"""What `update_job` may change of a job, checked as a new one is."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypedDict

from oban_actors.errors import InvalidJob
from oban_actors.job import Job, JobState
from oban_actors.validation import FIELDS


class JobChanges(TypedDict, total=False):
    """Fields of a job that may be changed, as `Job.new` takes them.

    Attributes:
        args: the work, a JSON object, in place of the old one.
        max_attempts: how often it may be tried, not less than it was already, and more than that
            where it waits for its next try.
        meta: a JSON object about it, in place of the old one.
        priority: 0 (first) to 9.
        queue: where it runs.
        scheduled_at: when it is due, an aware datetime; makes it scheduled.
        tags: words to find it by, in place of the old ones.
        worker: name of what runs it.

    """

    args: Mapping[str, Any]
    max_attempts: int
    meta: Mapping[str, Any]
    priority: int
    queue: str
    scheduled_at: datetime
    tags: list[str]
    worker: str


Changes: TypeAlias = JobChanges | Mapping[str, Any] | Callable[[Job], JobChanges]
"""Changes, or a function that gives them for the job as it stands, locked."""

_WAITING = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.RETRYABLE, JobState.SUSPENDED)

CHANGEABLE = tuple(JobChanges.__annotations__)


def check_changes(job: Job, changes: object) -> dict[str, Any]:
    """Give the columns to write.

    Args:
        job: as it stands.
        changes: by field.

    Raises:
        InvalidJob: a field can't be changed, or not to this value.

    """
    if not isinstance(changes, Mapping):
        raise FIELDS.refusal("changes", f"a mapping of {', '.join(CHANGEABLE)}", changes)
    FIELDS.known(changes, CHANGEABLE, "an update of a job")
    for name, value in changes.items():
        if value is None:
            raise FIELDS.refusal(name, "a value", None)
    model = Job.new(**{"worker": job.worker, **changes})
    values = {name: getattr(model, name) for name in changes}
    _check_attempts(job, values)
    if job.state is JobState.EXECUTING and values.get("queue", job.queue) != job.queue:
        # Its producer looks for its claims in its own queue.
        raise InvalidJob(f"job {job.id} runs now and can't be moved to another queue")
    if "scheduled_at" in values:
        values["state"] = JobState.SCHEDULED.value
    return values


def _check_attempts(job: Job, values: Mapping[str, Any]) -> None:
    most = values.get("max_attempts", job.max_attempts)
    if most < job.attempt:
        raise FIELDS.refusal("max_attempts", f"at least the {job.attempt} it had already", most)
    if "scheduled_at" not in values:
        if "max_attempts" in values and job.state in _WAITING and most == job.attempt:
            expected = f"more than the {job.attempt} it had already, or it would never run"
            raise FIELDS.refusal("max_attempts", expected, most)
        return
    if job.state is JobState.EXECUTING:
        raise InvalidJob(f"job {job.id} runs now and can't be scheduled: it would run twice")
    if most == job.attempt:
        raise InvalidJob(
            f"job {job.id} has had all its {most} attempts and would never run: "
            "give more max_attempts, or use retry_job"
        )
