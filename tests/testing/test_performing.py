"""perform_job and build_job: a worker's job as in a queue, without a database."""

import asyncio
import contextlib
import contextvars
import copy
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Cancel, ConfigError, InvalidJob, Job, Oban, Snooze, VirtualClock
from oban_actors.testing import aperform_job, build_job, perform_job
from tests.support.events import recording
from tests.testing import work


@pytest.mark.parametrize("worker", [work.note, work.ANote, "tests.anote", "tests.old_note"])
def test_what_a_worker_returns_is_given(worker: Any) -> None:
    """Any value comes back as it is, of functions and classes, sync and async."""
    assert perform_job(worker, {"end": "fine"}) == "fine"
    assert perform_job(worker) is None


@pytest.mark.parametrize("worker", [work.note, work.ANote])
def test_what_a_worker_raises_is_raised(worker: Any) -> None:
    """An error is the worker's own, with its place; Cancel and Snooze come as they were given."""
    with pytest.raises(ValueError, match=r"^boom$") as failure:
        perform_job(worker, {"end": "raise"})
    assert failure.traceback[-1].name == "end_as"
    with pytest.raises(Cancel, match="no more"):
        perform_job(worker, {"end": "raise cancel"})
    with pytest.raises(Snooze) as snooze:
        perform_job(worker, {"end": "raise snooze"})
    assert snooze.value.seconds == 60
    cancel = perform_job(worker, {"end": "cancel"})
    assert isinstance(cancel, Cancel)
    assert cancel.reason == "no more"
    assert isinstance(perform_job(worker, {"end": "snooze"}), Snooze)


def test_a_worker_gets_the_job_as_from_the_table() -> None:
    """It executes, for the first time, with args as JSON gives them and the worker's defaults."""
    job = perform_job(work.seen, {"at": (1, 2), "ratio": 1.0}, queue="beta", tags=["A"])

    assert job.args == {"at": [1, 2], "ratio": 1.0}
    assert job.state == "executing"
    assert (job.queue, job.tags, job.attempt, job.errors) == ("beta", ["a"], 1, [])
    assert job.id > 2**61
    assert None not in (job.inserted_at, job.scheduled_at, job.attempted_at)


def test_a_job_is_built_with_what_its_row_would_have() -> None:
    """Fields of a row, such as the attempt, are given; each built job has an id of its own."""
    job = build_job(work.note, {"n": 1}, attempt=2, errors=[{"at": "x"}], meta={"by": "me"})

    assert (job.attempt, job.max_attempts, job.errors) == (2, 2, [{"at": "x"}])
    assert (job.meta, job.tags, job.worker) == ({"by": "me"}, ["small"], work.note.spec.name)
    assert build_job(work.note).id != build_job(work.note).id
    assert build_job(work.note, id=7).id == 7
    assert job.running is None


def test_a_built_job_is_run() -> None:
    """A job in place of the worker runs as it is, and is itself left alone."""
    job = work.seen.new({"n": 1}, schedule_in=60)

    assert perform_job(job).args == {"n": 1}
    assert job.state == "scheduled"
    assert perform_job(build_job(work.seen, attempt=3)).attempt == 3


@pytest.mark.parametrize("end", ["fine", "raise", "cancel"])
def test_a_job_may_complete_itself(end: str) -> None:
    """It has no row that could tell, so it counts as done, unless its worker fails."""
    with recording("oban.job.stop", "oban.job.exception") as events:
        if end == "raise":
            with pytest.raises(ValueError, match="boom"):
                perform_job(work.completes, {"end": end})
        else:
            perform_job(work.completes, {"end": end})

    (event,) = events.all()
    assert event.metadata["state"] == ("failure" if end == "raise" else "success")


def test_what_a_worker_changes_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is run is left alone, whatever its worker does to the one that it gets."""
    job = build_job(work.acts, {"a": [1]}, meta={"b": [2]}, tags=["c"], errors=[{"at": "x"}])
    before = copy.deepcopy(job)

    def spoil(own: Job) -> None:
        assert (own.args, own.meta, own.tags, own.errors) == (
            before.args,
            before.meta,
            before.tags,
            before.errors,
        )
        own.args["a"].append(9)
        own.meta["b"].append(9)
        own.tags.append("d")
        own.errors.append({})

    monkeypatch.setattr(work, "act", spoil)
    perform_job(job)

    assert job == before


def test_a_virtual_clock_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for real time beside a job, which has its deadline all the same."""
    clock, seen = VirtualClock(), list[Any]()
    oban = Oban(f"sqlite:///{tmp_path}/jobs.db", clock=clock)

    def look(job: Job) -> None:
        timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        seen.append((job.time_left, job.deadline, len(timers)))

    monkeypatch.setattr(work, "act", look)
    perform_job(work.early, oban=oban)
    perform_job(work.early)

    assert seen[0] == (3600, clock.now() + timedelta(hours=1), 0)
    assert seen[1][2] == 1


