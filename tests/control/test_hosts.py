"""Control in the host's own transaction, whatever it holds it with."""

import asyncio

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban_actors import Job, Oban
from tests.support.databases import Database


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
