"""Filters: which jobs they choose, the same on both databases, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oban_actors import ConfigError, InvalidJob, Job, JobState, Oban, worker
from oban_actors.worker import registered
from oban_actors.worker_registry import forget
from tests.control.conftest import insert_each_state, job_in
from tests.support.instances import Tables


def ids(jobs: list[Job]) -> list[int]:
    """Give the ids of jobs."""
    return [job.id or 0 for job in jobs]


def chosen(oban: Oban, **filters: Any) -> list[int]:
    """Give the places, from 1, of the chosen jobs among all."""
    return ids(oban.all_jobs(**filters))


def test_no_filter(oban: Oban) -> None:
    """All jobs are read, by id; to change all has to be said."""
    oban.insert_all(job_in("available") for _ in range(3))

    assert chosen(oban) == [1, 2, 3]
    for call in (oban.cancel_all_jobs, oban.retry_all_jobs, oban.delete_all_jobs):
        nothings: list[dict[str, Any]] = [{"limit": 1}, {"args": {}}, {"meta": {}, "tags": []}]
        for nothing in nothings:
            with pytest.raises(ConfigError, match="everything=True"):
                call(**nothing)
        with pytest.raises(ConfigError, match="'everything': expected a boolean, got: 'no'"):
            call(everything="no")  # type: ignore[arg-type]  # as a careless host would
    assert oban.delete_all_jobs(everything=True, limit=1, order="-id") == 1
    assert oban.delete_all_jobs(everything=True) == 2
    assert oban.all_jobs() == []


def test_plain_filters(oban: Oban) -> None:
    """One value, or any of several; none of several is no job; together all have to hold."""
    oban.insert_all(
        [
            job_in("available", queue="a", priority=1),
            job_in("scheduled", queue="b", worker="Other"),
            job_in("available", queue="b"),
        ]
    )

    assert chosen(oban, queue="b") == [2, 3]
    assert chosen(oban, queue=["a", "b"], state=JobState.AVAILABLE) == [1, 3]
    assert chosen(oban, queue=[]) == []
    assert chosen(oban, worker=["Elixir.Other", "none"]) == [2]
    assert chosen(oban, priority=1) == [1]
    assert chosen(oban, attempt={1}, max_attempts=(2,)) == [1, 2, 3]
    assert chosen(oban, id=[3, 1, 9]) == [1, 3]
    assert chosen(oban, id=range(2, 10)) == [2, 3]


def test_limit_and_order(oban: Oban) -> None:
    """The first so many by the order asked for, and by id where that leaves it open."""
    oban.insert_all(job_in("available", priority=priority) for priority in (1, 0, 1, 0))

    assert chosen(oban, limit=2) == [1, 2]
    assert chosen(oban, order="-id", limit=2) == [4, 3]
    assert chosen(oban, order=["-priority", "-id"]) == [3, 1, 4, 2]
    assert chosen(oban, order="priority") == [2, 4, 1, 3]
    assert oban.cancel_all_jobs(queue="default", order="-priority", limit=2) == 2
    assert chosen(oban, state="cancelled") == [1, 3]


def test_tags(oban: Oban) -> None:
    """All words asked for have to be there, written as tags are."""
    for tags in ([], ["a"], ["a", "b"]):
        oban.insert(job_in("available", tags=tags))

    assert chosen(oban, tags="A ") == [2, 3]
    assert chosen(oban, tags=["b", "a"]) == [3]
    assert chosen(oban, tags=[]) == [1, 2, 3]
    assert chosen(oban, tags="c") == []


HELD: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"a": 1}, {}, True),
    ({"a": 1, "b": 2}, {"a": 1}, True),
    ({"a": 1}, {"a": 1.0}, True),
    ({"a": 1}, {"a": True}, False),
    ({"a": True}, {"a": 1}, False),
    ({"a": "1"}, {"a": 1}, False),
    ({"a": None}, {"a": None}, True),
    ({}, {"a": None}, False),
    ({"a": {"b": {"c": 1}}}, {"a": {"b": {}}}, True),
    ({"a": {"b": 1}}, {"a": {"c": 1}}, False),
    ({"a": [1, [2, 3], {"b": 1, "c": 2}]}, {"a": [{"b": 1}, [3]]}, True),
    ({"a": [1, 2]}, {"a": [1, 1, 2]}, True),
    ({"a": [1, 2]}, {"a": [3]}, False),
    ({"a": [1]}, {"a": 1}, False),
    ({"a": [[1]]}, {"a": [1]}, False),
    ({"a": "[1]"}, {"a": [1]}, False),
    ({"a": "{not json"}, {"a": {"b": 1}}, False),
    ({'q"uo.te$[0]': "ü'%s:x"}, {'q"uo.te$[0]': "ü'%s:x"}, True),
    ({"a": False}, {"a": False}, True),
    ({"a": "A"}, {"a": "a"}, False),
]


@pytest.mark.parametrize(("args", "wanted", "holds"), HELD)
def test_objects(oban: Oban, args: dict[str, Any], wanted: dict[str, Any], *, holds: bool) -> None:
    """An object is held where each key is there with what was asked for, as jsonb has it."""
    oban.insert(job_in("available", args=args, meta=args))

    assert bool(chosen(oban, args=wanted)) is holds
    assert bool(chosen(oban, meta=wanted)) is holds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "1", "[1]"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("ab"), JSON, max_size=2)


def held(whole: Any, part: Any) -> bool:
    """Say what `@>` says, in Python."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and held(whole[key], value) for key, value in part.items()
        )
    if isinstance(part, list):
        return isinstance(whole, list) and all(any(held(w, p) for w in whole) for p in part)
    return type(whole) is type(part) and bool(whole == part)


