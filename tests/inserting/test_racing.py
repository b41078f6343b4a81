"""Many inserters at once leave one row."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Job, Oban
from tests.inserting.hosts import engine_of
from tests.support.instances import Starter

INSERTERS = 32
ROUNDS = 3


def job(number: int, **options: Any) -> Job:
    """Make a job that is unique for ever."""
    return Job.new({"n": number}, worker="tests.Worker", unique={"period": None}, **options)


def race(work: Callable[[int], Job]) -> list[Job]:
    """Let all begin at the same time, each in a thread of its own."""
    gate = threading.Barrier(INSERTERS)

    def run(number: int) -> Job:
        gate.wait(60)
        return work(number)

    with ThreadPoolExecutor(INSERTERS) as threads:
        return list(threads.map(run, range(INSERTERS)))


def check_one(start: Starter, jobs: list[Job]) -> None:
    """One was inserted, and all others were given that one."""
    assert sum(not each.conflict for each in jobs) == 1
    (row,) = start.tables.execute("SELECT id FROM {jobs}")
    assert {each.id for each in jobs} == {row[0]}
    start.tables.execute("DELETE FROM {jobs}")


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance with a connection for each inserter."""
    return start_oban.make(pool_size=INSERTERS, lock_timeout=60, statement_timeout=120)


def test_own_transactions(oban: Oban, start_oban: Starter) -> None:
    """In transactions of ours there is exactly one row, every time."""
    for number in range(ROUNDS):
        check_one(start_oban, race(lambda _, n=number: oban.insert(job(n))))  # type: ignore[misc]  # mypy infers no such lambda


def test_host_transactions(oban: Oban, start_oban: Starter) -> None:
    """In transactions of the host's there is exactly one row, every time."""
    with engine_of(sa.make_url(start_oban.database.url)) as engine:

        def insert(number: int) -> Job:
            with engine.connect() as connection:
                if oban.repo.dialect == "sqlite":
                    connection.exec_driver_sql("PRAGMA busy_timeout = 60000")
                done = oban.insert(job(number), connection=connection)
                connection.commit()
                return done

        for number in range(ROUNDS):
            check_one(start_oban, race(lambda _, n=number: insert(n)))  # type: ignore[misc]  # as above


def test_batches(oban: Oban, start_oban: Starter) -> None:
    """Batches with the same keys in different orders don't lock each other out."""
    count = 20

    def insert(number: int) -> Job:
        numbers = [(number * 7 + step) % count for step in range(count)]
        return oban.insert_all([job(each) for each in numbers])[0]

    race(insert)

    rows = start_oban.tables.execute("SELECT count(*) FROM {jobs}")
    assert rows == [(count,)]


def test_batches_in_host_transactions(oban: Oban, start_oban: Starter) -> None:
    """Nor do they in the host's, where nobody would try again: the locks are taken in order."""
    count = 20
    with engine_of(sa.make_url(start_oban.database.url)) as engine:

        def insert(number: int) -> Job:
            # Some the other way round, so that in the order given each pair would meet.
            numbers = [(number * 7 + step) % count for step in range(count)][:: 1 - number % 2 * 2]
            with engine.connect() as connection:
                if oban.repo.dialect == "sqlite":
                    connection.exec_driver_sql("PRAGMA busy_timeout = 60000")
                made = oban.insert_all([job(each) for each in numbers], connection=connection)
                connection.commit()
                return made[0]

        for _ in range(ROUNDS):
            race(insert)
            rows = start_oban.tables.execute("SELECT count(*) FROM {jobs}")
            assert rows == [(count,)]
            start_oban.tables.execute("DELETE FROM {jobs}")


def test_batches_beside_single_ones(oban: Oban, start_oban: Starter) -> None:
    """A batch that locks all keys at once and those that lock single ones see each other."""
    count = 150

    def insert(number: int) -> Job:
        if number % 8:
            return oban.insert(job(number))
        return oban.insert_all([job(each) for each in range(count)])[0]

    race(insert)

    rows = start_oban.tables.execute("SELECT count(*) FROM {jobs}")
    assert rows == [(count,)]


@pytest.mark.parametrize(
    "values",
    [
        {"args": {"n": 1}},
        {"args": {"n": [1, 2]}},
        {"args": {"n": 1, "m": 2}, "unique": {"keys": ["n"]}},
        {"meta": {"n": 1}, "unique": {"fields": ["worker", "meta"]}},
    ],
    ids=["equal", "arrays", "keys", "meta"],
)
def test_without_indexes_of_our_own(start_pg: Starter, values: dict[str, Any]) -> None:
    """Tables that lack them are looked through all the same: one row, and conflicts beside it."""
    oban = start_pg.make(pool_size=INSERTERS, lock_timeout=60, statement_timeout=120)
    schema = start_pg.tables.schema
    for index in ("unfinished", "finished"):
        start_pg.tables.execute(f'DROP INDEX "{schema}".oban_actors_{index}_index')

    def insert(number: int) -> Job:
        unique = {"period": None, **values.get("unique", {})}
        given = {**values, "unique": unique, "tags": [str(number)]}
        return oban.insert(Job.new(worker="tests.Worker", **given))

    for state in ("available", "executing", "completed"):
        jobs = race(insert)
        assert sum(not each.conflict for each in jobs) == 1
        start_pg.tables.execute(f"UPDATE {{jobs}} SET state = '{state}'")
        assert insert(0).conflict
        check_one(start_pg, jobs)


def test_arrays_that_hold_each_other(oban: Oban, start_oban: Starter) -> None:
    """However an array is written that a look takes for the same, there is one row."""
    whole = {"a": 1, "b": 2}
    ways: list[Any] = [[whole], [{"a": 1}, whole], [whole, {"b": 2.0}, whole], [{}, whole]]

    def insert(number: int) -> Job:
        args = {"list": ways[number % len(ways)]}
        unique = {"period": None, "keys": ["list"] if number % 8 < 4 else []}
        return oban.insert(Job.new(args, worker="tests.Worker", unique=unique))

    for _ in range(ROUNDS):
        check_one(start_oban, race(insert))
