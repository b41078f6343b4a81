"""Pattern: which jobs a test means."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict

from oban_actors.job import Job, JobState
from oban_actors.testing.naming import names_of
from oban_actors.validation import OPTIONS

DELTA = 1.0
"""Seconds that a job's time may be off by default."""


class Fields(TypedDict, total=False):
    """What a job may be asked for; all that is given must hold."""

    id: int
    worker: Any
    queue: str
    args: Mapping[str, Any]
    meta: Mapping[str, Any]
    tags: list[str]
    state: str
    priority: int
    max_attempts: int
    scheduled_at: datetime
    scheduled_in: float | timedelta
    delta: float | timedelta


WAITING = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED)
"""States of jobs that wait to be run."""

_FIELDS = tuple(Fields.__annotations__)
_KINDS: dict[str, tuple[type, str]] = {
    "id": (int, "an integer"),
    "queue": (str, "a string"),
    "state": (str, "a string"),
    "priority": (int, "an integer"),
    "max_attempts": (int, "an integer"),
}
_PARTIAL = ("args", "meta")


class Pattern:
    """What is asked for of a job.

    Args:
        fields: as `Fields` has them. Of `args` and `meta` what is given must be there, and more
            may be; so too for mappings within them and for `tags`. `unittest.mock.ANY` stands
            for any value. Times may be `delta` seconds off, default 1.

    Raises:
        ConfigError: a field is unknown or can't be compared with a job's; it is named.

    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        OPTIONS.known(fields, _FIELDS, "jobs")
        self._fields = dict(fields)
        delta = OPTIONS.seconds("delta", self._fields.pop("delta", DELTA), zero=True)
        self._delta = timedelta(seconds=delta)
        self._names = names_of(fields["worker"]) if "worker" in fields else frozenset()
        for name in _PARTIAL:
            if name in fields and not isinstance(fields[name], Mapping):
                raise OPTIONS.refusal(name, "a mapping", fields[name])
        for name, (kind, expected) in _KINDS.items():
            if name in fields and not _may_equal(fields[name], kind):
                raise OPTIONS.refusal(name, expected, fields[name])
        state = fields.get("state")
        if isinstance(state, str) and state not in WAITING:
            expected = f"a state in which a job waits: {', '.join(WAITING)}"
            raise OPTIONS.refusal("state", expected, str(state))
        if "tags" in fields and not isinstance(fields["tags"], list | tuple | set | frozenset):
            raise OPTIONS.refusal("tags", "a list of strings", fields["tags"])
        if "scheduled_at" in fields:
            _aware("scheduled_at", fields["scheduled_at"])
        if "scheduled_in" in fields:
            expected = "a number of seconds or a timedelta"
            ahead = OPTIONS.number("scheduled_in", fields["scheduled_in"], expected)
            self._fields["scheduled_in"] = ahead

    def matches(self, job: Job, now: datetime) -> bool:
        """Tell whether a job is meant.

        Args:
            job: from the table.
            now: the database's time.

        """
        return all(self._holds(name, wanted, job, now) for name, wanted in self._fields.items())

    def __str__(self) -> str:
        parts = []
        for name, wanted in self._fields.items():
            text = "/".join(sorted(self._names)) if name == "worker" else repr(wanted)
            parts.append(f"{name}={text}")
        return ", ".join(parts)

    def _holds(self, name: str, wanted: Any, job: Job, now: datetime) -> bool:
        match name:
            case "worker":
                return job.worker in self._names
            case "args" | "meta":
                return contains(getattr(job, name), wanted)
            case "tags":
                return set(wanted) <= set(job.tags)
            case "scheduled_at":
                return self._near(job, wanted)
            case "scheduled_in":
                return self._near(job, now + timedelta(seconds=wanted))
            case _:
                return bool(wanted == getattr(job, name))

    def _near(self, job: Job, moment: datetime) -> bool:
        return job.scheduled_at is not None and abs(job.scheduled_at - moment) <= self._delta


def contains(value: Any, wanted: Any) -> bool:
    """Tell whether a JSON value has what is wanted of it.

    Of an object the keys that are wanted, of an array as many elements, each in its place;
    anything else must be equal, and true and 1 are not.
    """
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and contains(value[key], item) for key, item in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(map(contains, value, wanted))
        )
    # The wanted one first: it may be mock.ANY, or an object of the test's own that compares.
    same_kind = isinstance(wanted, bool) == isinstance(value, bool)
    return bool(wanted == value) and (same_kind or not isinstance(wanted, bool | int | float))


def _may_equal(value: object, kind: type) -> bool:
    """Whether it can equal a column's; an object of the test's own may compare as it likes."""
    if isinstance(value, kind):
        return kind is str or not isinstance(value, bool)
    return type(value).__module__ != "builtins" and type(value).__eq__ is not object.__eq__


def _aware(path: str, value: object) -> None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise OPTIONS.refusal(path, "an aware datetime", value)
