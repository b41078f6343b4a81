"""Jobs: what a new one becomes, what is refused before it reaches a table, and rows read back."""

import math
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from oban_actors.errors import InvalidJob
from oban_actors.job import Job, JobState

NOON = datetime(2026, 11, 24, 12, 0, 0, 250, tzinfo=UTC)
JSON_KINDS = "a JSON value (None, bool, int, float, str, list or dict with string keys)"
STORABLE = "text without NUL characters and lone surrogates"
WORKER = "a non-blank string of at most 127 characters"


def refused(path: str, expected: str, got: str) -> Any:
    """Expect an InvalidJob with exactly this message."""
    message = f"invalid value for '{path}': expected {expected}, got: {got}"
    return pytest.raises(InvalidJob, match=f"^{re.escape(message)}$")


def new(**fields: Any) -> Job:
    """Build a job whose worker doesn't matter, without the help of a type checker."""
    return Job.new(**{"worker": "W", **fields})


def test_defaults() -> None:
    """Only the worker must be given."""
    assert Job.new(worker="my_app.Worker") == Job(
        worker="my_app.Worker",
        args={},
        queue="default",
        state=JobState.AVAILABLE,
        priority=0,
        max_attempts=20,
        tags=[],
        meta={},
        attempt=0,
        attempted_by=[],
        errors=[],
        id=None,
        inserted_at=None,
        scheduled_at=None,
        attempted_at=None,
        completed_at=None,
        discarded_at=None,
        cancelled_at=None,
        schedule_in=None,
        conflict=False,
    )


def test_states_are_in_the_order_of_the_enum() -> None:
    """The states are PostgreSQL's, and text."""
    assert [str(state) for state in JobState] == [
        "available",
        "suspended",
        "scheduled",
        "executing",
        "retryable",
        "completed",
        "discarded",
        "cancelled",
    ]
    assert new().state == "available"


def test_args_may_be_positional() -> None:
    """The work comes first, as in Oban."""
    assert Job.new({"id": 1}, worker="W").args == {"id": 1}


def test_an_elixir_worker_is_named_as_elixir_stores_it() -> None:
    """The prefix of Elixir's module names is no part of the stored name."""
    assert new(worker="Elixir.MyApp.Mailer").worker == "MyApp.Mailer"
    with refused("worker", WORKER, "''"):
        new(worker="Elixir.")


@pytest.mark.parametrize("name", ["worker", "queue"])
@pytest.mark.parametrize(
    ("value", "got"),
    [("", "''"), ("  ", "'  '"), (None, "None"), (7, "7")],
    ids=["empty", "blank", "none", "number"],
)
def test_names_must_not_be_blank(name: str, value: object, got: str) -> None:
    """A worker and a queue have names."""
    with refused(name, WORKER, got):
        new(**{name: value})


def test_a_queue_is_not_all_queues() -> None:
    """No node can run what is in one of that name; a worker may have it."""
    with refused("queue", "another name than '*', which means all queues", "'*'"):
        new(queue="*")
    assert (new(queue="**").queue, new(worker="*").worker) == ("**", "*")


@pytest.mark.parametrize("name", ["worker", "queue"])
def test_names_have_at_most_127_characters(name: str) -> None:
    """The table's checks count characters, so these do."""
    assert getattr(new(**{name: "ä" * 127}), name) == "ä" * 127
    with pytest.raises(InvalidJob, match=f"^invalid value for '{name}': expected {WORKER}, got: "):
        new(**{name: "ä" * 128})
    with refused(name, STORABLE, r"'a\x00'"):
        new(**{name: "a\x00"})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("priority", -1, "an integer from 0 to 9"),
        ("priority", 10, "an integer from 0 to 9"),
        ("priority", True, "an integer from 0 to 9"),
        ("priority", 1.0, "an integer from 0 to 9"),
        ("priority", None, "an integer from 0 to 9"),
        ("max_attempts", 0, "a positive integer"),
        ("max_attempts", "3", "a positive integer"),
        ("max_attempts", 2**31, "an integer of at most 2147483647"),
    ],
)
def test_numbers_have_bounds(name: str, value: object, expected: str) -> None:
    """What the columns or their checks can't hold is refused."""
    with refused(name, expected, repr(value)):
        new(**{name: value})


