"""Unique jobs: which others are the same, as Oban has it, on both databases."""

import json
import sqlite3
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Job, JobState, Oban, VirtualClock
from tests.support.instances import Starter

ARGS = {"id": 1, "deep": {"b": 1, "a": [1, 2]}}


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance that is not started: inserting needs only the database."""
    return start_oban.make()


def new(args: Any = None, **options: Any) -> Job:
    """Make a job that is unique for ever unless it is told otherwise."""
    values: dict[str, Any] = {"worker": "tests.Worker", "unique": True, **options}
    return Job.new({} if args is None else args, **values)


def set_state(start: Starter, job: Job, state: str) -> None:
    """Let a job be in a state."""
    kind = start.database.kind
    cast = (
        f"'{state}'" if kind == "sqlite" else f"'{state}'::\"{start.tables.schema}\".oban_job_state"
    )
    start.tables.execute(f"UPDATE {{jobs}} SET state = {cast} WHERE id = :id", id=job.id)


def test_after_an_update(oban: Oban) -> None:
    """What a job is the same as is what stands in its row now, however that was written."""
    first = oban.insert(new({"a": 1, "b": 2}))
    oban.update_job(first, {"args": {"b": 9, "a": 1}})

    assert oban.insert(new({"a": 1, "b": 9})).id == first.id
    assert not oban.insert(new({"a": 1, "b": 2})).conflict


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_on_a_connection_that_reads_json_by_itself(oban: Oban, start_oban: Starter) -> None:
    """A converter for columns declared as JSON, which sqlite3 lets a host have."""
    first = oban.insert(new(ARGS, meta={"m": 1}, tags=["t"]))
    keyed = oban.insert(new({"id": 7, "more": 1}))
    host = sa.create_engine(
        start_oban.database.url, connect_args={"detect_types": sqlite3.PARSE_DECLTYPES}
    )
    before = dict(sqlite3.converters)
    sqlite3.register_converter("JSON", json.loads)
    try:
        with host.begin() as connection:
            assert oban.insert(new(ARGS), connection=connection).id == first.id
            same = new({"id": 7, "more": 2}, unique={"keys": ["id"]})
            assert oban.insert(same, connection=connection).id == keyed.id
            assert oban.get_job(first.id or 0, connection=connection) == first
            assert first in oban.all_jobs(connection=connection)
    finally:
        sqlite3.converters.clear()
        sqlite3.converters.update(before)
        host.dispose()


def test_first_and_second(oban: Oban, start_oban: Starter) -> None:
    """The second one is not inserted: the first comes back as it stands, marked."""
    first = oban.insert(new(ARGS, tags=["first"]))
    second = oban.insert(new(ARGS, tags=["second"]))

    assert not first.conflict
    assert second.conflict
    assert (second.id, second.tags) == (first.id, ["first"])
    assert second.unique is None
    assert oban.get_job(first.id or 0) == first
    assert len(start_oban.tables.states()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"args": {"id": 2}},
        {"args": {**ARGS, "more": 1}},
        {"args": {"id": 1}},
        {"args": {"deep": ARGS["deep"]}},
        {"args": {"id": 1, "deep": {"b": 1, "a": [1]}}},
        {"args": {"id": "1", "deep": ARGS["deep"]}},
        {"args": {}},
        {"queue": "other"},
        {"worker": "tests.Other"},
    ],
)
def test_different(oban: Oban, other: dict[str, Any]) -> None:
    """Another queue, worker, key or value is another job."""
    oban.insert(new(ARGS))

    assert not oban.insert(new(**{"args": ARGS, **other})).conflict


def test_long_args(oban: Oban) -> None:
    """They are compared to their end, however much of them an index holds."""
    first, second = ({"text": 5_000 * "x" + end} for end in "ab")
    one = oban.insert(new(first))

    assert not oban.insert(new(second)).conflict
    assert oban.insert(new(first)).id == one.id


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": [1, 2]}, {"a": [2, 1, 1]}),
        ({"a": {"x": {"y": None}}, "b": True}, {"b": True, "a": {"x": {"y": None}}}),
        ({}, {}),
        ({"a": []}, {"a": []}),
        ({"a": [{"x": 1}, {"x": 1, "y": [2]}]}, {"a": [{"y": [2, 2], "x": 1.0}]}),
    ],
)
def test_the_same(oban: Oban, one: Any, same: Any) -> None:
    """The order of keys does not count, nor that of arrays and what they repeat, as in Oban."""
    first = oban.insert(new(one))

    assert oban.insert(new(same)).id == first.id


@pytest.mark.parametrize("by", [["args"], ["worker"], ["queue"], ["args", "queue"], ["meta"]])
def test_fields(oban: Oban, by: list[str]) -> None:
    """Only the fields that are named have to be equal."""
    values = {
        "args": ({"n": 1}, {"n": 2}),
        "worker": ("tests.A", "tests.B"),
        "queue": ("alpha", "beta"),
        "meta": ({"m": 1}, {"m": 2}),
    }
    unique = {"fields": by, "period": None}
    oban.insert(new(**{name: pair[0] for name, pair in values.items()}, unique=unique))

    same = {name: pair[0 if name in by else 1] for name, pair in values.items()}
    assert oban.insert(new(**same, unique=unique)).conflict
    for name in by:
        other = {**same, name: values[name][1]}
        assert not oban.insert(new(**other, unique=unique)).conflict


@pytest.mark.parametrize("field", ["args", "meta"])
def test_keys(oban: Oban, field: str) -> None:
    """Of args and meta only those keys count; with none of them only an empty one is the same."""
    unique = {"fields": ["worker", field], "keys": ["url", "site"], "period": None}

    def insert(document: dict[str, Any]) -> Job:
        return oban.insert(new(**{field: document}, unique=unique))

    first = insert({"url": {"path": "/a", "q": 1}, "site": 1, "n": 1})
    assert insert({"url": {"path": "/a", "q": 1}, "site": 1, "n": 2}).id == first.id
    # It asks for one of them only, and finds what has it.
    assert insert({"site": 1, "n": 3}).id == first.id
    assert not insert({"url": {"path": "/b"}, "site": 1}).conflict
    assert not insert({"n": 4}).conflict
    assert not insert({"n": 4}).conflict
    assert insert({"url": True}).conflict is insert({"url": 1}).conflict is False
    empty = insert({})
    assert not empty.conflict
    assert insert({"n": 5}).id == empty.id


def test_keys_of_others(oban: Oban) -> None:
    """A job that was inserted without being unique is found all the same."""
    plain = oban.insert(new({"id": 7, "n": 1}, unique=None))

    assert oban.insert(new({"id": 7}, unique={"keys": ["id"], "period": None})).id == plain.id
    assert oban.insert(new({"id": 7, "n": 1})).id == plain.id


@pytest.mark.parametrize(
    ("states", "free"),
    [
        ("successful", {"discarded", "cancelled"}),
        ("incomplete", {"completed", "discarded", "cancelled"}),
        ("all", set()),
        (["available", "executing"], set(JobState) - {"available", "executing"}),
    ],
)
def test_states(oban: Oban, start_oban: Starter, states: Any, free: set[str]) -> None:
    """Only those in one of the states are in the way."""
    for state in JobState:
        args = {"state": state}
        first = oban.insert(new(args))
        set_state(start_oban, first, state)
        second = oban.insert(new(args, unique={"states": states, "period": None}))
        assert second.conflict is (state not in free), state


@pytest.mark.parametrize("way", [{}, {"n": [1]}], ids=["plain", "arrays"])
@pytest.mark.parametrize("free", ["discarded", "cancelled"])
@pytest.mark.parametrize("state", ["available", "retryable", "executing", "completed"])
def test_one_behind_another(
    oban: Oban, start_oban: Starter, free: str, state: str, way: dict[str, Any]
) -> None:
    """One that is in no such state hides none that is, whichever of them came first."""
    before, there, after = [oban.insert(new(way, unique=None)) for _ in range(3)]
    for job in (before, after):
        set_state(start_oban, job, free)
    set_state(start_oban, there, state)

    assert oban.insert(new(way)).id == there.id


@pytest.mark.parametrize("timestamp", ["inserted_at", "scheduled_at"])
def test_period(oban: Oban, start_oban: Starter, timestamp: str) -> None:
    """One that is older than the period is out of the way."""
    unique = {"period": 3600, "timestamp": timestamp}
    first = oban.insert(new(ARGS, unique=unique))
    assert oban.insert(new(ARGS, unique=unique)).conflict
    past = {
        "postgresql": "now() - interval '2 hours'",
        "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-2 hours')",
    }[start_oban.database.kind]
    start_oban.tables.execute(
        f"UPDATE {{jobs}} SET {timestamp} = {past} WHERE id = :id", id=first.id
    )

    assert not oban.insert(new(ARGS, unique=unique)).conflict


@pytest.mark.parametrize("way", [{"schedule_in": -7200}, {"scheduled_at": -7200}], ids=str)
def test_period_within_a_batch(oban: Oban, way: dict[str, Any]) -> None:
    """One of the same call that was due too long ago is out of the way as one in the table is."""
    if "scheduled_at" in way:
        way = {"scheduled_at": oban.config.clock.now() + timedelta(seconds=way["scheduled_at"])}
    unique = {"period": 3600, "timestamp": "scheduled_at"}
    batch = [new(ARGS, unique=unique, **options) for options in (way, way, {}, {})]

    assert [job.conflict for job in oban.insert_all(batch)] == [False, False, False, True]


def test_period_by_a_virtual_clock(start_oban: Starter) -> None:
    """A period is over when the instance's clock says so."""
    clock = VirtualClock()
    oban = start_oban.make(clock=clock)
    unique = {"period": 60}
    assert not oban.insert(new(ARGS, unique=unique)).conflict
    clock.advance(59)
    assert oban.insert(new(ARGS, unique=unique)).conflict
    clock.advance(2)

    assert not oban.insert(new(ARGS, unique=unique)).conflict


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_with_elixirs_indexes(start_oban: Starter) -> None:
    """Where one on JSON finds jobs of others that hold the same, these are not in the way."""
    oban = start_oban.make(elixir_indexes=True)
    unique = {"keys": ["n"], "period": None}
    # Of fewer jobs of a worker all are looked at.
    oban.insert_all([new({"m": n}, unique=None) for n in range(250)])
    others: list[dict[str, Any]] = [
        {"worker": "tests.Other"},
        {"queue": "other"},
        {"state": "cancelled"},
    ]
    oban.insert_all([new({"n": 1}, unique=None, **other) for other in others])

    first = oban.insert(new({"n": 1}, unique=unique))
    second = oban.insert(new({"n": 1, "m": 2}, unique=unique))

    assert (first.conflict, second.conflict, second.id) == (False, True, first.id)


