"""How the processes of workers start and end, and that each that ends is replaced."""

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from oban_actors.claim import Claim
from oban_actors.queues import process_slot
from oban_actors.queues.process_slot import ProcessSlot
from oban_actors.queues.processes import ProcessCrew
from tests.support.waiting import wait_until
from tests.workers import jobs
from tests.workers.running import do, performer, text
from tests.workers.slots import is_there, perform, running_in, runs, written


def test_a_death_is_noticed_beside_a_grandchild(slot: ProcessSlot, tmp_path: Path) -> None:
    """What a worker forked holds its connection open, but a death is a death."""
    file = tmp_path / "pid"

    claim = perform(slot, do(jobs.plain, "fork and die", file=str(file)))

    os.kill(int(file.read_text()), signal.SIGKILL)
    assert text(claim).endswith("ended with exit code 8")


def test_a_process_that_died_between_jobs_is_replaced(slot: ProcessSlot) -> None:
    """No job pays for it."""
    first = perform(slot, do(jobs.plain, "pid"))
    os.kill(first.result, signal.SIGKILL)
    wait_until(lambda: not runs(first.result))

    assert perform(slot, do(jobs.plain, "pid")).verdict == "success"


def test_a_process_that_dies_before_it_begins_is_replaced(
    slot: ProcessSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its death is noticed only when the job is sent: the job runs, once, in another."""
    first = perform(slot, do(jobs.plain, "pid"))
    os.kill(first.result, signal.SIGKILL)
    wait_until(lambda: not runs(first.result))
    gone, looks = process_slot._Child.gone, Counter[str]()

    def unseen_at_first(child: process_slot._Child) -> bool:
        looks["gone"] += 1
        return looks["gone"] > 1 and gone(child)

    monkeypatch.setattr(process_slot._Child, "gone", unseen_at_first)

    second = perform(slot, do(jobs.plain, "pid"))

    assert second.verdict == "success"
    assert second.result != first.result


def test_a_process_that_somebody_else_reaped_is_replaced(slot: ProcessSlot) -> None:
    """A host that waits for all its children takes its exit code, and nothing hangs for it."""
    first = perform(slot, do(jobs.plain, "pid"))
    os.kill(first.result, signal.SIGKILL)
    assert os.waitpid(first.result, 0)[0] == first.result

    assert perform(slot, do(jobs.plain, "pid")).verdict == "success"


def test_close_ends_a_job_that_hangs(tmp_path: Path) -> None:
    """After the time that it was given nothing is left of the process."""
    slot = ProcessSlot(performer())
    claim = do(jobs.plain, "hang", file=str(tmp_path / "pid"))
    with running_in(slot, claim, tmp_path / "pid"):
        pid = slot.pid
        slot.close(0.01)

    assert not is_there(pid)
    assert "was killed by SIGKILL" in text(claim)
    assert slot.pid is None


def test_signals_to_all_leave_it_to_the_parent(slot: ProcessSlot, tmp_path: Path) -> None:
    """Ctrl-C and a service's stop reach all processes; the job runs on until the parent says."""
    claim = do(jobs.plain, "wait", file=str(tmp_path / "pid"))
    with running_in(slot, claim, tmp_path / "pid"):
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
    perform(slot, do(jobs.plain))
    if what.startswith("threading"):
        monkeypatch.setattr(process_slot, "START_TIME", 2.0)
    claim = do(jobs.plain)
    claim.worker = replace(claim.worker, name="bad", module="bad_start")

    perform(slot, claim)

    assert text(claim) == f"** (ProcessDied) the process of {claim.job.worker} {how}"
    assert (tmp_path / "bad_start.tries").read_text() == tries
    monkeypatch.undo()
    assert perform(slot, do(jobs.plain, "value")).verdict == "success"


def test_forkserver() -> None:
    """The other way of starting processes works the same, exit codes included."""
    slot = ProcessSlot(performer(), "forkserver")
    try:
        assert perform(slot, do(jobs.plain, "value")).result == {"answer": 42}
        assert "ended with exit code 7" in text(perform(slot, do(jobs.plain, "_exit")))
    finally:
        slot.close()


_PARENT = """
import sys
from oban_actors import Config
from oban_actors.performing import Performer
from oban_actors.queues.process_slot import ProcessSlot
from tests.workers import jobs
from tests.workers.slots import is_there, perform, running_in, runs, written
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

    wait_until(lambda: not runs(pid))


def test_a_crew_drives_as_many_processes_as_it_may(tmp_path: Path) -> None:
    """Each thread has a process of its own; one that is aborted fails, and all end at the close."""
    ended: list[Claim] = []
    crew = ProcessCrew("alpha", lambda: 2, performer(), ended.append)
    files = [tmp_path / "one", tmp_path / "two"]
    first, second = (do(jobs.plain, "hang", file=str(file)) for file in files)
    crew.add([first, second])
    pids = [written(file) for file in files]

    assert crew.abort(first)
    crew.add([third := do(jobs.plain, "pid")])
    wait_until(lambda: len(ended) == 2)
    assert crew.abort(second)
    wait_until(lambda: len(ended) == 3)
    crew.close(30)

    assert not crew.abort(first)
    assert len(set(pids)) == 2
    assert [first.verdict, second.verdict, third.verdict] == ["failure", "failure", "success"]
    wait_until(lambda: not any(runs(int(pid)) for pid in [*pids, third.result]))
