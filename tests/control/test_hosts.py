"""Control in the host's own transaction, whatever it holds it with."""

import asyncio
import contextlib
import sqlite3
from datetime import timedelta, timezone
from functools import partial
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban_actors import Job, JobLocked, Oban
from oban_actors.host_connections import adopt
from tests.inserting.hosts import ASYNC, SYNC, AsyncHost
from tests.support.databases import Database
from tests.support.instances import Starter


@pytest.fixture
def job() -> Job:
    """A job that can be cancelled."""
    return Job.new(worker="tests.Worker", args={"a": 1})


def test_a_psycopg_connection(pg: Database, job: Job) -> None:
    """Cancelled with psycopg's own connection, it is so once that commits, and not before."""
    oban = Oban(pg.url, prefix=pg.prefix)
    oban.migrate()
    try:
        first, second = oban.insert_all([job, job.copy()])
        conninfo = sa.make_url(pg.url).set(drivername="postgresql")
        with psycopg.connect(conninfo.render_as_string(hide_password=False)) as connection:
            assert oban.cancel_job(first, connection=connection)
            assert oban.get_job(first.id or 0).state == "available"
            connection.commit()
            assert oban.get_job(first.id or 0).state == "cancelled"
            assert oban.cancel_all_jobs(state="available", connection=connection) == 1
            connection.rollback()
        assert oban.get_job(second.id or 0).state == "available"
    finally:
        oban.repo.close()


def test_conditions_on_a_drivers_own_connection(database: Database, job: Job) -> None:
    """Moments of any zone, lists of them, and JSON are written as the columns have them."""
    oban = Oban(database.url, prefix=database.prefix)
    oban.migrate()
    inserted = oban.insert(job)
    at = (oban.get_job(inserted.id or 0) or inserted).inserted_at
    assert at is not None
    # So far east that its own date and hour say another time of day.
    east = at.astimezone(timezone(timedelta(hours=14)))
    columns = oban.jobs.c
    with contextlib.closing(connect(database)) as connection:

        def found(condition: sa.ColumnElement[bool]) -> int:
            return len(oban.all_jobs(condition, connection=connection))

        assert found(columns.inserted_at == east) == 1
        assert found(columns.inserted_at > east) == 0
        assert found(columns.inserted_at.in_([east, east + timedelta(days=1)])) == 1
        assert found(columns.inserted_at.in_([east + timedelta(seconds=1)])) == 0
        if database.kind == "postgresql":
            assert found((columns.args == {"a": 1}) & (columns.state == "available")) == 1
            assert found(columns.args == {"a": 2}) == 0
        assert oban.cancel_all_jobs(columns.inserted_at < east, connection=connection) == 0
        assert oban.cancel_all_jobs(columns.inserted_at <= east, connection=connection) == 1
    oban.repo.close()


def connect(database: Database) -> Any:
    """Connect as a host without SQLAlchemy does."""
    url = sa.make_url(database.url)
    if database.kind == "sqlite":
        connection = sqlite3.connect(url.database or "")
        connection.execute("BEGIN")
        return connection
    plain = url.set(drivername="postgresql")
    return psycopg.connect(plain.render_as_string(hide_password=False))


def test_an_async_session(database: Database, job: Job) -> None:
    """The async twins use an AsyncSession on the loop; its rollback takes all back."""
    driver = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}[database.kind]
    url = sa.make_url(database.url).set(drivername=driver)
    oban = Oban(database.url, prefix=database.prefix)
    oban.migrate()
    inserted = oban.insert(job)

    async def main() -> None:
        engine = create_async_engine(url, poolclass=sa.NullPool)
        try:
            async with AsyncSession(engine) as session:
                assert await oban.acancel_job(inserted, session=session)
                assert [found.state for found in await oban.aall_jobs(session=session)] == [
                    "cancelled"
                ]
                await session.rollback()
            assert (await oban.aget_job(inserted.id or 0)).state == "available"
            async with AsyncSession(engine) as session:
                updated = await oban.aupdate_job(inserted, {"priority": 3}, session=session)
                await session.commit()
            assert updated.priority == 3
        finally:
            await engine.dispose()

    try:
        asyncio.run(main())
        assert oban.get_job(inserted.id or 0).priority == 3
    finally:
        oban.repo.close()


