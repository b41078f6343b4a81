"""Workers that complete their job in the transaction that holds their own data."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban_actors import Beat, Cancel, ClaimLost, Job, JobState, NotRunning, Oban, Snooze, worker
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until


class Bench:
    """What the worker of one test does, and what it met."""

    def __init__(self) -> None:
        self.do: Callable[[Job], Any] = lambda _: None
        self.met: BaseException | None = None
        self.over = threading.Event()


_bench = Bench()


@pytest.fixture
def bench() -> Bench:
    """A new one for each test."""
    global _bench  # noqa: PLW0603 (the workers are the program's)
    _bench = Bench()
    return _bench


@worker(name="tests.completing", queue="alpha", backoff=3600)
def complete(job: Job) -> None:
    """Do what the test says."""
    bench = _bench
    try:
        bench.do(job)
    except BaseException as error:
        bench.met = error
        raise
    finally:
        bench.over.set()


@worker(name="tests.acompleting", queue="alpha", backoff=3600)
async def acomplete(job: Job) -> None:
    """Do what the test says, and await it."""
    bench = _bench
    try:
        await bench.do(job)
    finally:
        bench.over.set()


def in_state(oban: Oban, job: Job, state: JobState) -> None:
    """Wait until its row shows a state."""
    wait_until(lambda: (found := oban.get_job(job.id or 0)) and found.state == state)


def test_work_and_end_are_one_commit(
    database: Database, start_oban: Starter, bench: Bench, told: Recorder
) -> None:
    """With a Session: the row is completed by the worker's commit, and success is told once."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    seen: list[str] = []

    def do(job: Job) -> None:
        with Session(engine) as session:
            job.complete(session=session)
            session.commit()
        seen.append(start_oban.tables.states()[job.id or 0])

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    job = oban.insert(complete.new())

    stop = told.wait_for("oban.job.stop")
    assert seen == ["completed"]
    assert stop.metadata["state"] == "success"
    found = oban.get_job(job.id or 0)
    assert found is not None
    assert found.errors == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_who_goes_on_after_its_end_is_not_disturbed(
    database: Database, start_oban: Starter, bench: Bench, told: Recorder, kind: str
) -> None:
    """A beat that finds the row completed tells its run nothing; success is told when it ends."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    completed, gate = threading.Event(), Future[None]()
    seen: list[bool] = []

    def finish(job: Job) -> None:
        with Session(engine) as session:
            job.complete(session=session)
            session.commit()
        completed.set()

    def do(job: Job) -> None:
        finish(job)
        gate.result(60)
        seen.append(job.cancelled)

    async def ado(job: Job) -> None:
        finish(job)
        await asyncio.wrap_future(gate)
        seen.append(job.cancelled)

    bench.do = do if kind == "sync" else ado
    oban = start_oban(queues={"alpha": 1})
    oban.insert(complete.new() if kind == "sync" else acomplete.new())
    assert completed.wait(60)
    for _ in range(2):
        oban.ask("pulse", Beat(), timeout=30)
    oban.whereis(("foreman", "alpha")).proxy().config.get()
    gate.set_result(None)

    assert told.wait_for("oban.job.stop").metadata["state"] == "success"
    assert seen == [False]


def test_without_the_commit_it_is_not_completed(
    database: Database, start_oban: Starter, bench: Bench
) -> None:
    """The worker's transaction fails, and so does its job, to be tried again."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)

    def do(job: Job) -> None:
        with engine.begin() as connection:
            job.complete(connection=connection)
            raise RuntimeError("the worker's own write failed")

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    job = oban.insert(complete.new())

    in_state(oban, job, JobState.RETRYABLE)
    found = oban.get_job(job.id or 0)
    assert found is not None
    assert "the worker's own write failed" in found.errors[0]["error"]


@pytest.mark.parametrize(("most", "state"), [(20, "retryable"), (1, "discarded")])
def test_a_commit_that_was_forgotten_is_a_failure(
    database: Database, start_oban: Starter, bench: Bench, told: Recorder, most: int, state: str
) -> None:
    """A worker that returns, but whose work was rolled back, has not done it: neither is there."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)

    def do(job: Job) -> None:
        with engine.connect() as connection:
            job.complete(connection=connection)

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    job = oban.insert(complete.new(max_attempts=most))

    event = told.wait_for("oban.job.exception")
    found = oban.get_job(job.id or 0)
    assert found is not None
    assert (found.state, found.completed_at) == (state, None)
    (error,) = found.errors
    assert error["error"] == (
        "** (PerformError) tests.completing completed its job in a transaction that was not "
        "committed"
    )
    assert event.metadata["state"] == {"retryable": "failure", "discarded": "discard"}[state]
    assert str(event.metadata["error"]) in error["error"]


@pytest.mark.parametrize("after", ["raise", "snooze", "cancel", "late"])
def test_what_comes_after_the_commit_counts_for_nothing(
    database: Database,
    start_oban: Starter,
    bench: Bench,
    told: Recorder,
    caplog: pytest.LogCaptureFixture,
    after: str,
) -> None:
    """A job that its worker has completed is done, and told as such, however the run ends."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)

    def do(job: Job) -> None:
        with engine.begin() as connection:
            job.complete(connection=connection)
        if after == "late":
            assert job.running is not None
            job.running.cancel("timeout")
        raise {"snooze": Snooze(60), "cancel": Cancel("no more")}.get(after, ValueError("boom"))

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    job = oban.insert(complete.new())

    event = told.wait_for("oban.job.stop")
    found = oban.get_job(job.id or 0)
    assert found is not None
    assert (found.state, found.errors, found.cancelled_at) == ("completed", [], None)
    assert event.metadata["state"] == "success"
    assert told.all("oban.job.stale") == told.all("oban.job.exception") == []
    failed = f"job {job.id} completed itself before its worker failed: ** (ValueError) boom"
    assert (failed in caplog.text) == (after in ("raise", "late"))


