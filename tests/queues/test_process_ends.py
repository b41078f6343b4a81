"""Jobs in processes whose node stops, or whose claim is lost: none goes on beside a next run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Beat, DatabaseUnavailable, Oban
from oban_actors.actors import NoProcess, Reason, VirtualClock
from oban_actors.actors.messages import Exit
from oban_actors.claim import Claim
from oban_actors.queues.workforce import Workforce
from tests.queues.test_crashes import crash
from tests.queues.test_process_queue import pid_in
from tests.queues.work import claims, crashes, read, view, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter, wait_until_idle
from tests.support.waiting import wait_until
from tests.workers import jobs
from tests.workers.slots import is_there

pytestmark = pytest.mark.slow

ALPHA: dict[str, Any] = {
    "queues": {"alpha": {"limit": 2, "executor": "processes"}},
    "stager": None,
    "shutdown_grace_period": 0.2,
}


def running(oban: Oban, what: str, file: Path) -> tuple[Claim, int]:
    """Let a job run that waits until it is told to end or hangs; gives its claim and process."""
    one = oban.insert(jobs.plain.new({"do": what, "file": str(file)}, queue="alpha"))
    pid = pid_in(file)
    return claims(oban)[one.id or 0], pid


def paused(oban: Oban) -> None:
    """Let a queue fetch nothing more."""
    oban.pause_queue("alpha", local_only=True)
    wait_until(lambda: view(oban).paused)


def beat(oban: Oban) -> None:
    """Let a node beat, or try to."""
    oban.ask("pulse", Beat(), timeout=30)


def lost(oban: Oban, clock: VirtualClock, claim: Claim) -> None:
    """Wait until a run was told that others may take its job, and let its margin pass."""
    wait_until(lambda: claim.lost)
    wait_until_idle(oban, "foreman")
    clock.advance(1)


def mute(patch: pytest.MonkeyPatch, oban: Oban) -> None:
    """Let all beats of an instance fail."""

    def failing(*_: Any) -> Any:
        raise DatabaseUnavailable("put in")

    patch.setattr(oban._engine, "beat", failing)


def test_one_that_ignores_the_stop_is_killed(
    start_oban: Starter,
    told: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the node beats: its row stays claimed, to be rescued, and none runs it twice."""
    oban = start_oban(**ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "pid")
    before = oban.get_job(claim.id)
    beating: list[bool] = []
    abort_all: Callable[[Workforce], None] = Workforce.abort_all

    def seen(workforce: Workforce) -> None:
        beating.append(oban._runtime.registry.whereis("pulse") is not None)
        abort_all(workforce)

    monkeypatch.setattr(Workforce, "abort_all", seen)
    oban.stop()

    wait_until(lambda: not is_there(pid))
    assert beating == [True, False]
    assert claim.running.reason == "shutdown"
    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == [claim.id]
    assert f"queue alpha killed the processes of jobs that did not end: [{claim.id}]" in [
        record.message for record in caplog.records
    ]
    after = oban.get_job(claim.id)
    assert after == before
    assert after is not None
    assert after.state == "executing"
    # The same instance knows that it runs no more.
    (tmp_path / "pid").unlink()
    oban.start()
    assert pid_in(tmp_path / "pid") != pid
    again = oban.get_job(claim.id)
    assert again is not None
    assert (again.attempt, again.errors) == (1, [])
    assert crashes(oban) == []