@pytest.mark.slow
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(args=OBJECTS, wanted=OBJECTS)
def test_any_objects(oban: Oban, args: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Both databases say of any two objects what PostgreSQL's rule says."""
    job = oban.insert(job_in("available", args=args))

    found = ids(oban.all_jobs(id=job.id or 0, args=wanted))

    assert bool(found) is held(args, wanted)


def test_workers(oban: Oban) -> None:
    """A worker stands for its name and its aliases, function or class."""
    known = set(registered())

    @worker(name="control.function", aliases=["control.old"])
    def function(job: Job) -> None: ...

    @worker(name="control.class")
    class Class:
        def perform(self, job: Job) -> None: ...

    try:
        for name in ("control.function", "control.old", "control.class", "w"):
            oban.insert(job_in("available", worker=name))

        assert chosen(oban, worker=function) == [1, 2]
        assert chosen(oban, worker=[Class, "w"]) == [3, 4]
        with pytest.raises(ConfigError, match=r"'worker\.1': expected a worker"):
            oban.all_jobs(worker=[Class, object()])
    finally:
        for name in set(registered()) - known:
            forget(name)


@pytest.mark.parametrize(
    "query",
    [
        lambda jobs: jobs.c.queue == "a",
        lambda jobs: sa.select(jobs.c.id).where(jobs.c.queue == "a"),
        lambda jobs: sa.select(jobs).where(jobs.c.queue == "a").order_by(jobs.c.id).limit(2),
        lambda jobs: sa.select(jobs.c.queue, jobs.c.id).where(jobs.c.queue == "a"),
        lambda jobs: (
            sa.select(sa.func.max(jobs.c.id)).where(jobs.c.queue == "a").group_by(jobs.c.id)
        ),
    ],
    ids=["condition", "ids", "rows", "columns", "one column"],
)
def test_selects_and_conditions(oban: Oban, query: Callable[[sa.Table], Any]) -> None:
    """SQLAlchemy's conditions and selects choose jobs, and filters besides narrow that down."""
    oban.insert_all(job_in("available", queue=queue) for queue in ("a", "b", "a"))

    assert ids(oban.all_jobs(query(oban.jobs))) == [1, 3]
    assert ids(oban.all_jobs(query(oban.jobs), id=[2, 3])) == [3]
    assert oban.cancel_all_jobs(query(oban.jobs)) == 2
    assert oban.retry_all_jobs(query(oban.jobs), id=[3]) == 1
    assert chosen(oban, state="cancelled") == [1]


def test_columns_have_their_types(oban: Oban) -> None:
    """What `jobs` reads and compares is what a job has: aware times, JSON, words."""
    job = oban.insert(job_in("available", args={"a": [1]}, tags=["x"]))
    jobs = oban.jobs

    assert job.scheduled_at is not None
    assert oban.all_jobs(jobs.c.scheduled_at <= job.scheduled_at) == [job]
    assert oban.all_jobs(jobs.c.scheduled_at < job.scheduled_at) == []
    with oban.repo.engine.connect() as connection:
        row = connection.execute(sa.select(jobs)).mappings().one()
    assert row["scheduled_at"] == job.scheduled_at
    assert (row["state"], row["args"], row["tags"]) == ("available", {"a": [1]}, ["x"])
    assert (row["errors"], row["attempted_by"] or []) == ([], [])


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"quee": "a"}, "unknown option 'quee' for a choice of jobs, did you mean 'queue'?"),
        ({"state": "done"}, "'state': expected one of 'available'"),
        ({"state": ["available", "done"]}, "'state.1': expected one of"),
        ({"queue": 1}, "'queue': expected a string, got: 1"),
        ({"queue": ["a", "\0"]}, "'queue.1': expected text without NUL"),
        ({"id": "1"}, "'id': expected an integer"),
        ({"priority": True}, "'priority': expected a non-negative integer, got: True"),
        ({"limit": 0}, "'limit': expected a positive integer, got: 0"),
        ({"order": "args"}, "'order': expected id, state, .* got: 'args'"),
        ({"order": 1}, "'order': expected a column or a list of columns, got: 1"),
        ({"worker": None}, "'worker': expected a worker or the name of one, got: None"),
        ({"args": [1]}, "'args': expected a JSON object"),
        ({"tags": 1}, "'tags': expected a list of strings, got: 1"),
        ({"query": "id = 1"}, "'query': expected a SQLAlchemy select of jobs or a condition"),
        ({"query": True}, "'query': expected a SQLAlchemy select of jobs or a condition"),
    ],
)
def test_filters_that_are_refused(oban: Oban, filters: dict[str, Any], message: str) -> None:
    """Each wrong filter is named with what it should have been."""
    for call in (oban.all_jobs, oban.cancel_all_jobs):
        with pytest.raises((ConfigError, InvalidJob), match=message.replace("?", r"\?")):
            call(**filters)


