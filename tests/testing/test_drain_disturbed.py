"""drain_queue while something comes between: Ctrl-C, cancels, others who take its jobs."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from oban_actors import Job, Oban, telemetry
from oban_actors.testing import DrainCounts
from tests.support.instances import Starter
from tests.testing import work
from tests.testing.work import read


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
