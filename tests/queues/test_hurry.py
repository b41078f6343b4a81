"""A node that is stopped and then told so once more waits no longer for its jobs."""

import os
import signal
import threading

import pytest

from oban_actors import Oban
from tests.queues.work import Work, claims, jobs
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until

LONG = 600.0
"""A grace period that no test would wait for."""


def is_ending(oban: Oban) -> bool:
    """Whether the queue has been told."""
    return oban._parts.workforce.is_ending("alpha")


@pytest.mark.usefixtures("_patient_end")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_hurrying_tells_the_jobs_at_once(
    start_oban: Starter, work: Work, told: Recorder, kind: str
) -> None:
    """They hear that they shall end, those that can do, and nobody waits for the grace period."""
    oban = start_oban(queues={"alpha": 5}, stager=None, shutdown_grace_period=LONG)
    oban.insert_all(jobs(kind, 2, "heed"))
    work.wait_inside(2)
    stopper = threading.Thread(target=oban.stop)
    stopper.start()
    wait_until(lambda: is_ending(oban))
    assert all(not claim.running.cancelled for claim in claims(oban).values())
    oban.hurry()
    stopper.join(60)

    assert not stopper.is_alive()
    assert set(work.told.values()) == {"shutdown"}
    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == []


def test_a_second_signal_hurries(start_oban: Starter, work: Work, told: Recorder) -> None:
    """A job that looks at nothing is left behind as one that outlives the grace period is."""
    oban = start_oban.make(queues={"alpha": 1}, stager=None, shutdown_grace_period=LONG)
    (job,) = oban.insert_all(jobs("sync", 1, "wait"))

    def send() -> None:
        work.wait_inside(1)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: is_ending(oban))
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    reason = oban.run()
    sender.join(60)

    assert not reason.abnormal
    assert told.wait_for("oban.queue.shutdown").metadata["orphaned"] == [job.id]


def test_an_instance_that_hurried_is_patient_again(
    start_oban: Starter, work: Work, told: Recorder
) -> None:
    """Started anew it waits for its jobs, also with the roster of before, which still has one."""
    oban = start_oban(queues={"alpha": 2}, stager=None, shutdown_grace_period=LONG)
    (first,) = oban.insert_all(jobs("sync", 1, "wait"))
    work.wait_inside(1)
    oban.hurry()
    oban.stop()
    oban.start()
    oban.insert_all(jobs("sync", 1, "wait"))
    work.wait_inside(2)
    stopper = threading.Thread(target=oban.stop)
    stopper.start()
    wait_until(lambda: is_ending(oban))
    work.open()
    stopper.join(60)

    assert not stopper.is_alive()
    assert work.told == {first.id: "shutdown"}
    assert [e.metadata["orphaned"] != [] for e in told.all("oban.queue.shutdown")] == [True, False]
