"""Jobs whose number of attempts changes while they run: what the row says as they fail counts."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from threading import Event

import pytest

from oban_actors import Job, worker
from tests.queues.work import read, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.refusing import react
from tests.support.waiting import wait_until

INSIDE, GO = Event(), Event()
MINUTE = timedelta(minutes=1)


@worker(name="tests.recounted", queue="alpha", backoff=3600)
def fail(job: Job) -> None:
    """Fail once it may."""
    INSIDE.set()
    assert GO.wait(30)
    raise ValueError("no")


@worker(name="tests.recounted_remotely", queue="alpha", backoff=3600)
def fail_at_once(job: Job) -> None:
    """Fail."""
    raise ValueError("no")


@pytest.fixture(autouse=True)
def _gates() -> Iterator[None]:
    INSIDE.clear()
    GO.clear()
    yield
    GO.set()


@pytest.mark.parametrize("how", ["update", "replace"])
@pytest.mark.parametrize(
    ("before", "after", "state", "verdict"),
    [(5, 1, "discarded", "discard"), (1, 3, "retryable", "failure")],
    ids=["fewer", "more"],
)
def test_the_rows_number_counts(
    start_oban: Starter,
    told: Recorder,
    how: str,
    before: int,
    after: int,
    state: str,
    verdict: str,
) -> None:
    """A job with none left is discarded, one with more is tried again, and it is told so."""
    oban = start_oban(queues={"alpha": 1}, stager=None)
    job = oban.insert(fail.new({}, max_attempts=before, unique=True))
    assert INSIDE.wait(30)
    if how == "update":
        oban.update_job(job, {"max_attempts": after})
    else:
        oban.insert(
            fail.new({}, max_attempts=after, unique=True, replace={"executing": ["max_attempts"]})
        )
    GO.set()

    done = wait_state(oban, job, state)
    assert (done.attempt, done.max_attempts, len(done.errors)) == (1, after, 1)
    assert (done.discarded_at is not None) == (state == "discarded")
    assert done.scheduled_at is not None
    assert job.scheduled_at is not None
    assert (done.scheduled_at > job.scheduled_at) == (state == "retryable")
    event = told.wait_for("oban.job.exception", lambda each: each.metadata["id"] == job.id)
    assert event.metadata["state"] == verdict
    assert told.all("oban.job.stale") == []


def test_the_leader_is_told_when_it_is_due(start_oban: Starter) -> None:
    """As of any that is put off: its next pass may be far away."""
    oban = start_oban.leading(queues={"alpha": 1}, stager={"interval": 600.0})
    heard = start_oban.hear(oban, "actors")
    job = oban.insert(fail.new({}, max_attempts=1))
    assert INSIDE.wait(30)
    oban.update_job(job, {"max_attempts": 3})
    GO.set()

    done = wait_state(oban, job, "retryable")
    due = done.scheduled_at
    assert due is not None

    def told() -> bool:
        moments = [each["due"] for each in heard.payloads("actors") if "due" in each]
        # The clock was read once for the row, and once for who is told.
        return any(abs(datetime.fromisoformat(each) - due) < MINUTE for each in moments)

    wait_until(told)


def test_a_row_that_is_gone_once_it_was_written(start_oban: Starter, told: Recorder) -> None:
    """A trigger of the host's may move it elsewhere: it ended as it did."""
    oban = start_oban(queues={"alpha": {"limit": 1, "paused": True}}, stager=None)
    react(
        start_oban,
        "cast(NEW.state AS text) = 'discarded'",
        "DELETE FROM {jobs} WHERE id = NEW.id",
    )
    oban.insert(fail_at_once.new({}, max_attempts=1))
    oban.resume_queue("alpha")

    assert told.wait_for("oban.job.exception").metadata["state"] == "discard"
    assert start_oban.tables.states() == {}
    assert told.all("oban.job.stale") == []


def test_others_in_the_same_turn(start_oban: Starter) -> None:
    """Those whose number did not change end as they would have."""
    oban = start_oban(queues={"alpha": {"limit": 40, "paused": True}}, stager=None)
    jobs = oban.insert_all(fail_at_once.new({"n": n}, max_attempts=1 + n % 2) for n in range(30))
    react(
        start_oban,
        "cast(OLD.state AS text) = 'available' AND NEW.id % 3 = 0",
        "UPDATE {jobs} SET max_attempts = 2 WHERE id = NEW.id",
    )
    oban.resume_queue("alpha")
    ended = ("discarded", "retryable")
    wait_until(lambda: sum(start_oban.tables.count(state) for state in ended) == 30)

    for job in jobs:
        more = job.max_attempts == 2 or (job.id or 0) % 3 == 0
        assert read(oban, job).state == ("retryable" if more else "discarded")
