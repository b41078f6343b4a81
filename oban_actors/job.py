"""Job: one row of the jobs table, and how a new one is built."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Self

from oban_actors import job_row
from oban_actors.errors import InvalidJob
from oban_actors.job_run import JobRun
from oban_actors.json_value import flat_object, json_object
from oban_actors.running import Running
from oban_actors.unique import Replace, Unique, replace_option, unique_option
from oban_actors.validation import FIELDS, MAX_INTEGER, shown

MAX_AHEAD = 1000 * 366 * 86_400.0
"""Most seconds that `schedule_in` may be away, so that any clock can add them to its time."""

_MAX_NAME = 127
_MAX_ID = 2**63 - 1
_MAX_PRIORITY = 9


class JobState(StrEnum):
    """Where a job is in its life, in the order of the database's enum."""

    AVAILABLE = "available"
    SUSPENDED = "suspended"
    SCHEDULED = "scheduled"
    EXECUTING = "executing"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


_STATES = tuple(state.value for state in JobState)


@dataclass(slots=True, kw_only=True, repr=False)
class Job(JobRun):
    """One job, as its row is or will be. Mirrors `Oban.Job`.

    Made by `new`, and returned complete by whatever inserts or reads it. Datetimes are aware
    and in UTC. Its repr leaves out what may be secret.

    Attributes:
        worker: name of what runs it.
        args: the work, a JSON object.
        queue: where it runs, default `default`.
        state: where it is in its life, default available.
        priority: 0 (first, the default) to 9.
        max_attempts: how often it may be tried, default 20.
        tags: words to find it by.
        meta: a JSON object about it, not for its worker.
        attempt: how often it was tried.
        attempted_by: names of who has it, or had it last.
        errors: what went wrong, an object with `at`, `attempt` and `error` for each failure.
        id: None until it is inserted.
        inserted_at: None until it is inserted.
        scheduled_at: when it is due; None until it is inserted, unless given.
        attempted_at: when it was started last, else None.
        completed_at: when it succeeded, else None.
        discarded_at: when it failed for good, else None.
        cancelled_at: when it was cancelled, else None.
        schedule_in: seconds from its insertion to when it is due, by the database's clock;
            None once inserted, or where it was not asked for.
        conflict: whether it was not inserted for another one was there, default False.
        unique: which other jobs are the same, None (default) where all are welcome; None once
            inserted.
        replace: fields to replace in the one that is there, by its state; empty once inserted.
        running: its present run, None unless a worker runs it here and now.

    """

    worker: str
    args: dict[str, Any] = field(default_factory=dict)
    queue: str = "default"
    state: JobState = JobState.AVAILABLE
    priority: int = 0
    max_attempts: int = 20
    tags: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    attempted_by: list[str] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    id: int | None = None
    inserted_at: datetime | None = None
    scheduled_at: datetime | None = None
    attempted_at: datetime | None = None
    completed_at: datetime | None = None
    discarded_at: datetime | None = None
    cancelled_at: datetime | None = None
    schedule_in: float | None = None
    conflict: bool = False
    unique: Unique | None = None
    replace: Replace = field(default_factory=dict)
    running: Running | None = field(default=None, init=False, compare=False)

    @classmethod
    def new(  # noqa: PLR0913 (one for each thing that a job can be told)
        cls,
        args: Mapping[str, Any] | None = None,
        *,
        worker: str,
        queue: str = "default",
        schedule_in: float | timedelta | None = None,
        scheduled_at: datetime | None = None,
        priority: int = 0,
        max_attempts: int = 20,
        tags: Iterable[str | float] = (),
        meta: Mapping[str, Any] | None = None,
        state: JobState | str | None = None,
        unique: bool | Mapping[str, Any] | Unique | None = None,
        replace: Iterable[str] | Mapping[str, Iterable[str]] | None = None,
    ) -> Self:
        """Build a job to insert. Mirrors `Oban.Job.new/2`.

        Args:
            args: the work, a JSON object; it is copied. Default: an empty one.
            worker: name of what runs it, 1 to 127 characters; `Elixir.` before it is dropped.
            queue: where it runs, 1 to 127 characters, default `default`.
            schedule_in: seconds from its insertion to when it is due; may be negative.
            scheduled_at: when it is due, an aware datetime; not with `schedule_in`.
            priority: 0 (first, the default) to 9.
            max_attempts: how often it may be tried, at least 1, default 20.
            tags: words to find it by; trimmed, in lower case, without blanks and duplicates.
            meta: a JSON object about it; it is copied. Default: an empty one.
            state: default `scheduled` where a time is given, also a past one, else `available`.
            unique: whether to insert it only where no other job is the same: True, or a mapping
                with `period` (seconds or 'infinity', default 60), `fields` (of args, meta, queue
                and worker, default all but meta), `keys` (of args and meta that count, default
                all), `states` (a list, or one of all, incomplete, scheduled and successful, the
                default) and `timestamp` (`inserted_at`, the default, or `scheduled_at`).
            replace: fields to replace in the other job where there is one, a list for all
                states or a mapping from states to lists. The queue of one that runs stays, and
                `max_attempts` leaves one that waits at least one more try.

        Raises:
            InvalidJob: a field can't be stored; it is named.

        """
        if isinstance(worker, str):
            worker = worker.removeprefix("Elixir.")
        timed = schedule_in is not None or scheduled_at is not None
        default = JobState.SCHEDULED if timed else JobState.AVAILABLE
        _one_time(schedule_in, scheduled_at)
        return cls(
            worker=_name("worker", worker),
            args=json_object("args", {} if args is None else args),
            queue=FIELDS.queue("queue", queue),
            state=_state("state", default if state is None else state),
            priority=_priority("priority", priority),
            max_attempts=_attempts("max_attempts", max_attempts),
            tags=_tags("tags", tags),
            meta=json_object("meta", {} if meta is None else meta),
            schedule_in=_ahead("schedule_in", schedule_in),
            scheduled_at=_moment("scheduled_at", scheduled_at),
            unique=unique_option("unique", unique),
            replace=replace_option("replace", replace),
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of the jobs table of either database.

        Args:
            row: all its columns by name, such as `Row._mapping` of SQLAlchemy.

        Raises:
            InvalidJob: the row holds what no job can hold; its id is named.

        """
        try:
            values = job_row.decode(row)
            return cls(state=JobState(values.pop("state")), **values)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InvalidJob(f"job {row.get('id')} can't be read: {reason}") from error

    def copy(self) -> Self:
        """Copy it, sharing what its fields hold."""
        made = object.__new__(type(self))
        for name, value in zip(_FIELDS, _VALUES(self), strict=True):
            setattr(made, name, value)
        return made

    def validate(self) -> None:
        """Check a job that was made or changed by hand as `new` checks its arguments.

        Raises:
            InvalidJob: a field can't be stored; it is named.

        """
        if self._plain():
            return
        _name("worker", self.worker)
        FIELDS.queue("queue", self.queue)
        _state("state", self.state)
        _priority("priority", self.priority)
        _attempts("max_attempts", self.max_attempts)
        FIELDS.integer("attempt", self.attempt, high=self.max_attempts)
        if self.id is not None:
            FIELDS.integer("id", self.id, low=1, high=_MAX_ID)
        self.args = json_object("args", self.args)
        self.meta = json_object("meta", self.meta)
        self.errors = [
            json_object(f"errors.{index}", error)
            for index, error in enumerate(_list("errors", self.errors))
        ]
        _words("tags", self.tags)
        _words("attempted_by", self.attempted_by)
        for name in job_row.MOMENTS:
            _moment(name, getattr(self, name))
        _ahead("schedule_in", self.schedule_in)
        _one_time(self.schedule_in, self.scheduled_at)
        self.unique = unique_option("unique", self.unique)
        self.replace = replace_option("replace", self.replace or None)

    def _plain(self) -> bool:
        # Most jobs of a large batch have nothing but these, and checking all the rest takes
        # longer than inserting them.
        return (
            _SELDOM(self) == _NOTHING
            and type(self.state) is JobState
            and type(self.priority) is int
            and 0 <= self.priority <= _MAX_PRIORITY
            and type(self.max_attempts) is int
            and 1 <= self.max_attempts <= MAX_INTEGER
            and type(self.attempt) is int
            and type(self.worker) is str
            and type(self.queue) is str
            and _good_name(self.worker)
            and _good_queue(self.queue)
            and flat_object(self.args)
            and flat_object(self.meta)
        )

    def __repr__(self) -> str:
        state = str(self.state)
        return f"Job(id={self.id}, state={state!r}, queue={self.queue!r}, worker={self.worker!r})"


# Helpers

_FIELDS = tuple(each.name for each in fields(Job))
_VALUES = attrgetter(*_FIELDS)
_SELDOM = attrgetter(
    "attempt",
    "tags",
    "errors",
    "attempted_by",
    "id",
    "schedule_in",
    "unique",
    "replace",
    *job_row.MOMENTS,
)
_NOTHING: tuple[Any, ...] = (0, [], [], [], None, None, None, {}, *(None for _ in job_row.MOMENTS))


@lru_cache(maxsize=1024)
def _good_name(name: str) -> bool:
    try:
        _name("name", name)
    except InvalidJob:
        return False
    return True


@lru_cache(maxsize=1024)
def _good_queue(name: str) -> bool:
    try:
        FIELDS.queue("queue", name)
    except InvalidJob:
        return False
    return True


def _name(path: str, value: object) -> str:
    return FIELDS.text(path, value, high=_MAX_NAME)


def _state(path: str, value: object) -> JobState:
    return JobState(FIELDS.one_of(path, value, _STATES))


def _priority(path: str, value: object) -> int:
    return FIELDS.integer(path, value, high=_MAX_PRIORITY)


def _attempts(path: str, value: object) -> int:
    return FIELDS.integer(path, value, low=1)


def _one_time(schedule_in: object, scheduled_at: object) -> None:
    if schedule_in is not None and scheduled_at is not None:
        got = f"{shown(schedule_in)} and {shown(scheduled_at)}"
        raise InvalidJob(f"expected either 'schedule_in' or 'scheduled_at', got both: {got}")


def _ahead(path: str, value: object) -> float | None:
    if value is None:
        return None
    seconds = FIELDS.number(path, value, "a number of seconds or a timedelta")
    if abs(seconds) > MAX_AHEAD:
        raise FIELDS.refusal(path, "a time within 1000 years", value)
    return seconds


def _moment(path: str, value: object) -> datetime | None:
    return None if value is None else FIELDS.moment(path, value)


def _tags(path: str, values: object) -> list[str]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise FIELDS.refusal(path, "a list of strings", values)
    words = (_word(f"{path}.{index}", value) for index, value in enumerate(values))
    return list(dict.fromkeys(word for word in words if word))


def _word(path: str, value: object) -> str:
    # An enum's member that is a string is meant as that string.
    if isinstance(value, str):
        return FIELDS.storable(path, str.__str__(value)).strip().lower()
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_ID:
        return str(value)
    raise FIELDS.refusal(path, "a string or a number", value)


def _list(path: str, values: object) -> list[Any]:
    if isinstance(values, list):
        return values
    raise FIELDS.refusal(path, "a list", values)


def _words(path: str, values: object) -> None:
    for index, value in enumerate(_list(path, values)):
        if not isinstance(value, str):
            raise FIELDS.refusal(f"{path}.{index}", "a string", value)
        FIELDS.storable(f"{path}.{index}", value)