def test_numbers_at_their_bounds_pass() -> None:
    """The largest that the columns hold."""
    job = new(priority=9, max_attempts=2**31 - 1)

    assert (job.priority, job.max_attempts) == (9, 2**31 - 1)


def test_tags_are_normalised() -> None:
    """Made text, trimmed, in lower case, without blanks and duplicates, in order."""
    job = new(tags=[" Mail", "mail", "", "  ", 7, 1.5, JobState.RETRYABLE, "ÄÖ"])

    assert job.tags == ["mail", "7", "1.5", "retryable", "äö"]
    assert all(type(tag) is str for tag in job.tags)
    assert new(tags=(tag for tag in ["a"])).tags == ["a"]


@pytest.mark.parametrize(
    ("tags", "path", "expected", "got"),
    [
        ("mail", "tags", "a list of strings", "'mail'"),
        (None, "tags", "a list of strings", "None"),
        ({"a": 1}, "tags", "a list of strings", "a mapping with the keys ['a']"),
        (["a", None], "tags.1", "a string or a number", "None"),
        ([True], "tags.0", "a string or a number", "True"),
        ([math.nan], "tags.0", "a string or a number", "nan"),
        ([10**5000], "tags.0", "a string or a number", "an integer of 16610 bits"),
        (["a\x00"], "tags.0", STORABLE, r"'a\x00'"),
    ],
    ids=["text", "none", "mapping", "item", "bool", "nan", "huge", "nul"],
)
def test_other_tags_are_refused(tags: object, path: str, expected: str, got: str) -> None:
    """A single text is no list of tags, and only words and numbers are tags."""
    with refused(path, expected, got):
        new(tags=tags)


@pytest.mark.parametrize(
    ("given_time", "seconds"),
    [(60, 60.0), (-5, -5.0), (0, 0.0), (0.5, 0.5), (timedelta(days=1), 86_400.0)],
)
def test_schedule_in_is_left_to_the_database(given_time: float | timedelta, seconds: float) -> None:
    """The wish stays relative, in seconds, and makes the job scheduled, also in the past."""
    job = new(schedule_in=given_time)

    assert (job.schedule_in, job.scheduled_at, job.state) == (seconds, None, "scheduled")


@pytest.mark.parametrize("moment", [NOON, NOON.astimezone(timezone(timedelta(hours=2)))])
def test_scheduled_at_is_kept_in_utc(moment: datetime) -> None:
    """Whatever its zone, the moment is the same; the past makes it scheduled as well."""
    job = new(scheduled_at=moment)

    assert (job.scheduled_at, job.schedule_in, job.state) == (NOON, None, "scheduled")
    assert job.scheduled_at is not None
    assert job.scheduled_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("name", "value", "expected", "got"),
    [
        (
            "scheduled_at",
            datetime(2026, 1, 2, 3),  # noqa: DTZ001 (the point of the test)
            "an aware datetime",
            "one without a time zone, 2026-01-02T03:00:00",
        ),
        ("scheduled_at", date(2026, 1, 2), "an aware datetime", "datetime.date(2026, 1, 2)"),
        ("scheduled_at", "2026-01-02", "an aware datetime", "'2026-01-02'"),
        ("scheduled_at", 5, "an aware datetime", "5"),
        (
            "scheduled_at",
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
            "a datetime of the years 1 to 9999 in UTC",
            "9999-12-31T23:59:59.999999-01:00",
        ),
        ("schedule_in", "60", "a number of seconds or a timedelta", "'60'"),
        ("schedule_in", True, "a number of seconds or a timedelta", "True"),
        ("schedule_in", math.nan, "a number of seconds or a timedelta", "nan"),
        ("schedule_in", 1e12, "a time within 1000 years", "1000000000000.0"),
        (
            "schedule_in",
            timedelta.min,
            "a time within 1000 years",
            "datetime.timedelta(days=-999999999)",
        ),
    ],
)
def test_other_times_are_refused(name: str, value: object, expected: str, got: str) -> None:
    """What means no moment, or one that no table can hold."""
    with refused(name, expected, got):
        new(**{name: value})


