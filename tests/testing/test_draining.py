"""drain_queue: a queue's jobs run where it is called, and are acknowledged as always."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_actors import ConfigError, Job, JobState, Oban, VirtualClock, telemetry
from oban_actors.errors import DatabaseUnavailable
from oban_actors.queues import drainer
from oban_actors.queues.drainer import Drainer
from oban_actors.testing import DrainCounts
from tests.support.events import recording
from tests.support.instances import Starter
from tests.support.waiting import wait_until
from tests.testing import work
from tests.testing.work import read


def test_every_end_is_counted_and_recorded(oban: Oban) -> None:
    """Each verdict has its count, its row shows it, and its event is told."""
    jobs = oban.insert_all(
        [
            work.note.new({"end": "fine"}),
            work.ANote.new({"end": "fine"}),
            work.note.new({"end": "raise"}),
            work.note.new({"end": "raise"}, max_attempts=1),
            work.note.new({"end": "cancel"}),
            work.ANote.new({"end": "raise snooze"}),
        ]
    )

    with recording("oban.job.stop", "oban.job.exception") as events:
        counts = oban.drain_queue("alpha")

    assert counts == DrainCounts(cancelled=1, discard=1, failure=1, snoozed=1, success=2)
    rows = [read(oban, job) for job in jobs]
    states = ["completed", "completed", "retryable", "discarded", "cancelled", "scheduled"]
    assert [row.state for row in rows] == states
    assert "ValueError) boom" in rows[2].errors[0]["error"]
    assert rows[5].meta == {"snoozed": 1}
    assert all(row.attempted_by[0] == oban.config.node for row in rows)
    told = [event.metadata["state"] for event in events.all("oban.job.stop")]
    assert told == ["success", "success", "cancelled", "snoozed"]
    assert len(events.all("oban.job.exception")) == 2


def test_only_the_queue_asked_for_is_drained(oban: Oban) -> None:
    """Jobs of other queues and jobs that are not due stay as they are."""
    other = oban.insert(work.note.new(queue="beta"))
    later = oban.insert(work.note.new(schedule_in=3600))

    assert oban.drain_queue("alpha") == DrainCounts()
    assert read(oban, other).state == "available"
    assert read(oban, later).state == "scheduled"


def test_jobs_run_in_the_order_of_a_queue(oban: Oban) -> None:
    """Priority first, then time, then id."""
    oban.insert_all([work.note.new({"n": 3}, priority=2), work.note.new({"n": 1})])
    oban.insert_all([work.note.new({"n": 2}), work.note.new({"n": 4}, priority=9)])

    oban.drain_queue("alpha")

    assert work.RAN == [1, 2, 3, 4]


def test_a_limit_leaves_the_rest_available(oban: Oban) -> None:
    """`with_limit` bounds what is claimed; the rest is not touched."""
    jobs = oban.insert_all(work.note.new({"n": n}) for n in range(5))

    assert oban.drain_queue("alpha", with_limit=2).success == 2
    assert [read(oban, job).state for job in jobs] == ["completed"] * 2 + ["available"] * 3
    assert oban.drain_queue("alpha", with_limit=2, with_recursion=True).success == 3


def test_recursion_runs_what_jobs_insert(oban: Oban) -> None:
    """Without recursion only what was there runs, with it all that follows."""
    oban.insert(work.link.new({"left": 3}))

    assert oban.drain_queue("alpha").success == 1
    assert oban.drain_queue("alpha", with_recursion=True).success == 3
    assert work.RAN == [3, 2, 1, 0]


def test_scheduled_jobs_run_when_asked_for(oban: Oban) -> None:
    """`with_scheduled` takes all that are put off, or those due by a time, retryable ones too."""
    soon = oban.insert(work.note.new({"n": 1}, schedule_in=60))
    late = oban.insert(work.note.new({"n": 2}, schedule_in=7200))
    other = oban.insert(work.note.new({"n": 3}, schedule_in=60, queue="beta"))
    until = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251 (as a user writes it)

    assert oban.drain_queue("alpha", with_scheduled=until).success == 1
    assert [read(oban, job).state for job in (soon, late)] == ["completed", "scheduled"]
    assert oban.drain_queue("alpha", with_scheduled=True).success == 1
    assert work.RAN == [1, 2]
    assert read(oban, other).state == "scheduled"


@pytest.mark.parametrize(("seconds", "ran"), [(0, 1), (1, 0)])
def test_times_that_others_wrote(oban: Oban, start_oban: Starter, seconds: int, ran: int) -> None:
    """They may have no digits below the second, and on SQLite a blank where others have a T."""
    oban.insert(work.note.new(schedule_in=60))
    start_oban.tables.execute(
        "UPDATE {jobs} SET scheduled_at = :at", at=f"2026-01-02 12:00:0{seconds}"
    )
    until = datetime(2026, 1, 2, 12, tzinfo=UTC)

    assert oban.drain_queue("alpha", with_scheduled=until).success == ran


def test_retries_run_until_none_is_left(oban: Oban) -> None:
    """With recursion and scheduled jobs a failing job is tried until it is discarded."""
    job = oban.insert(work.note.new({"end": "raise"}, max_attempts=3))

    counts = oban.drain_queue("alpha", with_recursion=True, with_scheduled=True)

    assert counts == DrainCounts(failure=2, discard=1)
    assert [error["attempt"] for error in read(oban, job).errors] == [1, 2, 3]


def test_without_safety_the_error_is_raised_and_nothing_lost(oban: Oban) -> None:
    """The failure is recorded, what ran stays done, what did not begin is given back whole."""
    jobs = oban.insert_all(
        [work.note.new({"n": 1}), work.note.new({"end": "raise"}), work.note.new({"n": 2})]
    )

    with pytest.raises(ValueError, match=r"^boom$"):
        oban.drain_queue("alpha", with_safety=False)

    rows = [read(oban, job) for job in jobs]
    assert [row.state for row in rows] == ["completed", "retryable", "available"]
    assert [row.attempt for row in rows] == [1, 1, 0]
    assert oban.drain_queue("alpha").success == 1


def test_an_interrupt_ends_the_drain(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a job reaches whoever drains, and the jobs after it are given back."""
    jobs = oban.insert_all([work.note.new(), work.note.new()])

    def interrupted(_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "end_as", interrupted)
    with pytest.raises(KeyboardInterrupt):
        oban.drain_queue("alpha")

    assert [read(oban, job).state for job in jobs] == ["retryable", "available"]


