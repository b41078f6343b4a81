"""Rows read back as jobs: of both databases, of other writers, and hostile ones."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.errors import InvalidJob
from oban_actors.job import Job, JobState

NOON = datetime(2026, 11, 24, 12, 0, 0, 250, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


POSTGRES: dict[str, Any] = {
    "id": 7,
    "state": "retryable",
    "queue": "alpha",
    "worker": "MyApp.W",
    "args": {"a": 1},
    "errors": [{"at": "2026-11-23T20:12:08.427120Z", "attempt": 1, "error": "boom"}],
    "attempt": 1,
    "max_attempts": 20,
    "inserted_at": NOON.replace(tzinfo=None),
    "scheduled_at": NOON.replace(tzinfo=None),
    "attempted_at": NOON.replace(tzinfo=None),
    "completed_at": None,
    "attempted_by": ["node", "uuid"],
    "discarded_at": None,
    "priority": 2,
    "tags": ["a"],
    "meta": {"b": 2},
    "cancelled_at": None,
}
SQLITE: dict[str, Any] = POSTGRES | {
    "args": '{"a":1}',
    "errors": json.dumps([json.dumps(POSTGRES["errors"][0])]),
    "inserted_at": "2026-11-24T12:00:00.000250Z",
    "scheduled_at": "2026-11-24T14:00:00.000250+02:00",
    "attempted_at": "2026-11-24T12:00:00.000250",
    "attempted_by": '["node","uuid"]',
    "tags": '["a"]',
    "meta": '{"b":2}',
}
READ = Job(
    id=7,
    state=JobState.RETRYABLE,
    queue="alpha",
    worker="MyApp.W",
    args={"a": 1},
    errors=POSTGRES["errors"],
    attempt=1,
    max_attempts=20,
    inserted_at=NOON,
    scheduled_at=NOON,
    attempted_at=NOON,
    attempted_by=["node", "uuid"],
    priority=2,
    tags=["a"],
    meta={"b": 2},
)


@pytest.mark.parametrize("row", [POSTGRES, SQLITE], ids=["postgresql", "sqlite"])
def test_a_row_is_read(row: dict[str, Any]) -> None:
    """Rows of both databases give the same job, all of it, with aware moments."""
    job = Job.from_row(MappingProxyType(row))

    assert job == READ
    assert type(job.state) is JobState
    job.validate()


@pytest.mark.parametrize("row", [POSTGRES, SQLITE], ids=["postgresql", "sqlite"])
def test_what_others_leave_null_is_empty(row: dict[str, Any]) -> None:
    """NULL where we never write one is no error."""
    empty = dict.fromkeys(["errors", "tags", "meta", "attempted_by"])

    job = Job.from_row({**row, **empty})

    assert (job.errors, job.tags, job.meta, job.attempted_by) == ([], [], {}, [])


def test_seconds_without_a_fraction_are_read() -> None:
    """As SQLite's own defaults write them."""
    job = Job.from_row({**SQLITE, "scheduled_at": "2026-11-24T12:00:00Z"})

    assert job.scheduled_at == NOON.replace(microsecond=0)


def test_errors_that_are_no_objects_are_kept_as_text() -> None:
    """One odd error doesn't make a job unreadable."""
    strange = [{"attempt": 1}, '{"attempt":2}', "[3]", "four", 5, None]

    job = Job.from_row({**SQLITE, "errors": json.dumps(strange)})

    assert job.errors == [
        {"attempt": 1},
        {"attempt": 2},
        {"error": "[3]"},
        {"error": "four"},
        {"error": "5"},
        {"error": "None"},
    ]


@pytest.mark.parametrize(
    ("row", "changes", "reason"),
    [
        (POSTGRES, {"args": []}, "TypeError: expected args to be dict, got: list"),
        (POSTGRES, {"args": '{"a": 1}'}, "TypeError: expected args to be dict, got: str"),
        (POSTGRES, {"meta": 1}, "TypeError: expected meta to be dict, got: int"),
        (SQLITE, {"tags": "{}"}, "TypeError: expected tags to be list, got: dict"),
        (SQLITE, {"attempt": "x"}, "TypeError: expected attempt to be int, got: str"),
        (SQLITE, {"queue": None}, "TypeError: expected queue to be str, got: NoneType"),
        (SQLITE, {"state": "odd"}, "ValueError: 'odd' is not a valid JobState"),
        (SQLITE, {"args": "x"}, "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        (SQLITE, {"scheduled_at": "soon"}, "ValueError: Invalid isoformat string: 'soon'"),
    ],
)
def test_a_hostile_row_is_named(row: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    """What no job can hold is told with the row's id, so that it can be set aside."""
    message = re.escape(f"job 7 can't be read: {reason}")
    with pytest.raises(InvalidJob, match=f"^{message}$"):
        Job.from_row(row | changes)


@pytest.mark.parametrize(
    "spoil",
    [lambda row: row.pop("args"), lambda row: row.update(args='{"a":' * 100_000)],
    ids=["missing column", "deep JSON"],
)
def test_a_row_that_breaks_reading_is_named(spoil: Callable[[dict[str, Any]], None]) -> None:
    """No row makes anything but InvalidJob."""
    row = dict(SQLITE)
    spoil(row)

    with pytest.raises(InvalidJob, match=r"^job 7 can't be read: "):
        Job.from_row(row)


@given(args=st.dictionaries(TEXT, JSON_VALUES), tags=st.lists(TEXT))
def test_a_job_survives_sqlite_text(args: dict[str, Any], tags: list[str]) -> None:
    """Whatever a job holds comes back from the text that SQLite keeps."""
    job = Job.new(args, worker="W", meta=args, tags=tags)
    row = SQLITE | {
        "args": json.dumps(job.args),
        "meta": json.dumps(job.meta),
        "tags": json.dumps(job.tags),
    }

    read = Job.from_row(row)

    assert (read.args, read.meta, read.tags) == (job.args, job.meta, job.tags)
    read.validate()
