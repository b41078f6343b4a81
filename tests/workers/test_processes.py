"""Jobs in processes of their own: whatever a process does, only its own job is concerned."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Job, ProcessDied, RemoteFailure, SystemClock
from oban_actors.claim import Claim
from oban_actors.queues import process_slot
from oban_actors.queues.process_slot import ProcessSlot
from oban_actors.queues.processes import ProcessCrew
from tests.support.waiting import wait_until
from tests.workers import jobs
from tests.workers.running import claimed, do, performer, text


@pytest.fixture
def slot() -> Iterator[ProcessSlot]:
    """A slot, closed after the test; its process is gone then."""
    one = ProcessSlot(performer(clock=SystemClock()))
    yield one
    pid = one.pid
    one.close()
    assert one.pid is None
    assert pid is None or not _alive(pid)


def test_it_runs_one_job_after_the_other(slot: ProcessSlot) -> None:
    """All jobs of a slot run in one process, which is not this one."""
    pids = {_run(slot, do(jobs.plain, "pid")).result for _ in range(3)}

    assert pids == {slot.pid}
    assert slot.pid != os.getpid()


@pytest.mark.parametrize("kind", jobs.KINDS, ids=lambda kind: kind.__name__)
def test_ends_are_those_of_a_thread(slot: ProcessSlot, kind: Any) -> None:
    """Every line of the table holds in a process too, for all kinds of workers."""
    ends = {}
    for what in (None, "value", "cancel", "raise snooze", "error", "exit", "interrupt", "rude"):
        claim = _run(slot, do(kind, what))
        ends[what] = (claim.verdict, str(claim.ack.state), claim.result)

    assert ends == {
        None: ("success", "completed", None),
        "value": ("success", "completed", {"answer": 42}),
        "cancel": ("cancelled", "cancelled", "enough"),
        "raise snooze": ("snoozed", "scheduled", 60.0),
        "error": ("failure", "retryable", None),
        "exit": ("failure", "retryable", None),
        "interrupt": ("failure", "retryable", None),
        "rude": ("failure", "retryable", None),
    }


def test_the_text_of_an_error_comes_back(slot: ProcessSlot) -> None:
    """An error that can't be pickled is told with its place and message."""
    claim = _run(slot, do(jobs.plain, "picky"))

    said = text(claim)
    assert said.startswith("** (tests.workers.jobs.PickyError) one and two\n")
    assert "jobs.py" in said
    assert "remote.py" not in said
    assert isinstance(claim.error, RemoteFailure)


def test_a_forgotten_await_is_a_failure_there_too(slot: ProcessSlot) -> None:
    """What nobody awaited was not done."""
    claim = _run(slot, do(jobs.plain, "forget"))

    assert claim.verdict == "failure"
    assert "coroutine, which nobody awaited" in text(claim)


def test_a_result_that_cannot_be_sent_is_shown(slot: ProcessSlot) -> None:
    """The job is done; what it returned is told as far as it can be."""
    claim = _run(slot, do(jobs.plain, "secretive"))

    assert claim.verdict == "success"
    assert claim.result == "<Secretive: its __repr__ raised ValueError>"


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("kill", "was killed by SIGKILL"),
        ("segfault", "was killed by SIGSEGV"),
        ("_exit", "ended with exit code 7"),
    ],
)
def test_a_death_is_its_own_jobs_failure(slot: ProcessSlot, what: str, how: str) -> None:
    """The job fails and says how its process died; the next one has a new process."""
    first = _run(slot, do(jobs.plain, "pid"))
    claim = _run(slot, do(jobs.plain, what))
    after = _run(slot, do(jobs.plain, "pid"))

    assert claim.verdict == "failure"
    assert isinstance(claim.error, ProcessDied)
    assert text(claim) == f"** (ProcessDied) the process of {claim.job.worker} {how}"
    assert after.verdict == "success"
    assert after.result not in (first.result, None)


def test_a_death_is_noticed_beside_a_grandchild(slot: ProcessSlot, tmp_path: Path) -> None:
    """What a worker forked holds its connection open, but a death is a death."""
    file = tmp_path / "pid"

    claim = _run(slot, do(jobs.plain, "fork and die", file=str(file)))

    os.kill(int(file.read_text()), signal.SIGKILL)
    assert text(claim).endswith("ended with exit code 8")


def test_a_process_that_died_between_jobs_is_replaced(slot: ProcessSlot) -> None:
    """No job pays for it."""
    first = _run(slot, do(jobs.plain, "pid"))
    os.kill(first.result, signal.SIGKILL)
    wait_until(lambda: not _running(first.result))

    assert _run(slot, do(jobs.plain, "pid")).verdict == "success"