def test_the_clock_of_an_instance_counts(tmp_path: Any) -> None:
    """With an instance given, the times are its clock's."""
    clock = VirtualClock()
    oban = Oban(f"sqlite:///{tmp_path}/jobs.db", clock=clock, node="test.1")

    job = perform_job(work.seen, oban=oban, schedule_in=5)

    assert job.attempted_at == clock.now()
    assert job.scheduled_at == clock.now() + timedelta(seconds=5)
    assert job.attempted_by[0] == "test.1"


def test_a_time_out_is_kept() -> None:
    """An async worker is cancelled when its time is over, a sync one told and then failed."""
    with pytest.raises(TimeoutError, match=r"endless timed out after 0\.05 s"):
        perform_job(work.endless)
    with pytest.raises(TimeoutError, match=r"overtime timed out after 0\.05 s"):
        perform_job(work.overtime)
    assert perform_job(work.early) == asyncio.run(aperform_job(work.aearly)) == "early"
    assert not [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


def test_it_works_within_an_event_loop() -> None:
    """Called where a loop runs, an async worker's job runs apart, or awaited on that very loop."""

    async def both() -> tuple[Any, Any]:
        apart = perform_job(work.ANote, {"end": "apart"})
        return apart, await aperform_job(work.ANote, {"end": "here"})

    async def time_out() -> None:
        with pytest.raises(TimeoutError):
            await aperform_job(work.endless)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    assert asyncio.run(both()) == ("apart", "here")
    asyncio.run(time_out())
    assert asyncio.run(aperform_job(work.note, {"end": "sync"})) == "sync"


@pytest.mark.parametrize("ends_well", [True, False])
@pytest.mark.parametrize("inline", [True, False])
def test_ctrl_c_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, ends_well: bool, inline: bool
) -> None:
    """The loop of an async job cancels it, and the test that runs it ends, whatever comes of it."""
    oban = Oban(f"sqlite:///{tmp_path}/jobs.db", testing="inline")

    async def interrupted(_job: Job) -> None:
        signal.raise_signal(signal.SIGINT)
        with contextlib.suppress(*[asyncio.CancelledError] * ends_well):
            await asyncio.Event().wait()

    monkeypatch.setattr(work, "aact", interrupted)
    run = oban.insert if inline else perform_job
    with pytest.raises(KeyboardInterrupt):
        run(work.aacts.new())


def test_a_cancelled_caller_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that makes nothing of a cancellation does not keep it from who awaits its job."""
    seen: list[str] = []

    async def shrug(_job: Job) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        seen.append("cancelled")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aperform_job(work.aacts)

    monkeypatch.setattr(work, "aact", shrug)
    asyncio.run(main())
    assert seen == ["cancelled"]


def test_it_keeps_its_callers_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker sees the context variables of whoever runs its job, also where that is apart."""
    who = contextvars.ContextVar("who", default="nobody")
    monkeypatch.setattr(work, "end_as", lambda _args: who.get())

    async def both() -> list[Any]:
        who.set("caller")
        return [perform_job(work.ANote), await aperform_job(work.ANote), perform_job(work.note)]

    assert asyncio.run(both()) == ["caller"] * 3


def test_a_run_is_told_by_telemetry() -> None:
    """Handlers see a run as that of a queue."""
    with recording("oban.job.start", "oban.job.stop", "oban.job.exception") as events:
        perform_job(work.note)
        with pytest.raises(ValueError, match="boom"):
            perform_job(work.note, {"end": "raise"})

    names = [event.name for event in events.all()]
    assert names == ["oban.job.start", "oban.job.stop", "oban.job.start", "oban.job.exception"]


@pytest.mark.parametrize(
    ("worker", "options", "error", "message"),
    [
        ("tests.nobody", {}, ConfigError, "unknown worker: tests.nobody"),
        (print, {}, ConfigError, "'worker': expected a function or class with @worker"),
        (work.note, {"quue": "a"}, InvalidJob, "unknown option 'quue' for build_job"),
        (work.note, {"priority": 10}, InvalidJob, "'priority': expected an integer from 0 to 9"),
        (work.note, {"attempt": 3}, InvalidJob, "'attempt': expected an integer from 0 to 2"),
        (work.note, {"args": {1: 2}}, InvalidJob, "'args': expected string keys"),
    ],
)
def test_what_can_not_be_a_job_is_refused(
    worker: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """A job that could not be inserted is not run."""
    with pytest.raises(error, match=message):
        perform_job(worker, **options)


def test_a_job_that_was_spoilt_is_refused() -> None:
    """One that was changed by hand is checked as one that is inserted."""
    job = work.note.new()
    job.priority = 10

    with pytest.raises(InvalidJob, match="'priority': expected an integer from 0 to 9"):
        perform_job(job)


def test_a_job_and_args_exclude_each_other() -> None:
    """A job has its args already."""
    both = r"args and options, got both: Job\(id=None, .*'tests\.anote'\) and args, attempt$"
    with pytest.raises(ConfigError, match=f"expected either a job, or a worker with {both}"):
        perform_job(Job.new(worker="tests.anote"), {"n": 1}, attempt=2)
