"""perform_job and build_job: a worker's job as in a queue, without a database."""

import asyncio
import contextvars
import threading
from datetime import timedelta
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
    assert not [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


def test_it_works_within_an_event_loop() -> None:
    """Called where a loop runs, an async worker's job runs apart, or awaited on that very loop."""

    async def both() -> tuple[Any, Any]:
        apart = perform_job(work.ANote, {"end": "apart"})
        return apart, await aperform_job(work.ANote, {"end": "here"})

    async def time_out() -> None:
        await aperform_job(work.endless)

    assert asyncio.run(both()) == ("apart", "here")
    with pytest.raises(TimeoutError):
        asyncio.run(time_out())
    assert asyncio.run(aperform_job(work.note, {"end": "sync"})) == "sync"


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


def test_a_job_and_args_exclude_each_other() -> None:
    """A job has its args already."""
    with pytest.raises(ConfigError, match="expected either a job, or a worker with args"):
        perform_job(Job.new(worker="tests.anote"), {"n": 1})
