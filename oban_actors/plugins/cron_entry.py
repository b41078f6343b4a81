"""One entry of a crontab: when it is due, and the jobs it makes."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypedDict, get_args

from oban_actors.errors import ConfigError, InvalidJob
from oban_actors.job import Job
from oban_actors.plugins.schedule import Schedule
from oban_actors.validation import OPTIONS
from oban_actors.worker import FunctionWorker, WorkerSpec, find_worker, registered

Missed = Literal["skip", "once", "all"]
MISSED: tuple[str, ...] = get_args(Missed)

_JOB = ("queue", "priority", "max_attempts", "tags", "meta")
_OPTIONS = ("args", *_JOB, "timezone", "name", "missed")
_MAX_KEY = 255
_MAX_PARTS = 3
_SOME_MINUTE = datetime(2000, 1, 1, tzinfo=UTC)


class EntryOptions(TypedDict, total=False):
    """What an entry may be told besides its expression and its worker.

    Attributes:
        args: its jobs' args, default: empty.
        queue: where they run; this and the next four: the worker's own by default.
        priority: theirs.
        max_attempts: theirs.
        tags: theirs.
        meta: theirs; cron's own keys are added.
        timezone: in which the expression is read, the crontab's by default.
        name: its key in the database; by default made of worker, expression and zone. Needed
            where these are the same in two entries. With one, the entry stays the same when its
            expression changes.
        missed: what becomes of runs that were due while nobody was there, the crontab's default.

    """

    args: Mapping[str, Any]
    queue: str
    priority: int
    max_attempts: int
    tags: Sequence[str]
    meta: Mapping[str, Any]
    timezone: str
    name: str
    missed: Missed


@dataclass(frozen=True, slots=True)
class Entry:
    """A checked entry.

    Attributes:
        key: what it is called in the database.
        schedule: when it is due.
        worker: the worker's name.
        missed: what becomes of runs that were due while nobody was there.
        options: for its jobs.

    """

    key: str
    schedule: Schedule
    worker: str
    missed: Missed
    options: Mapping[str, Any]
    _target: Any

    @classmethod
    def parse(cls, path: str, given: object, timezone: str, missed: Missed) -> Self:
        """Check what stands in a crontab.

        Args:
            path: of the entry, for messages.
            given: `(expression, worker)` or `(expression, worker, options)`.
            timezone: the crontab's.
            missed: the crontab's.

        Raises:
            ConfigError: it can't be used; what and where is named.

        """
        expression, target, options = _parts(path, given)
        OPTIONS.known(options, _OPTIONS, owner=path)
        schedule = Schedule.parse(path, expression, options.get("timezone", timezone))
        worker = _worker_name(path, target)
        job_options = {key: copy.deepcopy(options[key]) for key in _JOB if key in options}
        entry = cls(
            key=_key(path, options.get("name"), worker, schedule),
            schedule=schedule,
            worker=worker,
            missed=_missed(f"{path}.missed", options.get("missed", missed)),
            options={"args": copy.deepcopy(options.get("args", {})), **job_options},
            _target=target,
        )
        try:
            entry.build(_SOME_MINUTE)
        except InvalidJob as error:
            message = str(error).replace("for '", f"for '{path}.", 1)
            raise ConfigError(message) from None
        return entry

    def build(self, due: datetime) -> Job:
        """Build the job of one due minute.

        Args:
            due: the minute, aware and in UTC.

        Raises:
            InvalidJob: it can't be stored.

        """
        job = self._new()
        job.meta = {
            **job.meta,
            "cron": True,
            "cron_expr": self.schedule.expression,
            "cron_name": self.key,
            "cron_tz": self.schedule.timezone,
            "cron_at": due.isoformat().replace("+00:00", "Z"),
        }
        return job

    def _new(self) -> Job:
        options = dict(self.options)
        if not isinstance(self._target, str):
            job: Job = self._target.new(**options)
            return job
        # Known by now, or another program's, which may be one in Elixir.
        spec = find_worker(self.worker)
        defaults = {} if spec is None else spec.defaults
        return Job.new(worker=self.worker, **{**defaults, **options})


# Helpers


def _parts(path: str, given: object) -> tuple[object, Any, Mapping[str, Any]]:
    expected = "(expression, worker) or (expression, worker, options)"
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise OPTIONS.refusal(path, expected, given)
    if not _MAX_PARTS - 1 <= len(given) <= _MAX_PARTS:
        raise OPTIONS.veiled(path, expected, f"{len(given)} parts")
    expression, worker, *rest = given
    options = rest[0] if rest else {}
    if not isinstance(options, Mapping):
        raise OPTIONS.refusal(path, f"{expected}, options being a mapping", options)
    return expression, worker, options


def _worker_name(path: str, target: object) -> str:
    if isinstance(target, str):
        return OPTIONS.text(f"{path}.worker", target, high=127).removeprefix("Elixir.")
    if isinstance(target, FunctionWorker):
        return target.spec.name
    spec = _spec_of(target)
    if spec is None:
        expected = "a function or class with @worker, or a worker's name"
        raise OPTIONS.refusal(f"{path}.worker", expected, target)
    return spec.name


def _spec_of(target: object) -> WorkerSpec | None:
    return next((spec for spec in registered().values() if spec.target is target), None)


def _key(path: str, name: object, worker: str, schedule: Schedule) -> str:
    if name is not None:
        return OPTIONS.text(f"{path}.name", name, high=_MAX_KEY)
    # Not of the options: while a new version of them is brought out, it is the same entry.
    fields = " ".join(schedule.expression.split()).upper()
    return f"{worker} {fields} {schedule.timezone}"


def _missed(path: str, given: object) -> Missed:
    checked: Missed = OPTIONS.one_of(path, given, MISSED)  # type: ignore[assignment]  # one of them
    return checked