def test_one_time_only() -> None:
    """A job is due in a while or at a moment."""
    message = r"^expected either 'schedule_in' or 'scheduled_at', got both: 1 and datetime\.date"
    with pytest.raises(InvalidJob, match=message):
        new(schedule_in=1, scheduled_at=NOON)


def test_a_given_state_wins() -> None:
    """It may be text or a member, also beside a time."""
    assert new(state="suspended").state is JobState.SUSPENDED
    assert new(state=JobState.AVAILABLE, schedule_in=60).state is JobState.AVAILABLE
    states = ", ".join(repr(str(state)) for state in JobState)
    with refused("state", f"one of {states}", "'done'"):
        new(state="done")


def test_its_repr_has_no_secrets() -> None:
    """What a log may show of a job."""
    job = replace(new(args={"a": "secret"}, meta={"b": "secret"}), id=7)

    assert repr(job) == "Job(id=7, state='available', queue='default', worker='W')"


def test_a_job_is_no_key() -> None:
    """It can change, so it has no hash."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(new())


def changed(**fields: Any) -> Job:
    """Build a job by hand, without the help of a type checker."""
    return replace(new(), **fields)


@pytest.mark.parametrize(
    "job",
    [
        new(),
        new(schedule_in=5, args={"a": [1]}, tags=["a"]),
        changed(attempt=20, id=2**63 - 1, inserted_at=NOON, errors=[{"attempt": 1}]),
        changed(attempted_by=["node", "uuid"], completed_at=NOON, state="completed"),
    ],
)
def test_valid_jobs_pass_again(job: Job) -> None:
    """What `new` made, or a careful hand, is valid and stays as it is."""
    before = replace(job)

    job.validate()

    assert job == before


@pytest.mark.parametrize(
    ("fields", "path", "expected", "got"),
    [
        ({"worker": ""}, "worker", WORKER, "''"),
        ({"queue": None}, "queue", WORKER, "None"),
        ({"queue": "*"}, "queue", "another name than '*', which means all queues", "'*'"),
        ({"args": None}, "args", "a JSON object, a mapping with string keys", "None"),
        ({"meta": None}, "meta", "a JSON object, a mapping with string keys", "None"),
        ({"args": {"a": {1}}}, "args.a", JSON_KINDS, "a value of type set"),
        ({"priority": 10}, "priority", "an integer from 0 to 9", "10"),
        ({"max_attempts": 0}, "max_attempts", "a positive integer", "0"),
        ({"attempt": 21}, "attempt", "an integer from 0 to 20", "21"),
        ({"id": 0}, "id", "an integer from 1 to 9223372036854775807", "0"),
        ({"tags": ("a",)}, "tags", "a list", "('a',)"),
        ({"tags": [1]}, "tags.0", "a string", "1"),
        ({"tags": ["\x00"]}, "tags.0", STORABLE, r"'\x00'"),
        ({"attempted_by": [None]}, "attempted_by.0", "a string", "None"),
        ({"errors": None}, "errors", "a list", "None"),
        (
            {"errors": ["secret"]},
            "errors.0",
            "a JSON object, a mapping with string keys",
            "a value of type str",
        ),
        (
            {"completed_at": datetime(2026, 1, 2)},  # noqa: DTZ001 (the point of the test)
            "completed_at",
            "an aware datetime",
            "one without a time zone, 2026-01-02T00:00:00",
        ),
        ({"inserted_at": 1}, "inserted_at", "an aware datetime", "1"),
        ({"schedule_in": 1e12}, "schedule_in", "a time within 1000 years", "1000000000000.0"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_jobs_made_by_hand_are_checked(
    fields: dict[str, Any], path: str, expected: str, got: str
) -> None:
    """There is no way to the table around the checks, for any field."""
    with refused(path, expected, got):
        changed(**fields).validate()


def test_a_hand_may_not_give_two_times() -> None:
    """The same rule as for `new`."""
    with pytest.raises(InvalidJob, match=r"got both: 1\.0 and "):
        changed(schedule_in=1.0, scheduled_at=NOON).validate()