def test_a_select_without_ids(oban: Oban) -> None:
    """A select of several columns needs one named id."""
    with pytest.raises(ConfigError, match="a select with a column id, got: one with queue, state"):
        oban.all_jobs(sa.select(oban.jobs.c.queue, oban.jobs.c.state))


def test_a_select_of_one_column(oban: Oban) -> None:
    """It gives ids, if it can: texts are none, however few there are of them."""
    oban.insert_all(job_in("available", queue=queue) for queue in "aab")
    last = sa.select(sa.func.max(oban.jobs.c.id)).group_by(oban.jobs.c.queue)
    assert chosen(oban, query=last) == [2, 3]
    with pytest.raises(ConfigError, match="a select with a column id, got: one with queue"):
        oban.all_jobs(sa.select(oban.jobs.c.queue))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_is_no_json(oban: Oban, tables: Tables) -> None:
    """A row whose JSON is broken, which only SQLite takes, hides no other one from a filter."""
    oban.insert_all(job_in("available", args={"a": 1}, tags=["t"]) for _ in range(2))
    tables.execute("UPDATE {jobs} SET args = '{', tags = '[' WHERE id = 1")

    assert chosen(oban, args={"a": 1}) == [2]
    assert chosen(oban, tags="t") == [2]


def test_states_that_a_call_is_not_for(oban: Oban) -> None:
    """Asked for states some of which a call does not change, it changes the others."""
    insert_each_state(oban)

    assert oban.cancel_all_jobs(state=["completed", "executing"]) == 1
    assert oban.delete_all_jobs(state="executing") == 0
    assert oban.retry_all_jobs(state=list(JobState)) == 7
