"""A job harms no other: not by what its worker makes of it, nor by what stands in its row."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from oban_actors import Job, Snooze, worker
from tests.queues.work import Work, crashes, job, jobs, view, wait_state
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter, starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}


class Later(Snooze):
    """A Snooze that checks nothing."""

    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds


@worker(name="tests.spoil", queue="alpha")
def spoil(job: Job) -> Any:
    """Do to the job what its args say."""
    match job.args["do"]:
        case "later":
            return Later(timedelta(minutes=5))
        case "never":
            return Later("never")
        case "naive":
            job.scheduled_at = job.scheduled_at and job.scheduled_at.replace(tzinfo=None)
        case "boundless":
            job.max_attempts = job.attempt = None  # type: ignore[assignment]  # as a worker may
            raise ValueError("kaboom")
    return None


@pytest.mark.parametrize(
    ("what", "state", "event", "error"),
    [
        ("later", "scheduled", "stop", None),
        ("never", "retryable", "exception", "** (ValueError) invalid value for 'seconds'"),
        ("naive", "completed", "stop", None),
        ("boundless", "retryable", "exception", "** (ValueError) kaboom"),
    ],
)
def test_what_a_worker_makes_of_its_job(
    start_oban: Starter, work: Work, told: Recorder, what: str, state: str, event: str, error: Any
) -> None:
    """It ends once, as any other, with its event; no actor dies of it."""
    oban = start_oban(**ALPHA)
    one = wait_state(oban, oban.insert(spoil.new({"do": what})), state)

    assert [each["error"].startswith(error) for each in one.errors] == [True] * bool(error)
    assert told.wait_for(f"oban.job.{event}").metadata["id"] == one.id
    wait_state(oban, oban.insert(job("sync", "return")), "completed")
    told.wait_for("oban.job.stop", lambda each: each.metadata["id"] != one.id)
    assert crashes(oban) == []
    assert len(told.all("oban.job.start")) == 2


@pytest.mark.parametrize("kind", ["threads", "executor"])
def test_a_row_with_a_time_before_all_times(sqlite: Database, work: Work, kind: str) -> None:
    """It can't be read and fails; those that were fetched with it run."""
    with ThreadPoolExecutor(2) as executor, starter(sqlite) as start:
        how = {"limit": 5, "executor": executor if kind == "executor" else "threads"}
        oban = start(queues={"alpha": how | {"paused": True}}, stager=None)
        bad, *others = oban.insert_all(jobs("sync", 4))
        start.tables.execute(
            "UPDATE {jobs} SET inserted_at = '0001-01-01T00:00:00+02:00' WHERE id = :id", id=bad.id
        )
        oban.resume_queue("alpha")

        for one in others:
            wait_state(oban, one, "completed")
        wait_until(lambda: start.tables.states()[bad.id or 0] == "retryable")
        (row,) = start.tables.execute("SELECT errors FROM {jobs} WHERE id = :id", id=bad.id)
        assert "** (InvalidJob) OverflowError" in row[0]
        wait_until(lambda: not view(oban).running)
        assert crashes(oban) == []
