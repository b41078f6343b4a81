"""Jobs in processes of their own: whatever a process does, only its own job is concerned."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Job, ProcessDied, RemoteFailure
from oban_actors.queues.process_child import Orders
from oban_actors.queues.process_slot import ProcessSlot
from tests.workers import jobs
from tests.workers.running import claimed, do, text
from tests.workers.slots import perform, running_in


def test_it_runs_one_job_after_the_other(slot: ProcessSlot) -> None:
    """All jobs of a slot run in one process, which is not this one."""
    pids = {perform(slot, do(jobs.plain, "pid")).result for _ in range(3)}

    assert pids == {slot.pid}
    assert slot.pid != os.getpid()


@pytest.mark.parametrize("kind", jobs.KINDS, ids=lambda kind: kind.__name__)
def test_ends_are_those_of_a_thread(slot: ProcessSlot, kind: Any) -> None:
    """Every line of the table holds in a process too, for all kinds of workers."""
    ends = {}
    for what in (None, "value", "cancel", "raise snooze", "error", "exit", "interrupt", "rude"):
        claim = perform(slot, do(kind, what))
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
    claim = perform(slot, do(jobs.plain, "picky"))

    said = text(claim)
    assert said.startswith("** (tests.workers.jobs.PickyError) one and two\n")
    assert "jobs.py" in said
    assert "remote.py" not in said
    assert isinstance(claim.error, RemoteFailure)


def test_a_forgotten_await_is_a_failure_there_too(slot: ProcessSlot) -> None:
    """What nobody awaited was not done."""
    claim = perform(slot, do(jobs.plain, "forget"))

    assert claim.verdict == "failure"
    assert "coroutine, which nobody awaited" in text(claim)


def test_a_result_that_cannot_be_sent_is_shown(slot: ProcessSlot) -> None:
    """The job is done; what it returned is told as far as it can be."""
    claim = perform(slot, do(jobs.plain, "secretive"))

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
    first = perform(slot, do(jobs.plain, "pid"))
    claim = perform(slot, do(jobs.plain, what))
    after = perform(slot, do(jobs.plain, "pid"))

    assert claim.verdict == "failure"
    assert isinstance(claim.error, ProcessDied)
    assert text(claim) == f"** (ProcessDied) the process of {claim.job.worker} {how}"
    assert after.verdict == "success"
    assert after.result not in (first.result, None)


@pytest.mark.usefixtures("capfd")
def test_a_worker_may_print(slot: ProcessSlot) -> None:
    """What goes to standard output does not get between the processes."""
    assert perform(slot, do(jobs.plain, "print")).verdict == "success"


def test_large_args_go_through(slot: ProcessSlot) -> None:
    """Megabytes of args reach the process, whatever its pipe holds."""
    claim = claimed(jobs.plain.new({"do": "value", "data": "x" * 4_000_000}))

    assert perform(slot, claim).verdict == "success"


def test_deadline_reaches_the_process(slot: ProcessSlot) -> None:
    """The job sees how long it has, in a process too."""
    claim = perform(slot, do(jobs.timed, "times"))

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
    with running_in(slot, claim, tmp_path / "pid"):
        claim.running.cancel(reason)

    assert claim.verdict == verdict
    assert claim.running.on_cancel is None


@pytest.mark.parametrize("reason", ["cancelled", "timeout", "shutdown"])
def test_an_async_job_is_cancelled_there(slot: ProcessSlot, tmp_path: Path, reason: Any) -> None:
    """Its task gets CancelledError; at shutdown it stays unfinished."""
    claim = do(jobs.plain_async, "sleep", file=str(tmp_path / "pid"))
    with running_in(slot, claim, tmp_path / "pid"):
        claim.running.cancel(reason)

    verdicts = {"cancelled": "cancelled", "timeout": "failure", "shutdown": None}
    assert claim.verdict == verdicts[reason]
    assert (claim.ack is None) == (reason == "shutdown")


def test_a_cancellation_that_comes_late_ends_no_other(slot: ProcessSlot, tmp_path: Path) -> None:
    """Sent as its run ended, it may come when the next job runs in that process."""
    one = do(jobs.plain, "wait", file=str(tmp_path / "one"))
    with running_in(slot, one, tmp_path / "one"):
        late = one.running.on_cancel
        one.running.cancel("cancelled")
    assert late is not None
    other = do(jobs.plain, "wait", file=str(tmp_path / "other"), until=str(tmp_path / "go"))
    with running_in(slot, other, tmp_path / "other"):
        late("cancelled")
        late("cancelled")
        (tmp_path / "go").touch()

    assert (one.verdict, other.verdict, other.result) == ("cancelled", "success", "not told")


def test_only_the_newest_run_is_told_to_end() -> None:
    """A message that names another run, or one between two of them, ends none."""
    orders, first, second = Orders(), ("m", "w", {"a": 1}), ("m", "v", {"a": 2})
    orders.hear(("run", 1, *first))
    orders.hear(("cancel", 1, "timeout"))
    orders.hear(("load", "m", "v"))
    orders.hear(("run", 2, *second))
    orders.hear(("cancel", 1, "cancelled"))
    orders.hear(("stop",))

    one, load, other, last = (orders.line.get() for _ in range(4))
    assert (load, last) == (("m", "v"), None)
    assert one is not None
    assert other is not None
    assert (one[:-1], one[-1].reason) == ((1, *first), "timeout")
    assert (other[:-1], other[-1].reason) == ((2, *second), None)


def test_a_time_out_may_kill(slot: ProcessSlot, tmp_path: Path) -> None:
    """A job that ignores its time-out ends with its process, as a TimeoutError."""
    claim = do(jobs.timed, "hang", file=str(tmp_path / "pid"))
    with running_in(slot, claim, tmp_path / "pid"):
        claim.running.cancel("timeout")
        assert not slot.kill(do(jobs.plain))
        assert slot.kill(claim)

    assert text(claim) == ("** (TimeoutError) tests.workers.jobs.timed timed out after 30 s")
    assert not slot.kill(claim)


def test_a_worker_that_is_not_there_is_a_failure(slot: ProcessSlot) -> None:
    """What the process can't import, or doesn't find, fails the job with the reason."""
    claim, other = do(jobs.plain), do(jobs.plain)
    claim.worker = replace(claim.worker, name="nobody")
    other.worker = replace(other.worker, name="nobody", module="no.such.module")

    perform(slot, claim)
    perform(slot, other)

    assert "unknown worker: nobody is not defined where tests" in text(claim)
    assert "** (ModuleNotFoundError) No module named 'no'" in text(other)


def test_completing_without_a_database_is_refused(slot: ProcessSlot) -> None:
    """Where whoever sent it told nothing of a database."""
    claim = perform(slot, do(jobs.plain, "complete"))

    assert "** (NotRunning) job 7 can't be completed from where it runs" in text(claim)


def test_unknown_workers_need_no_process(slot: ProcessSlot) -> None:
    """They fail as in a thread, and nothing is started for them."""
    claim = perform(slot, claimed(Job.new(worker="nobody")))

    assert text(claim) == "** (RuntimeError) unknown worker: nobody"
    assert slot.pid is None