@pytest.mark.usefixtures("_patient_end")
def test_one_that_heeds_the_stop_is_not_killed(
    start_oban: Starter, told: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once the grace period is over, and ends as it likes."""
    oban = start_oban(**ALPHA)
    claim, pid = running(oban, "wait", tmp_path / "pid")
    oban.stop()

    assert claim.running.reason == "shutdown"
    assert told.wait_for("oban.job.stop").metadata["result"] == "told"
    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == []
    assert start_oban.tables.states() == {claim.id: "completed"}
    assert "killed" not in caplog.text
    wait_until(lambda: not is_there(pid))


def test_one_that_outlives_its_queue_goes_on_until_the_node_stops(
    start_oban: Starter, told: Recorder, tmp_path: Path
) -> None:
    """The node beats for it meanwhile."""
    oban = start_oban(**ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "pid")
    oban.stop_queue("alpha", local_only=True)
    wait_until(lambda: oban.check_queue("alpha") is None)
    beat(oban)
    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == [claim.id]
    assert is_there(pid)
    oban.stop()

    wait_until(lambda: not is_there(pid))
    assert start_oban.tables.states() == {claim.id: "executing"}


def test_a_tree_that_gives_up_leaves_no_process(start_oban: Starter, tmp_path: Path) -> None:
    """Its jobs are not waited for, but nobody beats for them any more."""
    oban = start_oban(**ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "pid")
    while oban.alive:
        try:
            queues = oban.whereis("queues")
        except NoProcess:
            # Between two lives nobody has the name.
            continue
        queues.tell(Exit(Reason("crashed")))
        wait_until(lambda ref=queues: not ref.is_alive())  # type: ignore[misc]
    oban.stop()

    wait_until(lambda: not is_there(pid))
    assert start_oban.tables.states() == {claim.id: "executing"}


def test_a_node_that_can_not_beat_kills_what_goes_on(
    start_oban: Starter, told: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before others may run it; what heeds is not killed, and what was is given back in the end."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, **ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "one")
    other, second = running(oban, "wait", tmp_path / "two")
    beat(oban)
    paused(oban)
    with monkeypatch.context() as patch:
        mute(patch, oban)
        clock.advance(46)
        beat(oban)
        assert told.wait_for("oban.job.stop").metadata["id"] == other.id
        assert is_there(pid)
        lost(oban, clock, claim)
        wait_until(lambda: not is_there(pid))
    beat(oban)

    after = wait_state(oban, read(oban, claim.job), "available")
    assert (after.attempt, after.errors) == (0, [])
    assert is_there(second)
    assert start_oban.tables.states()[other.id] == "completed"
    assert crashes(oban) == []


@pytest.mark.parametrize("crashes_meanwhile", [False, True])
def test_a_claim_that_was_taken_is_run_no_longer(
    start_oban: Starter,
    told: Recorder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    crashes_meanwhile: bool,
) -> None:
    """Its process has a second from the beat that tells, whoever looks after its run then."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, **ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "pid")
    paused(oban)
    start_oban.tables.execute("UPDATE {jobs} SET state = 'available'")
    beat(oban)
    wait_until(lambda: claim.lost)
    assert is_there(pid)
    if crashes_meanwhile:
        crash(monkeypatch, oban.whereis(("foreman", "alpha")))
        wait_until(lambda: oban._runtime.registry.whereis(("foreman", "alpha")) is not None)
    lost(oban, clock, claim)

    assert told.wait_for("oban.job.stale").metadata["id"] == claim.id
    wait_until(lambda: not is_there(pid))
    assert start_oban.tables.states() == {claim.id: "available"}


@pytest.mark.parametrize("how", ["no beat", "taken", "taken, and Queues crashes"])
def test_one_that_outlives_its_queue_is_ended_once_it_is_lost(
    start_oban: Starter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: str,
) -> None:
    """Though its Foreman has ended with the queue; and it is said once, not with each beat."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, **ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "pid")
    oban.stop_queue("alpha", local_only=True)
    wait_until(lambda: view(oban).shutting_down)
    clock.advance(0.2)
    wait_until(lambda: oban.check_queue("alpha") is None)
    beat(oban)
    if how == "no beat":
        mute(monkeypatch, oban)
        clock.advance(46)
    else:
        start_oban.tables.execute("UPDATE {jobs} SET state = 'available'")
    for _ in range(3):
        beat(oban)
    wait_until(lambda: claim.lost)
    if how.endswith("crashes"):
        crash(monkeypatch, oban.whereis("queues"))
    wait_until_idle(oban, "queues")
    assert is_there(pid)
    clock.advance(1)

    wait_until(lambda: not is_there(pid))
    said = "are told to end"
    assert len([each for each in caplog.messages if said in each]) == 1


def test_a_cancel_that_a_beat_tells_of_kills_nobody(
    start_oban: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is told of by a signal: nobody else runs the job."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, **ALPHA)
    claim, pid = running(oban, "hang", tmp_path / "pid")
    start_oban.tables.execute("UPDATE {jobs} SET state = 'cancelled'")
    looks: list[int] = []
    claim_of = oban._engine.claim_of

    def looking(connection: Any, job_id: int) -> Any:
        looks.append(job_id)
        return claim_of(connection, job_id)

    monkeypatch.setattr(oban._engine, "claim_of", looking)
    beat(oban)
    lost(oban, clock, claim)
    wait_until(lambda: looks == [claim.id])
    wait_until_idle(oban, "foreman")

    assert is_there(pid)
    assert (claim.running.reason, claim.aborted) == ("cancelled", False)