def test_ctrl_c_in_an_async_job_ends_the_drain(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop makes a cancellation of it, which says nothing of the drain's own end."""
    jobs = oban.insert_all([work.aacts.new(), work.aacts.new()])

    async def interrupted(_job: Job) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(work, "aact", interrupted)
    with pytest.raises(KeyboardInterrupt):
        oban.drain_queue("alpha")

    rows = [read(oban, job) for job in jobs]
    assert [row.state for row in rows] == ["retryable", "available"]
    assert rows[0].errors[0]["error"].startswith("** (KeyboardInterrupt)")


@pytest.mark.parametrize("heeds", [True, False])
def test_ctrl_c_within_a_running_loop_ends_the_drain(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, *, heeds: bool
) -> None:
    """As in a notebook: what runs in a thread of its own ends first, and is not given back."""
    jobs = oban.insert_all([work.aacts.new(), work.aacts.new()])
    main = threading.get_ident()

    async def interrupted(_job: Job) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        with contextlib.nullcontext() if heeds else contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def notebook() -> None:
        with pytest.raises(KeyboardInterrupt):
            oban.drain_queue("alpha")

    monkeypatch.setattr(work, "aact", interrupted)
    # `asyncio.run` would make a cancellation of the first signal.
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(notebook())

    rows = [read(oban, job) for job in jobs]
    assert [row.state for row in rows] == ["retryable" if heeds else "completed", "available"]
    assert [row.attempt for row in rows] == [1, 0]


def test_ctrl_c_after_an_async_job_ends_the_drain(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker made of it counts, and those after it are given back."""
    jobs = oban.insert_all([work.aacts.new(), work.aacts.new()])

    async def interrupted(_job: Job) -> None:
        signal.raise_signal(signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(work, "aact", interrupted)
    with pytest.raises(KeyboardInterrupt):
        oban.drain_queue("alpha")

    assert [read(oban, job).state for job in jobs] == ["completed", "available"]


def test_a_job_that_was_taken_meanwhile_keeps_its_row(
    oban: Oban, start_oban: Starter, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """An end that comes after somebody changed the row is dropped, logged and not counted."""
    job = oban.insert(work.note.new())

    def take(_args: Any) -> None:
        start_oban.tables.execute("UPDATE {jobs} SET state = 'discarded'")

    monkeypatch.setattr(work, "end_as", take)
    with caplog.at_level(logging.WARNING, "oban_actors"):
        counts = oban.drain_queue("alpha")

    assert counts == DrainCounts()
    assert read(oban, job).state == "discarded"
    assert f"job {job.id} had been taken" in caplog.text


@pytest.mark.parametrize("worker", [work.note, work.ANote], ids=["sync", "async"])
def test_a_job_cancels_itself_and_others(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, worker: Any
) -> None:
    """Those that were cancelled while they ran are counted; those that were before do not run."""
    jobs = oban.insert_all([worker.new({"nth": nth}) for nth in range(4)])
    ran: list[int] = []

    def cancel(args: dict[str, Any]) -> None:
        ran.append(args["nth"])
        if args["nth"] == 1:
            oban.cancel_job(jobs[1])
            oban.cancel_job(jobs[2])
            oban.delete_job(jobs[2])

    async def acancel(args: dict[str, Any]) -> None:
        cancel(args)

    monkeypatch.setattr(work, "end_as", cancel)
    monkeypatch.setattr(work, "aact", acancel)
    assert oban.drain_queue("alpha") == DrainCounts(cancelled=1, success=2)
    assert ran == [0, 1, 3]

    oban.insert_all([worker.new({"nth": nth}) for nth in (1, 2)])
    jobs[1:3] = oban.all_jobs(state="available")
    monkeypatch.setattr(oban, "delete_job", lambda _: None)
    assert oban.drain_queue("alpha") == DrainCounts(cancelled=2)
    assert ran == [0, 1, 3, 1]


def test_a_drain_that_can_not_beat_tells_its_job_to_end(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others may take it for dead soon, and run its jobs; what came to no end is given back."""
    beat = Drainer._beat

    def fail(one: Drainer, connection: Any) -> Any:
        if threading.current_thread().name == "oban-drain-heart":
            raise DatabaseUnavailable("away")
        return beat(one, connection)

    monkeypatch.setattr(Drainer, "_beat", fail)
    monkeypatch.setattr(drainer, "LOST_AFTER", 0.1)
    monkeypatch.setattr(drainer, "WATCH", 0.05)
    job = oban.insert(work.forever.new({}))

    assert oban.drain_queue("alpha") == DrainCounts()
    assert (read(oban, job).state, read(oban, job).attempt) == ("available", 0)
    assert f"job {job.id} is told to end" in caplog.text


def test_a_job_that_keeps_its_file_to_itself(
    start_sqlite: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can beat then, and nobody rescue: it is left in peace."""
    oban = start_sqlite.make()
    monkeypatch.setattr(drainer, "LOST_AFTER", 0.1)
    monkeypatch.setattr(drainer, "WATCH", 0.05)
    monkeypatch.setattr(drainer, "BEAT_TIME", 0.1)
    job = oban.insert(work.early.new({}))

    def hold(_job: Job) -> None:
        with start_sqlite.tables.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            wait_until(lambda: caplog.text.count("beat failed") >= 3)
            connection.rollback()

    monkeypatch.setattr(work, "act", hold)
    assert oban.drain_queue("alpha") == DrainCounts(success=1)
    assert read(oban, job).state == "completed"
    assert "is told to end" not in caplog.text


@pytest.mark.parametrize("end", ["fine", "raise"])
def test_who_hears_of_an_end_cancels_the_next(oban: Oban, end: str) -> None:
    """It does not run, as with any other cancel before it begins."""
    first, second = oban.insert_all(work.note.new({"n": n, "end": end}) for n in range(2))

    def cancel(_name: str, _measurements: object, metadata: Mapping[str, Any]) -> None:
        if metadata["job"].id == first.id:
            oban.cancel_job(second)

    telemetry.attach_many("cancel", ("oban.job.stop", "oban.job.exception"), cancel)
    try:
        counts = oban.drain_queue("alpha")
    finally:
        telemetry.detach("cancel")

    assert counts == replace(DrainCounts(cancelled=1), **{ENDS[end]: 1})
    assert work.RAN == [0]


ENDS = {"fine": "success", "raise": "failure"}


def test_what_is_done_twice_is_done_once(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be lost of any of its transactions, which then comes again."""
    transaction = oban.repo.transaction

    def twice(work: Any, **options: Any) -> Any:
        transaction(work, **options)
        return transaction(work, **options)

    ends = ("fine", "raise", "cancel", "snooze")
    jobs = oban.insert_all(work.note.new({"n": n, "end": end}) for n, end in enumerate(ends))
    with monkeypatch.context() as patch:
        patch.setattr(oban.repo, "transaction", twice)
        counts = oban.drain_queue("alpha")

    assert counts == DrainCounts(success=1, failure=1, cancelled=1, snoozed=1)
    assert work.RAN == [0, 1, 2, 3]
    rows = [read(oban, job) for job in jobs]
    assert [row.attempt for row in rows] == [1, 1, 1, 0]
    assert [len(row.errors) for row in rows] == [0, 1, 1, 0]
    assert rows[3].meta == {"snoozed": 1}


def test_an_unknown_worker_and_an_unreadable_row_fail(oban: Oban, start_oban: Starter) -> None:
    """What can't be run is a failure like any other, and drains on."""
    oban.insert(Job.new(worker="tests.nobody", queue="alpha"))
    odd = oban.insert(work.note.new())
    good = oban.insert(work.note.new())
    start_oban.tables.execute("UPDATE {jobs} SET args = '[1]' WHERE id = :id", id=odd.id)

    assert oban.drain_queue("alpha") == DrainCounts(failure=2, success=1)
    assert read(oban, good).state == "completed"
    start_oban.tables.execute("UPDATE {jobs} SET state = 'available' WHERE id = :id", id=odd.id)
    # No worker has raised anything that could be raised here.
    assert oban.drain_queue("alpha", with_safety=False) == DrainCounts(discard=1)


@pytest.mark.parametrize("commits", [True, False])
def test_a_job_may_complete_itself(
    oban: Oban, start_oban: Starter, monkeypatch: pytest.MonkeyPatch, *, commits: bool
) -> None:
    """With its worker's commit it is done, and failed without."""
    engine = start_oban.tables.engine

    def complete(job: Job) -> None:
        with engine.connect() as connection:
            job.complete(connection=connection)
            if commits:
                connection.commit()

    monkeypatch.setattr(work, "act", complete)
    job = oban.insert(work.acts.new())

    assert oban.drain_queue("alpha") == DrainCounts(success=commits, failure=not commits)
    assert read(oban, job).state == ("completed" if commits else "retryable")


def test_a_time_out_ends_an_async_job(oban: Oban) -> None:
    """An async worker out of its time fails with it, though no tree watches."""
    job = oban.insert(work.endless.new())

    assert oban.drain_queue("alpha") == DrainCounts(failure=1)
    assert "TimeoutError" in read(oban, job).errors[0]["error"]


def test_a_virtual_clock_makes_jobs_due(start_oban: Starter) -> None:
    """Under a virtual clock a job is drained once its time has come, and not before."""
    clock = VirtualClock()
    oban = start_oban.make(testing="manual", clock=clock)
    job = oban.insert(work.note.new(schedule_in=60))

    assert oban.drain_queue("alpha", with_scheduled=clock.now()) == DrainCounts()
    clock.advance(60)
    assert oban.drain_queue("alpha", with_scheduled=clock.now()).success == 1
    assert read(oban, job).completed_at == clock.now()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": "*"}, "invalid value for 'queue': expected another name than '\\*'"),
        ({"with_limit": 0}, "'with_limit': expected a positive integer, got: 0"),
        ({"with_recursion": 1}, "'with_recursion': expected a boolean, got: 1"),
        ({"with_safety": None}, "'with_safety': expected a boolean, got: None"),
        ({"with_scheduled": "now"}, "'with_scheduled': expected a boolean or an aware datetime"),
        (
            {"with_scheduled": datetime(2026, 1, 1)},  # noqa: DTZ001 (what is refused)
            "'with_scheduled': expected a boolean or an aware datetime",
        ),
    ],
)
def test_wrong_options_are_refused(oban: Oban, options: dict[str, Any], message: str) -> None:
    """An option that can't be meant is named, and nothing runs."""
    job = oban.insert(work.note.new())

    with pytest.raises(ConfigError, match=message):
        oban.drain_queue(**({"queue": "alpha"} | options))

    assert read(oban, job).state == JobState.AVAILABLE