def test_within_a_batch(oban: Oban) -> None:
    """Unlike in Oban, jobs of one call are unique too, among each other and with the table's."""
    there = oban.insert(new({"n": 0}))

    jobs = oban.insert_all(
        [
            new({"n": 0}),
            new({"n": 1}),
            new({"n": 2}, unique=None),
            new({"n": 1}),
            new({"n": 2}),
            new({"n": 2}, unique=None),
        ]
    )

    assert [job.conflict for job in jobs] == [True, False, False, True, True, False]
    assert jobs[0].id == there.id
    assert jobs[3].id == jobs[1].id
    assert jobs[4].id == jobs[2].id
    assert [job.args["n"] for job in jobs] == [0, 1, 2, 1, 2, 2]


def test_states_within_a_batch(oban: Oban) -> None:
    """An earlier one in none of the states is out of the way, as one in the table is."""
    unique = {"states": ["available", "retryable"], "period": None}
    jobs = oban.insert_all(
        [
            new(unique=None, state="completed"),
            new(unique=None, schedule_in=60),
            new(unique=unique, state="retryable"),
            new(unique=unique),
        ]
    )

    assert [job.conflict for job in jobs] == [False, False, False, True]
    assert jobs[3].id == jobs[2].id


def test_keys_within_a_batch(oban: Oban) -> None:
    """One that asks for fewer keys is the same as one before it that has more, as in the table."""
    unique = {"keys": ["url", "site"], "period": None}
    documents: list[dict[str, Any]] = [
        {"url": "/a", "site": 1},
        {"site": 1, "n": 1},
        {"url": "/b", "site": 1},
        {"url": "/b"},
        {"n": 2},
        {"n": 2},
        {},
        {"n": 3},
    ]
    jobs = oban.insert_all([new(each, unique=unique) for each in documents])

    there = [False, True, False, True, False, False, False, True]
    assert [job.conflict for job in jobs] == there
    assert (jobs[1].id, jobs[3].id, jobs[7].id) == (jobs[0].id, jobs[2].id, jobs[6].id)