def test_a_job_that_completed_itself_may_run_on(
    database: Database,
    start_oban: Starter,
    bench: Bench,
    told: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its row is claimed no longer, and a beat that sees it doesn't take the job for lost."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)

    def do(job: Job) -> None:
        with engine.begin() as connection:
            job.complete(connection=connection)
        oban.ask("pulse", Beat(), timeout=30)

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    oban.insert(complete.new())

    assert told.wait_for("oban.job.stop").metadata["state"] == "success"
    assert bench.met is None
    assert "taken from this node" not in caplog.text


def test_a_claim_that_is_gone_can_not_be_completed(
    database: Database, start_oban: Starter, bench: Bench
) -> None:
    """A job that was cancelled meanwhile stays so, and the worker is told by `ClaimLost`."""
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    begun, cancelled = threading.Event(), threading.Event()

    def do(job: Job) -> None:
        begun.set()
        cancelled.wait(60)
        with engine.begin() as connection:
            job.complete(connection=connection)

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    job = oban.insert(complete.new())
    assert begun.wait(60)
    oban.cancel_job(job)
    cancelled.set()

    assert bench.over.wait(60)
    assert isinstance(bench.met, ClaimLost)
    in_state(oban, job, JobState.CANCELLED)


def test_an_async_session(database: Database, start_oban: Starter, bench: Bench) -> None:
    """What has to be awaited completes with `acomplete`; `complete` says so."""
    driver = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite+aiosqlite"}[database.kind]
    url = sa.make_url(database.url).set(drivername=driver)
    refused: list[str] = []

    async def do(job: Job) -> None:
        engine = create_async_engine(url, poolclass=sa.NullPool)
        try:
            async with AsyncSession(engine) as session:
                with pytest.raises(TypeError, match=r"await job\.acomplete") as refusal:
                    job.complete(session=session)
                refused.append(str(refusal.value))
                await job.acomplete(session=session)
                await session.commit()
        finally:
            await engine.dispose()

    bench.do = do
    oban = start_oban(queues={"alpha": 1})
    job = oban.insert(acomplete.new())

    in_state(oban, job, JobState.COMPLETED)
    assert refused


def test_a_plain_psycopg_connection(pg: Database, start_pg: Starter, bench: Bench) -> None:
    """Whatever `insert` takes will do, such as psycopg's own connection."""
    conninfo = (
        sa.make_url(pg.url).set(drivername="postgresql").render_as_string(hide_password=False)
    )

    def do(job: Job) -> None:
        with psycopg.connect(conninfo) as connection:
            job.complete(connection=connection)

    bench.do = do
    oban = start_pg(queues={"alpha": 1})
    job = oban.insert(complete.new())

    in_state(oban, job, JobState.COMPLETED)
    assert bench.met is None


def test_the_end_waits_for_a_commit_that_is_late(
    database: Database, start_oban: Starter, bench: Bench
) -> None:
    """A worker that returns before its transaction is over is still completed once."""
    if database.kind == "sqlite":
        pytest.skip("SQLite has one writer: the acknowledgement waits for it by itself")
    engine = sa.create_engine(database.url, poolclass=sa.NullPool)
    open_transactions: list[sa.Connection] = []

    def do(job: Job) -> None:
        connection = engine.connect()
        open_transactions.append(connection)
        job.complete(connection=connection)

    bench.do = do
    oban = start_oban(queues={"alpha": 1, "beta": 1})
    job = oban.insert(complete.new())
    assert bench.over.wait(60)
    bench.over.clear()
    bench.do = lambda _: None
    other = oban.insert(complete.new(queue="beta"))
    in_state(oban, other, JobState.COMPLETED)

    for connection in open_transactions:
        connection.commit()
        connection.close()

    in_state(oban, job, JobState.COMPLETED)
    wait_until(lambda: (view := oban.check_queue("alpha")) is not None and not view.unwritten)


def test_only_a_run_can_be_completed() -> None:
    """A job that nobody runs has nothing to complete."""
    with pytest.raises(NotRunning, match="only by its worker"):
        complete.new().complete(session=object())
