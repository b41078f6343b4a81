"""Instances that start and stop by the hundred, ten at once, leave nothing: nowhere."""

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Job, Oban, StartFailed, worker
from oban_actors.plugins import Cron, Lifeline, Pruner, Reindexer
from tests.endurance.leftovers import holdings, locks, logged_as_text, nothing_beyond, sessions
from tests.support.databases import Database, new_database
from tests.support.instances import Tables
from tests.support.postgres import Server
from tests.support.waiting import wait_until

CYCLES = int(os.environ.get("OBAN_ENDURANCE_CYCLES", "30"))
"""How often; `make endurance` has 500."""

THREADS = 10
"""How many play them at once."""

WARM = THREADS
"""Cycles before the first count, in which modules and caches are filled."""

pytestmark = pytest.mark.timeout(max(240, 4 * CYCLES))


@worker(name="endurance.work", queue="alpha")
def work(job: Job) -> None:
    """Do nothing, as quickly."""


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.db), "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database that nobody else uses, so that its sessions and locks are ours."""
    with logged_as_text():
        if request.param == "sqlite":
            yield Database("sqlite", f"sqlite:///{tmp_path / 'jobs.db'}")
            return
        server: Server = request.getfixturevalue("postgres_server")
        with new_database(server) as name:
            yield Database("postgresql", server.url(name))


def make(place: Database) -> Oban:
    """Make an instance with every part that a tree can have."""
    return Oban(
        place.url,
        prefix=place.prefix,
        queues={"alpha": 5, "beta": 1},
        plugins=[Pruner(), Lifeline(), Cron([]), Reindexer()],
        health={"port": 0},
    )


def conninfo(place: Database) -> str:
    """Give the address as psycopg takes it."""
    return re.sub(r"^postgresql\+psycopg", "postgresql", place.url)


def check_database(place: Database, directory: Path, files: set[str]) -> None:
    """See that nobody is connected, nothing locked, and no file there that was not."""
    if place.kind == "postgresql":
        wait_until(lambda: sessions(conninfo(place)) == 0, message="no session is left")
        assert locks(conninfo(place)) == 0
    assert {path.name for path in directory.iterdir()} == files


def at_once(cycles: int, one: Callable[[], None]) -> None:
    """Play so many cycles from all threads at once."""
    with ThreadPoolExecutor(THREADS) as threads:
        for played in [threads.submit(one) for _ in range(cycles)]:
            played.result()


def cycle(place: Database, one: Callable[[], None], directory: Path) -> None:
    """Play some cycles, then count, then play the rest and count again."""
    at_once(WARM, one)
    before, files = holdings(), {path.name for path in directory.iterdir()}
    at_once(CYCLES, one)
    nothing_beyond(before)
    check_database(place, directory, files)


def test_new_instances(place: Database, tmp_path: Path) -> None:
    """Each instance is made, started, stopped, and forgotten, beside nine others."""
    first = make(place)
    first.migrate()
    first.repo.close()
    del first

    def one() -> None:
        make(place).start().stop()

    cycle(place, one, tmp_path)


def test_one_instance_that_works(place: Database, tmp_path: Path) -> None:
    """Whichever thread starts the instance gives it a job; the others may stop it at any moment."""
    oban = make(place)
    oban.migrate()
    tables = Tables(place)
    ids: list[Any] = []

    def one() -> None:
        while True:
            try:
                oban.start()
            except StartFailed as error:
                if error.reason != "it runs already":
                    raise
                oban.stop()
                continue
            ids.append(oban.insert(Job.new({}, worker="endurance.work", queue="alpha")).id)
            oban.stop()
            return

    cycle(place, one, tmp_path)
    with oban:
        wait_until(lambda: set(tables.states().values()) == {"completed"}, message="all jobs ran")
    assert sorted(tables.states()) == sorted(ids)
    assert len(ids) == WARM + CYCLES
    tables.engine.dispose()


def test_a_kept_session_is_seen(postgres_server: Server) -> None:
    """The counts that the others rely on see what they have to."""
    with new_database(postgres_server) as name:
        address = postgres_server.conninfo(name)
        place = Database("postgresql", postgres_server.url(name))
        assert (sessions(address), locks(address)) == (0, 0)
        before = holdings()
        tables = Tables(place)
        with tables.engine.connect() as connection:
            tables.on(connection, "SELECT pg_advisory_lock(1)")
            assert (sessions(address), locks(address)) == (1, 1)
            more = holdings().beyond(before)
            assert more["files"] == {"socket": 1}
            assert more["objects"]["psycopg.Connection"] == 1
            with pytest.raises(AssertionError, match=r"left behind: .*psycopg\.Connection"):
                nothing_beyond(before, 0.1)
        tables.engine.dispose()