def test_a_process_that_dies_before_it_begins_is_replaced(
    slot: ProcessSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its death is noticed only when the job is sent: the job runs, once, in another."""
    first = _run(slot, do(jobs.plain, "pid"))
    os.kill(first.result, signal.SIGKILL)
    wait_until(lambda: not _running(first.result))
    gone, looks = process_slot._Child.gone, Counter[str]()

    def unseen_at_first(child: process_slot._Child) -> bool:
        looks["gone"] += 1
        return looks["gone"] > 1 and gone(child)

    monkeypatch.setattr(process_slot._Child, "gone", unseen_at_first)

    second = _run(slot, do(jobs.plain, "pid"))

    assert second.verdict == "success"
    assert second.result != first.result


def test_a_process_that_somebody_else_reaped_is_replaced(slot: ProcessSlot) -> None:
    """A host that waits for all its children takes its exit code, and nothing hangs for it."""
    first = _run(slot, do(jobs.plain, "pid"))
    os.kill(first.result, signal.SIGKILL)
    assert os.waitpid(first.result, 0)[0] == first.result

    assert _run(slot, do(jobs.plain, "pid")).verdict == "success"


@pytest.mark.usefixtures("capfd")
def test_a_worker_may_print(slot: ProcessSlot) -> None:
    """What goes to standard output does not get between the processes."""
    assert _run(slot, do(jobs.plain, "print")).verdict == "success"


def test_large_args_go_through(slot: ProcessSlot) -> None:
    """Megabytes of args reach the process, whatever its pipe holds."""
    claim = claimed(jobs.plain.new({"do": "value", "data": "x" * 4_000_000}))

    assert _run(slot, claim).verdict == "success"


def test_deadline_reaches_the_process(slot: ProcessSlot) -> None:
    """The job sees how long it has, in a process too."""
    claim = _run(slot, do(jobs.timed, "times"))

    left, deadline = claim.result
    assert 0 < left <= 30
    assert deadline


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [("cancelled", "cancelled"), ("timeout", "failure"), ("shutdown", "success")],
)
def test_a_cancellation_reaches_the_process(
    slot: ProcessSlot, tmp_path: Path, reason: Any, verdict: str
) -> None:
    """A job that looks at its flag ends, and the reason decides what that makes of it."""
    claim = do(jobs.plain, "wait", file=str(tmp_path / "pid"))
    with _running_in(slot, claim, tmp_path / "pid"):
        claim.running.cancel(reason)

    assert claim.verdict == verdict
    assert claim.running.on_cancel is None


@pytest.mark.parametrize("reason", ["cancelled", "timeout", "shutdown"])
def test_an_async_job_is_cancelled_there(slot: ProcessSlot, reason: Any) -> None:
    """Its task gets CancelledError; at shutdown it stays unfinished."""
    claim = do(jobs.plain_async, "sleep")
    claim.running.cancel(reason)

    _run(slot, claim)

    verdicts = {"cancelled": "cancelled", "timeout": "failure", "shutdown": None}
    assert claim.verdict == verdicts[reason]
    assert (claim.ack is None) == (reason == "shutdown")


def test_a_time_out_may_kill(slot: ProcessSlot, tmp_path: Path) -> None:
    """A job that ignores its time-out ends with its process, as a TimeoutError."""
    claim = do(jobs.timed, "hang", file=str(tmp_path / "pid"))
    with _running_in(slot, claim, tmp_path / "pid"):
        claim.running.cancel("timeout")
        assert not slot.kill(do(jobs.plain))
        assert slot.kill(claim)

    assert text(claim) == ("** (TimeoutError) tests.workers.jobs.timed timed out after 30 s")
    assert not slot.kill(claim)


def test_close_ends_a_job_that_hangs(tmp_path: Path) -> None:
    """After the time that it was given nothing is left of the process."""
    slot = ProcessSlot(performer())
    claim = do(jobs.plain, "hang", file=str(tmp_path / "pid"))
    with _running_in(slot, claim, tmp_path / "pid"):
        pid = slot.pid
        slot.close(0.01)

    assert not _alive(pid)
    assert "was killed by SIGKILL" in text(claim)
    assert slot.pid is None


def test_signals_to_all_leave_it_to_the_parent(slot: ProcessSlot, tmp_path: Path) -> None:
    """Ctrl-C and a service's stop reach all processes; the job runs on until the parent says."""
    claim = do(jobs.plain, "wait", file=str(tmp_path / "pid"))
    with _running_in(slot, claim, tmp_path / "pid"):
        os.kill(slot.pid or 0, signal.SIGINT)
        os.kill(slot.pid or 0, signal.SIGTERM)
        os.kill(slot.pid or 0, signal.SIGHUP)
        claim.running.cancel("shutdown")

    assert (claim.verdict, claim.result) == ("success", "told")


_BAD_START = """
import multiprocessing, os, pathlib, threading
if multiprocessing.parent_process() is not None:
    pathlib.Path(__file__).with_suffix(".tries").open("a").write("x")
    {what}
"""


@pytest.mark.parametrize(
    ("what", "how", "tries"),
    [
        ("os._exit(9)", "ended with exit code 9", "xx"),
        ("threading.Event().wait()", "was not ready within 2 s", "x"),
    ],
)
def test_a_module_that_ends_or_holds_its_process(
    slot: ProcessSlot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    how: str,
    tries: str,
) -> None:
    """Its job fails and says so, and the slot goes on with others."""
    (tmp_path / "bad_start.py").write_text(_BAD_START.replace("{what}", what))
    monkeypatch.syspath_prepend(str(tmp_path))
    _run(slot, do(jobs.plain))
    if what.startswith("threading"):
        monkeypatch.setattr(process_slot, "START_TIME", 2.0)
    claim = do(jobs.plain)
    claim.worker = replace(claim.worker, name="bad", module="bad_start")

    _run(slot, claim)

    assert text(claim) == f"** (ProcessDied) the process of {claim.job.worker} {how}"
    assert (tmp_path / "bad_start.tries").read_text() == tries
    monkeypatch.undo()
    assert _run(slot, do(jobs.plain, "value")).verdict == "success"


def test_a_worker_that_is_not_there_is_a_failure(slot: ProcessSlot) -> None:
    """What the process can't import, or doesn't find, fails the job with the reason."""
    claim, other = do(jobs.plain), do(jobs.plain)
    claim.worker = replace(claim.worker, name="nobody")
    other.worker = replace(other.worker, name="nobody", module="no.such.module")

    _run(slot, claim)
    _run(slot, other)

    assert "unknown worker: nobody is not defined where tests" in text(claim)
    assert "** (ModuleNotFoundError) No module named 'no'" in text(other)


def test_completing_there_is_refused(slot: ProcessSlot) -> None:
    """A session can't be shared with another process's instance, and the error says so."""
    claim = _run(slot, do(jobs.plain, "complete"))

    assert "** (NotRunning) job 7 can't be completed from another process" in (text(claim))


def test_unknown_workers_need_no_process(slot: ProcessSlot) -> None:
    """They fail as in a thread, and nothing is started for them."""
    claim = _run(slot, claimed(Job.new(worker="nobody")))

    assert text(claim) == "** (RuntimeError) unknown worker: nobody"
    assert slot.pid is None


def test_forkserver() -> None:
    """The other way of starting processes works the same, exit codes included."""
    slot = ProcessSlot(performer(), "forkserver")
    try:
        assert _run(slot, do(jobs.plain, "value")).result == {"answer": 42}
        assert "ended with exit code 7" in text(_run(slot, do(jobs.plain, "_exit")))
    finally:
        slot.close()


_PARENT = """
import sys
from oban_actors import Config
from oban_actors.performing import Performer
from oban_actors.queues.process_slot import ProcessSlot
from tests.workers import jobs
from tests.workers.running import do
if __name__ == "__main__":
    slot = ProcessSlot(Performer(Config.build()))
    slot.perform(do(jobs.plain, "value"))
    print(slot.pid, flush=True)
    sys.stdin.read({read})
"""


@pytest.mark.parametrize("way", ["kill -9", "exit"])
def test_no_process_outlives_its_parent(tmp_path: Path, way: str) -> None:
    """Neither when the parent is killed nor when it ends without closing anything."""
    script = tmp_path / "parent.py"
    script.write_text(_PARENT.format(read=-1 if way == "kill -9" else 0))
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        pid = int(parent.stdout.readline())
        if way == "kill -9":
            parent.kill()
        parent.wait(60)

    wait_until(lambda: not _running(pid))


def test_a_crew_drives_as_many_processes_as_it_may(tmp_path: Path) -> None:
    """Each thread has a process of its own; one that is aborted fails, and all end at the close."""
    ended: list[Claim] = []
    crew = ProcessCrew("alpha", lambda: 2, performer(), ended.append)
    files = [tmp_path / "one", tmp_path / "two"]
    first, second = (do(jobs.plain, "hang", file=str(file)) for file in files)
    crew.add([first, second])
    pids = [_written(file) for file in files]

    assert crew.abort(first)
    crew.add([third := do(jobs.plain, "pid")])
    wait_until(lambda: len(ended) == 2)
    assert crew.abort(second)
    wait_until(lambda: len(ended) == 3)
    crew.close(30)

    assert not crew.abort(first)
    assert len(set(pids)) == 2
    assert [first.verdict, second.verdict, third.verdict] == ["failure", "failure", "success"]
    wait_until(lambda: not any(_running(int(pid)) for pid in [*pids, third.result]))


# Helpers


def _run(slot: ProcessSlot, claim: Claim) -> Claim:
    slot.perform(claim)
    return claim


class _running_in:  # noqa: N801 (reads as a function)
    """Run a claim in a thread, the block once its worker has written the file."""

    def __init__(self, slot: ProcessSlot, claim: Claim, file: Path) -> None:
        self.file = file
        self.thread = threading.Thread(target=slot.perform, args=[claim])

    def __enter__(self) -> None:
        self.thread.start()
        _written(self.file)

    def __exit__(self, *_: object) -> None:
        self.thread.join(60)
        assert not self.thread.is_alive()


def _written(file: Path) -> str:
    return wait_until(lambda: file.read_text() if file.exists() else "")


def _alive(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


def _running(pid: int) -> bool:
    """Whether it is there and not only waits to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
