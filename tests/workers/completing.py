"""A worker that completes its job in its own transaction, wherever it runs."""

import asyncio
import os
import threading
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban_actors import Cancel, ClaimLost, Job, Snooze, worker
from tests.support.waiting import wait_until


def _timeout(job: Job) -> float | None:
    seconds = job.args.get("timeout")
    return seconds if isinstance(seconds, float) else None


@worker(name="tests.completing_afar", queue="alpha", backoff=3600, timeout=_timeout)
def complete_afar(job: Job) -> object:
    """Do what the job says with the database that it names."""
    engine = sa.create_engine(job.args["url"], poolclass=sa.NullPool)
    match job.args["do"]:
        case "forget":
            with engine.connect() as connection:
                job.complete(connection=connection)
        case "hang":
            with engine.connect() as connection:
                job.complete(connection=connection)
                threading.Event().wait()
        case "fail":
            with engine.begin() as connection:
                job.complete(connection=connection)
                raise RuntimeError("the worker's own write failed")
        case "await":
            asyncio.run(_await(job))
        case "late":
            Path(job.args["begun"]).write_text("begun")
            wait_until(Path(job.args["go"]).exists, 60)
            Path(job.args["begun"]).write_text(_met(job, engine))
        case what:
            with Session(engine) as session:
                job.complete(session=session)
                session.commit()
            return _after(job, what, engine)
    return None


def _after(job: Job, what: str, engine: sa.Engine) -> object:
    match what:
        case "again":
            return _met(job, engine)
        case "stay":
            Path(job.args["begun"]).write_text("completed")
            wait_until(lambda: Path(job.args["go"]).exists() or job.cancelled, 60)
            return job.cancelled
        case "die":
            os._exit(7)
        case "raise":
            raise ValueError("boom")
        case "snooze":
            return Snooze(60)
        case "cancel":
            raise Cancel("no more")
    return what


def _met(job: Job, engine: sa.Engine) -> str:
    try:
        with engine.begin() as connection:
            job.complete(connection=connection)
    except ClaimLost as error:
        return str(error)
    return "nothing"


async def _await(job: Job) -> None:
    url = sa.make_url(job.args["url"])
    driver = {"sqlite": "sqlite+aiosqlite"}.get(url.drivername, url.drivername)
    engine = create_async_engine(url.set(drivername=driver), poolclass=sa.NullPool)
    try:
        async with AsyncSession(engine) as session:
            await job.acomplete(session=session)
            await session.commit()
    finally:
        await engine.dispose()
