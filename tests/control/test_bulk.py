"""Calls for many jobs: batches, the host's transaction, asyncio, and the tables of old versions."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban_actors import ConfigError, JobLocked, JobState, Oban, controlling
from tests.control.conftest import insert_each_state, job_in, waits_for_lock
from tests.support.instances import Starter, Tables

Aside = Callable[..., Future[Any]]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlling, "BATCH", 3)


@pytest.mark.usefixtures("_small")
def test_each_batch_is_a_transaction(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction changes more than a batch, and what is done stays done when one fails."""
    oban.insert_all(job_in("available") for _ in range(8))
    batches: list[list[int]] = []
    cancel = oban._engine.cancel_jobs

    def spy(connection: sa.Connection, ids: list[int], *rest: Any, **options: Any) -> Any:
        batches.append(list(ids))
        if len(batches) == 3:
            raise ZeroDivisionError
        return cancel(connection, ids, *rest, **options)

    monkeypatch.setattr(oban._engine, "cancel_jobs", spy)
    with pytest.raises(ZeroDivisionError):
        oban.cancel_all_jobs(queue="default", order="-id")

    assert batches == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert [job.state for job in oban.all_jobs()] == ["cancelled"] * 6 + ["available"] * 2


def test_a_batch_is_a_thousand(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for longer than a thousand rows take."""
    oban.insert_all([job_in("available") for _ in range(1_001)])
    sizes: list[int] = []
    delete = oban._engine.delete_jobs

    def spy(connection: sa.Connection, ids: list[int], *rest: Any, **options: Any) -> Any:
        sizes.append(len(ids))
        return delete(connection, ids, *rest, **options)

    monkeypatch.setattr(oban._engine, "delete_jobs", spy)

    assert oban.delete_all_jobs(queue="default") == 1_001
    assert sizes == [1_000, 1]


@pytest.mark.usefixtures("_small")
def test_counts(oban: Oban) -> None:
    """Each call says how many it changed, over all batches; again it changes none."""
    oban.insert_all(job_in("executing") for _ in range(7))

    assert (oban.cancel_all_jobs(everything=True), oban.cancel_all_jobs(everything=True)) == (7, 0)
    assert (oban.retry_all_jobs(everything=True), oban.retry_all_jobs(everything=True)) == (7, 0)
    assert (oban.delete_all_jobs(everything=True), oban.delete_all_jobs(everything=True)) == (7, 0)


@pytest.mark.db
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_locked_rows_come_last(oban: Oban, tables: Tables, aside: Aside) -> None:
    """Rows that somebody has locked hold up no other one, and are changed when they are free."""
    oban.insert_all(job_in("available") for _ in range(6))
    with tables.engine.begin() as connection:
        tables.on(connection, "SELECT id FROM {jobs} WHERE id IN (1, 5) FOR UPDATE")
        call = aside(oban.cancel_all_jobs, queue="default")
        waits_for_lock(tables)
        states = [state for _, state in sorted(tables.states().items())]
        assert states == ["available", *["cancelled"] * 3, "available", "cancelled"]

    assert call.result(30) == 6
    assert set(tables.states().values()) == {"cancelled"}


@pytest.mark.db
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_rows_that_stay_locked(start_oban: Starter) -> None:
    """After `lock_timeout` they are named, with how many others are changed for good."""
    oban, tables = start_oban.make(lock_timeout=0.1), start_oban.tables
    oban.insert_all(job_in("available") for _ in range(7))
    with tables.engine.begin() as connection:
        tables.on(connection, "SELECT id FROM {jobs} WHERE id IN (2, 6) FOR UPDATE")
        with pytest.raises(JobLocked, match=r"could not cancel jobs 2, 6: .* 5 others") as caught:
            oban.cancel_all_jobs(queue="default")
        with pytest.raises(JobLocked, match="could not delete job 6: locked") as one:
            oban.delete_job(6)

    assert (caught.value.ids, caught.value.changed, one.value.ids) == ((2, 6), 5, (6,))
    assert tables.count("cancelled") == 5


def test_the_hosts_transaction(oban: Oban, tables: Tables) -> None:
    """What is done with the host's session or connection counts when that commits."""
    oban.insert_all(job_in("available") for _ in range(4))

    with Session(tables.engine) as session:
        assert oban.cancel_job(1, session=session)
        assert oban.update_job(2, {"priority": 3}, session=session).priority == 3
        assert oban.delete_all_jobs(id=[3], session=session) == 1
        assert len(oban.all_jobs(session=session)) == 3
        session.rollback()
    assert oban.all_jobs(state="available", priority=0) == oban.all_jobs()
    with tables.engine.begin() as connection:
        assert oban.cancel_all_jobs(everything=True, connection=connection) == 4
        assert oban.retry_job(1, connection=connection)
        found = oban.get_job(1, connection=connection)
        assert found is not None
        assert found.state == "available"
    assert tables.count("cancelled") == 3
    both = r"got both: sqlalchemy\.orm\.session\.Session and sqlalchemy\.engine\.base\.Connection$"
    with pytest.raises(ConfigError, match=both), Session(tables.engine) as session:
        oban.cancel_job(1, session=session, connection=session.connection())
    with pytest.raises(ConfigError, match="'session'"):
        oban.cancel_job(1, session=object())


def test_notifications_of_the_hosts_transaction(start_oban: Starter) -> None:
    """Nobody is told of what was rolled back."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "signal", "insert")
    job = oban.insert(job_in("executing"))
    with Session(start_oban.tables.engine) as session:
        oban.cancel_job(job, session=session)
        session.rollback()
        oban.cancel_job(job, session=session)
        session.commit()
        oban.retry_job(job, session=session)
        session.commit()

    assert heard.wait_for("insert") == [{"queue": "default"}]
    assert heard.payloads("signal") == [{"action": "pkill", "job_id": job.id}]


def test_async_twins(oban: Oban) -> None:
    """Each call has a twin for an event loop that does the same."""
    oban.insert_all(job_in("available") for _ in range(4))

    async def work() -> None:
        assert await oban.acancel_job(1) is True
        assert await oban.aretry_job(1) is True
        assert await oban.adelete_job(1) is True
        assert (await oban.aupdate_job(2, {"priority": 2})).priority == 2
        assert await oban.acancel_all_jobs(id=[2, 3]) == 2
        assert await oban.aretry_all_jobs(state="cancelled", id=3) == 1
        assert await oban.adelete_all_jobs(state="cancelled") == 1
        assert [job.id for job in await oban.aall_jobs(order="-id")] == [4, 3]
        assert (await oban.aget_job(2)) is None

    asyncio.run(work())


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_hosts_async_session(oban: Oban, tables: Tables) -> None:
    """SQLAlchemy's async session is used where its owner uses it."""
    oban.insert_all(job_in("available") for _ in range(2))

    async def work() -> None:
        engine = create_async_engine(tables.engine.url)
        async with AsyncSession(engine) as session:
            assert await oban.acancel_job(1, session=session)
            await session.rollback()
        async with engine.begin() as connection:
            assert await oban.acancel_all_jobs(id=[2], connection=connection) == 1
        await engine.dispose()

    asyncio.run(work())
    assert [job.state for job in oban.all_jobs()] == ["available", "cancelled"]


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_tables_without_the_newest_state(oban: Oban, tables: Tables) -> None:
    """Tables from before `suspended` was a state work too, as do tags of their older type."""
    oban.rollback(13)
    tables.execute("ALTER TABLE {jobs} ALTER COLUMN tags DROP DEFAULT")
    tables.execute("ALTER TABLE {jobs} ALTER COLUMN tags TYPE varchar[]")
    states = [state for state in JobState if state is not JobState.SUSPENDED]
    oban.insert_all(job_in(state, tags=["t"]) for state in states)

    assert oban.retry_all_jobs(everything=True, limit=1) == 1
    assert oban.cancel_all_jobs(tags="t") == 4
    assert oban.delete_all_jobs(everything=True) == 7
    assert oban.all_jobs() == []


def test_each_state(oban: Oban) -> None:
    """All jobs of a table at once: what a call is not for is not counted."""
    insert_each_state(oban)
    assert oban.cancel_all_jobs(everything=True) == 5
    assert oban.retry_all_jobs(everything=True) == 8
    assert oban.delete_all_jobs(everything=True) == 8