ERROR = {"at": "2026-11-24T12:00:00.000000Z", "attempt": 1, "error": "boom: 100 % :now"}


def full() -> Job:
    """Make a job with something in each column that a driver could read in its own way."""
    made = Job.new(
        {"a": [1, {"b": None}], "text": "100 % ü :now"},
        worker="tests.Worker",
        tags=["a", "b%"],
        meta={"m": 1},
    )
    made.attempt, made.max_attempts, made.errors = 1, 3, [ERROR]
    return made


@pytest.mark.parametrize(("kind", "make", "driver"), SYNC)
def test_whatever_a_host_holds(start_oban: Starter, kind: str, make: Any, driver: str) -> None:
    """It reads jobs as we do, and takes every change back with its rollback."""
    if start_oban.database.kind != kind:
        pytest.skip(f"for {kind}")
    oban = start_oban.make()
    job, other = oban.insert_all([full(), full()])
    with make(start_oban.database, driver) as host:
        on = {"session" if "session" in make.__name__ else "connection": host.handle}
        assert oban.get_job(job.id or 0, **on) == job
        assert oban.all_jobs(args={"a": [1]}, meta={"m": 1}, tags="b%", **on) == [job, other]
        assert oban.all_jobs(oban.jobs.c.scheduled_at < job.scheduled_at, **on) == []
        changed = oban.update_job(job, lambda job: {"args": {**job.args, "more": "%"}}, **on)
        assert changed.args == {**job.args, "more": "%"}
        assert changed.errors == [ERROR]
        assert oban.cancel_job(job, **on)
        assert oban.cancel_all_jobs(sa.select(oban.jobs), **on) == 1
        assert oban.retry_all_jobs(args={"more": "%"}, **on) == 1
        assert oban.delete_all_jobs(state="available", **on) == 1
        assert [job.state for job in oban.all_jobs(**on)] == ["cancelled"]
        host.rollback()

    assert oban.all_jobs() == [job, other]


@pytest.mark.parametrize(("make", "driver"), [each[1:] for each in SYNC if each[0] != "sqlite"])
def test_a_row_that_somebody_has_locked(
    pg: Database, start_pg: Starter, make: Any, driver: str
) -> None:
    """Whatever a host holds, it is told by `JobLocked`, after as long as it waits for locks."""
    oban = start_pg.make()
    job = oban.insert(full())
    with start_pg.tables.engine.connect() as other:
        start_pg.tables.on(other, "SELECT id FROM {jobs} FOR UPDATE")
        for call in (partial(oban.cancel_job, job), partial(oban.delete_all_jobs, tags="a")):
            with make(pg, driver) as host:
                adopted = adopt(host.handle, "connection", "postgresql")
                adopted.execute(sa.text("SET LOCAL lock_timeout = 100"))
                with pytest.raises(JobLocked):
                    call(connection=host.handle)
                host.rollback()


@pytest.mark.parametrize(("kind", "held", "driver"), ASYNC)
def test_whatever_a_host_awaits(start_oban: Starter, kind: str, held: str, driver: str) -> None:
    """The async twins read and change the same with what has to be awaited."""
    if start_oban.database.kind != kind:
        pytest.skip(f"for {kind}")
    oban = start_oban.make()
    job, other = oban.insert_all([full(), full()])

    async def main() -> None:
        async with AsyncHost(start_oban.database, held, driver) as host:
            on = {"connection" if held in ("connection", "bare") else "session": host.handle}
            assert await oban.aget_job(job.id or 0, **on) == job
            assert await oban.aall_jobs(args={"a": [1]}, tags="b%", **on) == [job, other]
            changed = await oban.aupdate_job(job, {"meta": {"more": "%"}}, **on)
            assert (changed.meta, changed.errors) == ({"more": "%"}, [ERROR])
            assert await oban.acancel_job(job, **on)
            assert await oban.acancel_all_jobs(sa.select(oban.jobs), **on) == 1
            assert await oban.aretry_job(job, **on)
            assert await oban.aretry_all_jobs(state="cancelled", **on) == 1
            assert await oban.adelete_job(job, **on)
            assert await oban.adelete_all_jobs(meta={"m": 1}, **on) == 1
            assert await oban.aall_jobs(**on) == []
            await host.handle.rollback()

    asyncio.run(main())
    assert oban.all_jobs() == [job, other]
