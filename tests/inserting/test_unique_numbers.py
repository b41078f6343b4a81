"""Numbers of unique jobs, which are the same however they are written, as jsonb has it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from oban_actors import Job, Oban
from tests.support.instances import Starter

SAME = [
    (1, 1.0),
    (-7, -7.0),
    (0, -0.0),
    (1000, 1e3),
    (10**16, 1e16),
    (-(10**23), -1e23),
    (1152921504606847000, 2.0**60),
    (10**300, 1e300),
]
OTHERS = [(1, True), (1, "1"), (1, 10), (1, -1), (1, 1.5), (2**60, 2.0**60), (2**53 + 1, 2.0**53)]
BY_KEY: dict[str, Any] = {"keys": ["f"], "period": None}
BY_META: dict[str, Any] = {"fields": ["meta", "worker"], "period": None}
WAYS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "args": lambda n: {"args": {"f": n, "g": "x"}},
    "nested": lambda n: {"args": {"a": {"f": n, "g": []}, "b": n}},
    "arrays": lambda n: {"args": {"a": [n, "x"]}},
    "beyond the index": lambda n: {"args": {"a": 300 * "x", "f": n}},
    "much beyond it": lambda n: {"args": {"a": 50_000 * "x", "f": n, "g": 1}},
    "many": lambda n: {"args": {"f": n, "m": {str(place): n for place in range(60)}}},
    "any worker": lambda n: {
        "args": {str(place): n for place in range(6)},
        "unique": {"fields": ["args"], "period": None},
    },
    "lately": lambda n: {"args": {"f": n}, "unique": {"period": 60}},
    "key": lambda n: {"args": {"f": n, "g": str(n)}, "unique": BY_KEY},
    "key of meta": lambda n: {
        "meta": {"f": {"g": n}, "h": str(n)},
        "unique": {**BY_META, "keys": ["f"]},
    },
    "meta": lambda n: {"meta": {"f": n}, "unique": BY_META},
}


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance that is not started: inserting needs only the database."""
    return start_oban.make()


def new(way: str, number: Any, worker: str = "tests.Worker") -> Job:
    """Make a job that is unique by a number."""
    return Job.new(**{"worker": worker, "unique": True, **WAYS[way](number)})


@pytest.mark.parametrize("way", WAYS)
def test_the_same(oban: Oban, way: str) -> None:
    """In two calls or in one, whichever of the two comes first."""
    for one, other in [*SAME, *(pair[::-1] for pair in SAME)]:
        first, second = (oban.insert(new(way, number)) for number in (one, other))
        assert (second.id, second.conflict) == (first.id, True), (one, other)
        assert oban.delete_job(first)
        both = oban.insert_all(new(way, number) for number in (one, other))
        assert [job.conflict for job in both] == [False, True], (one, other)
        assert oban.delete_job(both[0])


@pytest.mark.parametrize("way", WAYS)
def test_others(oban: Oban, way: str) -> None:
    """What PostgreSQL takes for another value is one everywhere."""
    for pair in OTHERS:
        for one, other in (pair, pair[::-1]):
            jobs = [oban.insert(new(way, number)) for number in (one, other)]
            assert [job.conflict for job in jobs] == [False, False], (one, other)
            assert oban.delete_all_jobs(everything=True) == 2


def test_each_in_its_own_way(oban: Oban) -> None:
    """Of many numbers some may be written in one way and some in another."""
    first = oban.insert(Job.new({str(n): n for n in range(60)}, worker="w", unique=True))
    mixed = {str(n): float(n) if n % 3 else n for n in range(60)}

    assert oban.insert(Job.new(mixed, worker="w", unique=True)).id == first.id
    assert not oban.insert(Job.new({**mixed, "59": 58}, worker="w", unique=True)).conflict


def test_a_number_is_kept_as_it_was(oban: Oban) -> None:
    """Only the comparison takes them for the same."""
    job = oban.insert(new("args", 2.0))

    found = oban.get_job(job.id or 0)
    assert found is not None
    assert repr(found.args["f"]) == "2.0"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1.0e3", 1000),
        ("1000.0", 1000),
        ("-1.0e16", -(10**16)),
        ("9.007199254740992e15", 2**53),
        ("1.0e-7", 1e-7),
        ("-0.0", 0),
    ],
)
def test_rows_of_elixir(oban: Oban, start_oban: Starter, written: str, number: float) -> None:
    """Erlang writes an exponent where it is shorter."""
    job = oban.insert(Job.new(worker="w"))
    text = f'{{"a":{{"n":{written}}},"b":{written}}}'
    assert json.loads(text)["b"] == number
    start_oban.tables.execute("UPDATE {jobs} SET args = :text", text=text)

    same = Job.new({"a": {"n": number}, "b": number}, worker="w", unique=True)
    assert oban.insert(same).id == job.id
