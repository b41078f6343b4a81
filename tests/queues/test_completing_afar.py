"""Workers that complete their job in their own transaction, in a process or at an executor."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Beat, Job
from tests.queues.work import claims, crashes, read
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until
from tests.workers.completing import complete_afar

UNCOMMITTED = (
    "** (PerformError) tests.completing_afar completed its job in a transaction that was not "
    "committed"
)
LOST = "was cancelled or given to somebody else"


@pytest.fixture(params=["processes", "pool", "threads"])
def alpha(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A queue whose jobs run anywhere but in its own threads."""
    if request.param == "processes":
        yield {"queues": {"alpha": {"limit": 2, "executor": "processes"}}}
        return
    pool = request.param == "pool"
    with ProcessPoolExecutor(2, get_context("spawn")) if pool else ThreadPoolExecutor(2) as one:
        yield {"queues": {"alpha": {"limit": 2, "executor": one}}}


class Afar:
    """Jobs for the worker that is elsewhere."""

    def __init__(self, start_oban: Starter, tmp_path: Path) -> None:
        self.url = start_oban.database.url
        self.begun, self.go = tmp_path / "begun", tmp_path / "go"

    def job(self, what: str, timeout: float | None = None, **options: Any) -> Job:
        """Make one that does this."""
        files = {"begun": str(self.begun), "go": str(self.go)}
        args = {"do": what, "url": self.url, "timeout": timeout, **files}
        return complete_afar.new(args, **options)

    def wait_begun(self) -> None:
        """Wait until it says that it has come so far."""
        wait_until(self.begun.exists)


@pytest.fixture
def afar(start_oban: Starter, tmp_path: Path) -> Afar:
    """Jobs of this test's."""
    return Afar(start_oban, tmp_path)


@pytest.mark.slow
def test_every_end(
    start_oban: Starter,
    afar: Afar,
    alpha: dict[str, Any],
    told: Recorder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Completed by the worker's commit, whatever comes after it, and failed without one."""
    oban = start_oban(**alpha)
    done = ["commit", "await", "raise", "snooze", "cancel", "again"]
    undone = {"forget": UNCOMMITTED, "fail": "the worker's own write failed"}
    made = {what: oban.insert(afar.job(what)) for what in (*done, *undone)}
    made["last"] = oban.insert(afar.job("forget", max_attempts=1))
    stops = told.wait_for_count(len(done), "oban.job.stop")
    told.wait_for_count(len(undone) + 1, "oban.job.exception")

    for what in done:
        after = read(oban, made[what])
        assert (what, after.state, after.errors) == (what, "completed", [])
    for what, text in undone.items():
        after = read(oban, made[what])
        assert (what, after.state, after.completed_at) == (what, "retryable", None)
        assert text in after.errors[0]["error"]
    assert read(oban, made["last"]).state == "discarded"
    assert {event.metadata["state"] for event in stops} == {"success"}
    results = {event.metadata["job"].args["do"]: event.metadata["result"] for event in stops}
    met = f"job {made['again'].id} has completed itself before, or {LOST}"
    assert results["again"] == met
    failed = f"job {made['raise'].id} completed itself before its worker failed: "
    assert failed in caplog.text
    assert not told.all("oban.job.stale")
    assert crashes(oban) == []


@pytest.mark.slow
def test_a_claim_that_is_gone_can_not_be_completed(
    start_oban: Starter, afar: Afar, alpha: dict[str, Any], told: Recorder
) -> None:
    """A job that was cancelled meanwhile stays so, and its worker is told."""
    oban = start_oban(**alpha)
    one = oban.insert(afar.job("late"))
    afar.wait_begun()
    oban.cancel_job(one)
    wait_until(lambda: claims(oban)[one.id or 0].running.cancelled)
    afar.go.touch()

    wait_until(lambda: LOST in afar.begun.read_text())
    assert told.wait_for("oban.job.stop").metadata["state"] == "cancelled"
    after = read(oban, one)
    assert (after.state, after.completed_at, len(after.errors)) == ("cancelled", None, 1)


@pytest.mark.slow
def test_who_goes_on_after_its_end_is_not_disturbed(
    start_oban: Starter, afar: Afar, alpha: dict[str, Any], told: Recorder
) -> None:
    """A beat that finds the row completed tells its run nothing; success is told when it ends."""
    oban = start_oban(**alpha)
    oban.insert(afar.job("stay"))
    afar.wait_begun()
    for _ in range(2):
        oban.ask("pulse", Beat(), timeout=30)
    oban.whereis(("foreman", "alpha")).proxy().config.get()
    afar.go.touch()

    about = told.wait_for("oban.job.stop").metadata
    assert (about["state"], about["result"]) == ("success", False)


@pytest.mark.slow
def test_a_process_that_dies_after_the_commit_has_done_its_job(
    start_oban: Starter, afar: Afar, told: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """That its job was completed is known here before its transaction is committed."""
    oban = start_oban(queues={"alpha": {"limit": 1, "executor": "processes"}})
    one = oban.insert(afar.job("die"))

    assert told.wait_for("oban.job.stop").metadata["state"] == "success"
    assert read(oban, one).errors == []
    assert not told.all("oban.job.stale")
    wait_until(lambda: f"job {one.id} completed itself before its worker failed: " in caplog.text)


@pytest.mark.slow
def test_a_process_that_is_ended_before_the_commit_has_not(
    start_oban: Starter, afar: Afar, told: Recorder
) -> None:
    """Its transaction is gone with it, and what is told is why it was ended."""
    oban = start_oban(queues={"alpha": {"limit": 1, "executor": "processes"}})
    one = oban.insert(afar.job("hang", timeout=0.5))

    assert told.wait_for("oban.job.exception").metadata["state"] == "failure"
    after = read(oban, one)
    (error,) = after.errors
    assert (after.state, after.completed_at) == ("retryable", None)
    assert error["error"] == "** (TimeoutError) tests.completing_afar timed out after 0.5 s"