def test_more_than_single_locks(oban: Oban) -> None:
    """A batch with more keys than the server has room for locks is unique as well."""
    first = oban.insert_all([new({"n": n % 10_000}) for n in range(20_000)])
    again = oban.insert_all(new({"n": n}) for n in range(10_000))

    assert sum(job.conflict for job in first) == 10_000
    assert [job.id for job in again] == [job.id for job in first[:10_000]]
    assert all(job.conflict for job in again)


def test_notifies(start_oban: Starter) -> None:
    """A queue is told of its job again when somebody wanted to insert it once more."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "insert")
    oban.insert(new(queue="alpha"))
    heard.wait_for("insert", 1)

    oban.insert(new(queue="alpha"))

    assert heard.wait_for("insert", 2) == [{"queue": "alpha"}] * 2


MANY_WAYS = {**dict.fromkeys("abcde", 1), "f": {"long": "x" * 300 + "!"}}


@pytest.mark.parametrize(
    ("column", "value"), [("args", MANY_WAYS), ("args", {"a": ["!"]}), ("meta", {"a": ["!"]})]
)
def test_a_row_that_is_no_text_is_no_other(
    start_sqlite: Starter, column: str, value: dict[str, Any]
) -> None:
    """Unique jobs are inserted beside it, and found."""
    oban = start_sqlite.make()
    given = {"unique": {"fields": ["worker", column]}, column: value}
    odd = oban.insert(new(**given))
    start_sqlite.tables.execute(
        f"UPDATE {{jobs}} SET {column} = replace({column}, '!', cast(x'ff' AS TEXT))"
    )
    made, again = (oban.insert(new(**given)) for _ in range(2))

    assert (made.conflict, again.conflict) == (False, True)
    assert odd.id != made.id == again.id
