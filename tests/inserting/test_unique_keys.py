"""Jobs that are unique by keys, where the table has an index for these keys."""

from typing import Any

import psycopg
import pytest
from psycopg import sql

from oban_actors import Job, Oban
from oban_actors.engines import postgres_look
from oban_actors.repo.key_indexes import Column, KeyIndex
from tests.support.instances import Starter

KEYS = ["n", ["a", "b"]]
ODD = ["it's", "a:b", "50%", "%(x)s", "back\\slash", "a\\:b", "{x}", 'q"q', "ä", "$1", "$$"]


Admin = psycopg.Connection[Any]


@pytest.fixture(params=["args", "meta"])
def column(request: pytest.FixtureRequest) -> Column:
    """The document that has the keys."""
    found: Column = request.param
    return found


@pytest.fixture(autouse=True)
def _unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is met among the first rows of the worker says nothing of the index.
    monkeypatch.setattr(postgres_look, "PROBED", 0)


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance whose tables have the indexes."""
    return start_oban.make(unique_keys=KEYS, unique_meta_keys=KEYS)


def insert(
    oban: Oban, document: dict[str, Any], *keys: str, column: str = "args", **unique: Any
) -> Job:
    """Insert a job that has a document, and is unique by keys of it, if any, for ever."""
    by = {"fields": ["worker", "queue", column], "keys": keys, "period": None, **unique}
    held: dict[str, Any] = {column: document}
    return oban.insert(Job.new(worker="w", queue="q", unique=by if keys else None, **held))


@pytest.mark.parametrize(
    ("there", "new", "same"),
    [
        ({"n": 1}, {"n": 1, "more": 2}, True),
        ({"n": 1}, {"n": 1.0}, True),
        ({"n": 0}, {"n": -0.0}, True),
        ({"n": 10**23}, {"n": 1e23}, True),
        ({"n": 0.5}, {"n": 0.5}, True),
        ({"n": 2**53}, {"n": 2**53 + 1}, False),
        ({"n": 1}, {"n": "1"}, False),
        ({"n": 1}, {"n": True}, False),
        ({"n": None}, {"n": None, "more": 1}, True),
        ({"m": 1}, {"n": None}, False),
        ({"n": "x" * 5_000}, {"n": "x" * 5_000}, True),
        ({"n": {"a": 1, "b": 2}}, {"n": {"a": 1}}, True),
        ({"n": [1, 2]}, {"n": [2]}, True),
        ({"n": {"a": 1}}, {"n": {"a": 2}}, False),
    ],
    ids=str,
)
def test_by_one_key(
    oban: Oban,
    column: Column,
    there: dict[str, Any],
    new: dict[str, Any],
    same: bool,  # noqa: FBT001 (as given)
) -> None:
    """It is the same by the rules that hold without an index."""
    first = insert(oban, there, column=column)

    assert insert(oban, new, "n", column=column).conflict is same
    assert insert(oban, there, *there, column=column).id == first.id


def test_in_no_state_that_an_inserted_job_has(oban: Oban) -> None:
    """None is looked for by its keys, then."""
    insert(oban, {"n": 1}, "n")

    with pytest.warns(UserWarning, match="executing"):
        assert not insert(oban, {"n": 1}, "n", states=["executing"]).conflict


def test_by_two_keys(oban: Oban, column: Column) -> None:
    """All of them count, in whatever order they are given; one that is missing counts not."""

    def put(document: dict[str, Any], *keys: str) -> Job:
        return insert(oban, document, *keys, column=column)

    first = put({"a": 1, "b": 2}, "b", "a")

    assert put({"b": 2, "a": 1, "c": 3}, "a", "b").id == first.id
    assert not put({"a": 1, "b": 3}, "a", "b").conflict
    assert put({"a": 1}, "a", "b").conflict
    assert not put({"a": 9}, "a", "b").conflict


def test_by_keys_of_both_documents(oban: Oban) -> None:
    """Either document may have them, also each some."""
    unique = {"fields": ["worker", "args", "meta"], "keys": ["a", "b"], "period": None}

    def put(args: dict[str, Any], meta: dict[str, Any]) -> Job:
        return oban.insert(Job.new(args, worker="w", queue="q", meta=meta, unique=unique))

    both = put({"a": 1, "b": 2}, {"a": 3, "b": 4})
    some = put({"a": 7}, {"b": 8})
    bare = put({}, {"a": 5, "b": 6})

    assert put({"a": 1, "b": 2, "c": 0}, {"a": 3, "b": 4}).id == both.id
    assert not put({"a": 1, "b": 2}, {"a": 3, "b": 5}).conflict
    assert put({"a": 7, "c": 1}, {"b": 8, "d": 1}).id == some.id
    assert not put({"a": 7}, {"b": 9}).conflict
    assert put({}, {"a": 5, "b": 6, "c": 1}).id == bare.id
    assert not put({}, {"a": 5, "b": 7}).conflict


def test_of_several_at_once(oban: Oban, column: Column) -> None:
    """Each is looked for by its own values."""
    unique = {"fields": ["worker", column], "keys": ["a", "b"], "period": None}

    def made(a: float, more: int) -> Job:
        document: dict[str, Any] = {column: {"a": a, "b": "x", "more": more}}
        return Job.new(worker="w", unique=unique, **document)

    first = oban.insert_all([made(1, 1), made(2, 2)])
    again = oban.insert_all([made(2.0, 3), made(3, 4), made(1, 5)])

    assert [job.conflict for job in again] == [True, False, True]
    assert [again[0].id, again[2].id] == [first[1].id, first[0].id]


def test_what_else_has_to_be_equal(oban: Oban) -> None:
    """Other workers, queues, states and times are others with an index too."""
    others: list[dict[str, Any]] = [
        {"worker": "other", "queue": "q"},
        {"worker": "w", "queue": "other"},
        {"worker": "w", "queue": "q", "state": "cancelled"},
    ]
    oban.insert_all([Job.new({"n": 1}, **other) for other in others])

    first = insert(oban, {"n": 1}, "n", period=60)

    assert not first.conflict
    assert insert(oban, {"n": 1}, "n", period=60).id == first.id
    assert insert(oban, {"n": 1}, "n", fields=["args"]).conflict


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_any_key_may_have_an_index(start_oban: Starter, admin: Admin, column: Column) -> None:
    """Whatever stands in it, it is a key and no SQL."""
    oban = start_oban.make(unique_keys=ODD, unique_meta_keys=ODD)
    oban.migrate()
    names = "SELECT indexname FROM pg_indexes WHERE schemaname = %s"
    found = {name for (name,) in admin.execute(names, [oban.config.prefix])}

    assert {KeyIndex(column, (key,)).name for key in ODD} <= found
    for key in ODD:
        first = insert(oban, {key: key}, key, column=column)
        assert insert(oban, {key: key, "more": 1}, key, column=column).id == first.id
        assert not insert(oban, {key: "another"}, key, column=column).conflict


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_an_index_that_is_invalid(oban: Oban, admin: Admin, column: Column) -> None:
    """It serves nobody, and the next `migrate` builds it anew."""
    name = KeyIndex(column, ("n",)).name
    where = sql.Identifier(oban.config.prefix, name)
    admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)",
        [where.as_string()],
    )
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
    first = insert(oban, {"n": 1}, "n", column=column)
    assert insert(oban, {"n": 1}, "n", column=column).id == first.id
    assert admin.execute(valid, [where.as_string()]).fetchone() == (False,)

    oban.migrate()

    assert admin.execute(valid, [where.as_string()]).fetchone() == (True,)
    assert insert(oban, {"n": 1}, "n", column=column).id == first.id
