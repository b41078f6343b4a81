"""A queue that runs its jobs in processes: every end, and processes that are killed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Job, Oban
from tests.queues.work import claims, crashes, read, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until
from tests.workers import jobs

ALPHA: dict[str, Any] = {
    "queues": {"alpha": {"limit": 2, "executor": "processes"}},
    "shutdown_grace_period": 1.0,
}


def pid_in(file: Path) -> int:
    """Wait until a job has said which process runs it."""
    wait_until(lambda: file.exists() and file.read_text() != "")
    return int(file.read_text())


@pytest.mark.slow
def test_every_end(start_oban: Starter, told: Recorder) -> None:
    """Each has its state, its error and its event; a process that dies is its job's failure."""
    ends = {
        "value": ("completed", None),
        "cancel": ("cancelled", "enough"),
        "raise snooze": ("scheduled", None),
        "error": ("retryable", "** (ValueError) kaboom"),
        "kill": ("retryable", "was killed by SIGKILL"),
        "exit": ("retryable", "SystemExit"),
    }
    oban = start_oban(**ALPHA)
    made = [jobs.plain.new({"do": what}, queue="alpha") for what in ends]
    last = jobs.plain.new({"do": "error"}, queue="alpha", max_attempts=1)
    inserted = oban.insert_all([*made, last])
    expected = [*ends.values(), ("discarded", "kaboom")]

    for one, (state, error) in zip(inserted, expected, strict=True):
        after = wait_state(oban, one, state)
        assert len(after.errors) == (error is not None)
        assert error is None or error in after.errors[0]["error"]
    told.wait_for_count(3, "oban.job.stop")
    told.wait_for_count(4, "oban.job.exception")
    assert crashes(oban) == []


@pytest.mark.slow
def test_a_process_is_killed_while_jobs_run(start_oban: Starter, tmp_path: Path) -> None:
    """Its own job fails, the other one goes on, and another process takes the next job."""
    oban = start_oban(**ALPHA)
    files = [tmp_path / "one", tmp_path / "two"]
    one, two = oban.insert_all(
        [jobs.plain.new({"do": "wait", "file": str(file)}, queue="alpha") for file in files]
    )
    first, second = (pid_in(file) for file in files)
    os.kill(first, signal.SIGKILL)

    assert "was killed by SIGKILL" in wait_state(oban, one, "retryable").errors[0]["error"]
    new = oban.insert(jobs.plain.new({"do": "value"}, queue="alpha"))
    wait_state(oban, new, "completed")
    assert read(oban, two).state == "executing"
    assert oban.cancel_job(two)
    wait_until(lambda: not view_running(oban))
    assert read(oban, two).state == "cancelled"
    assert second != first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cancelled", "state", "error"),
    [(False, "retryable", "TimeoutError"), (True, "cancelled", "Cancel(")],
)
def test_a_run_out_of_time_is_ended_with_its_process(
    start_oban: Starter, tmp_path: Path, *, cancelled: bool, state: str, error: str
) -> None:
    """One that ignores its time is no stuck one: its process is killed, its slot free again."""
    oban = start_oban(**ALPHA)
    file = tmp_path / "pid"
    one = oban.insert(jobs.brief.new({"do": "hang", "file": str(file)}, queue="alpha"))
    pid_in(file)
    if cancelled:
        oban.cancel_job(one)

    # Of one that is cancelled, the row shows that at once.
    (told,) = wait_until(lambda: read(oban, one).errors)
    assert error in told["error"]
    assert read(oban, one).state == state
    wait_until(lambda: not view_running(oban))


SLOW = """
import multiprocessing, threading
from oban_actors import worker

if multiprocessing.parent_process() is not None:
    threading.Event().wait(6)

@worker(name="tests.{module}", queue="alpha", timeout=60)
def brief(job):
    assert 55 < job.time_left <= 60
"""


@pytest.mark.slow
def test_the_start_of_a_process_is_no_part_of_a_run(
    start_oban: Starter, told: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to start and to import a worker, the worker has all of its time."""
    module = f"slow_{start_oban.database.kind}"
    (tmp_path / f"{module}.py").write_text(SLOW.replace("{module}", module))
    monkeypatch.syspath_prepend(str(tmp_path))
    oban = start_oban(imports=[module], **ALPHA)
    one = oban.insert(Job.new(worker=f"tests.{module}", queue="alpha"))

    event = told.wait_for("oban.job.stop")
    assert read(oban, one).errors == []
    assert event.measurements["duration"] < 5e9


WATCHED = """
import multiprocessing, threading
from pathlib import Path
from oban_actors import worker

here = Path(__file__).parent
if multiprocessing.parent_process() is not None:
    (here / "importing").touch()
    while not (here / "go").exists():
        threading.Event().wait(0.01)

@worker(name="tests.{module}", queue="alpha")
def watched(job):
    (here / "ran").touch()
"""


@pytest.mark.slow
def test_a_job_cancelled_while_its_process_starts_does_not_run(
    start_oban: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not begun, and never does; the next one of its process does."""
    module = f"watched_{start_oban.database.kind}"
    (tmp_path / f"{module}.py").write_text(WATCHED.replace("{module}", module))
    monkeypatch.syspath_prepend(str(tmp_path))
    oban = start_oban(imports=[module], **ALPHA)
    one = oban.insert(Job.new(worker=f"tests.{module}", queue="alpha"))
    wait_until((tmp_path / "importing").exists)
    assert oban.cancel_job(one)
    wait_until(lambda: claims(oban)[one.id or 0].running.cancelled)
    (tmp_path / "go").touch()

    # `cancel_job` has written the state: that the run is over is told by its error alone.
    wait_until(lambda: len(read(oban, one).errors) == 1)
    assert not (tmp_path / "ran").exists()
    assert read(oban, one).state == "cancelled"
    wait_state(oban, oban.insert(Job.new(worker=f"tests.{module}", queue="alpha")), "completed")
    assert (tmp_path / "ran").exists()


def view_running(oban: Oban) -> tuple[int, ...]:
    """Ids of the jobs that run."""
    found = oban.check_queue("alpha")
    return found.running if found else ()
