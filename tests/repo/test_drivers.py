"""Hosts whose own connections use another driver than ours."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban_actors import Job, Oban, Stage, migrations
from oban_actors.repo import schema
from oban_actors.repo.sqlstates import sqlstate
from tests.support.databases import Database
from tests.support.instances import Tables, available, scheduled, wait_until_leader

T = TypeVar("T")

pytestmark = pytest.mark.db

DRIVERS = ["psycopg", "psycopg2", "pg8000", "asyncpg"]
ARGS = {"text": "ä ' \\ \" %s :x", "list": [1, None, {"deep": True}]}


class Host:
    """A host's program, with its own engine.

    Args:
        url: of the database.
        driver: the engine's.

    """

    def __init__(self, url: str, driver: str) -> None:
        self.url = sa.make_url(url).set(drivername=f"postgresql+{driver}")
        self.engine: sa.Engine | AsyncEngine
        if driver == "asyncpg":
            # Its connections belong to the event loop that made them.
            self.engine = create_async_engine(self.url, poolclass=sa.NullPool)
        else:
            self.engine = sa.create_engine(self.url, poolclass=sa.NullPool)

    def within(self, work: Callable[[Session], T], *, commit: bool = True) -> T:
        """Do something in a session's transaction, and commit it or roll it back."""
        if isinstance(self.engine, AsyncEngine):
            return asyncio.run(self._within(self.engine, work, commit=commit))
        with Session(self.engine) as session:
            result = work(session)
            (session.commit if commit else session.rollback)()
            return result

    async def _within(
        self, engine: AsyncEngine, work: Callable[[Session], T], *, commit: bool
    ) -> T:
        async with AsyncSession(engine) as session:
            result = await session.run_sync(work)
            await (session.commit() if commit else session.rollback())
            return result


@pytest.fixture(params=DRIVERS)
def host(request: pytest.FixtureRequest, pg: Database) -> Host:
    """A host with each driver."""
    return Host(pg.url, request.param)


@contextmanager
def running(host: Host, pg: Database, **options: Any) -> Iterator[Oban]:
    """Give an instance that leads, made with the host's engine."""
    oban = Oban(host.engine, prefix=pg.prefix, **options)
    oban.migrate()
    with oban:
        wait_until_leader(oban)
        yield oban


def test_the_tree_works(host: Host, pg: Database) -> None:
    """Its own connections use psycopg, whatever the host's use."""
    with running(host, pg, stager={"interval": 3600.0}) as oban:
        job = oban.insert(scheduled(-5))
        oban.ask("stager", Stage(), timeout=30)

        assert oban.get_job(job.id or 0).state == "available"
        assert oban.repo.engine.dialect.driver == "psycopg"


def test_insert_with_the_hosts_session(host: Host, pg: Database) -> None:
    """In its transaction: there at the commit, gone with a rollback, and all values as given."""
    with running(host, pg) as oban:
        jobs = [
            Job.new(worker="tests.Worker", args=ARGS, tags=["a", 'b"c'], meta={"k": [ARGS]}),
            scheduled(60, priority=3),
        ]
        lost = host.within(lambda session: oban.insert(available(), session=session), commit=False)
        kept = host.within(lambda session: oban.insert_all(jobs, session=session))

        assert oban.get_job(lost.id or 0) is None
        found = [oban.get_job(job.id or 0) for job in kept]
        assert [job.state for job in found] == ["available", "scheduled"]
        assert (found[0].args, found[0].tags, found[0].meta) == (
            ARGS,
            ["a", 'b"c'],
            {"k": [ARGS]},
        )
        assert found[0].scheduled_at == kept[0].scheduled_at
        assert found[1].priority == 3


def test_insert_with_the_hosts_connection(host: Host, pg: Database) -> None:
    """Thousands at once."""
    with running(host, pg) as oban:
        jobs = [available() for _ in range(3_000)]

        kept = host.within(lambda s: oban.insert_all(jobs, connection=s.connection()))

        assert len({job.id for job in kept}) == len(jobs)
        assert Tables(pg).count("available") == len(jobs)


def test_the_hosts_migrations(host: Host, pg: Database) -> None:
    """The tables as a step of them, forth and back."""
    up = host.within(
        lambda s: (
            migrations.upgrade(s.connection(), pg.prefix, elixir_indexes=True),
            schema.inspect(s.connection(), pg.prefix),
        )[1]
    )
    down = host.within(
        lambda s: (
            migrations.downgrade(s.connection(), pg.prefix),
            schema.inspect(s.connection(), pg.prefix),
        )[1]
    )

    assert (up.version, up.staging_index) == (14, True)
    assert down.version == 0


def test_a_socket_named_among_the_options(pg: Database) -> None:
    """An address of asyncpg's may name the host behind the question mark."""
    url = sa.make_url(pg.url)
    named = url.set(
        drivername="postgresql+asyncpg",
        host=None,
        port=None,
        query={"host": f"{url.host}:{url.port}", "prepared_statement_cache_size": "0"},
    )
    oban = Oban(named, prefix=pg.prefix)

    assert oban.migrate() == 14
    oban.repo.close()


def test_the_code_of_an_error_of_a_driver_that_is_not_here() -> None:
    """pg8000 raises what the server said as it came, and SQLAlchemy wraps that."""
    said = {"S": "ERROR", "C": "55P03", "M": "canceling statement due to lock timeout"}

    assert sqlstate(sa.exc.ProgrammingError("SELECT 1", {}, Exception(said))) == "55P03"
    assert sqlstate(Exception({"S": "ERROR"})) is None
