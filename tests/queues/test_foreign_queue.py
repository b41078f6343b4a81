"""A queue on an executor of the host's: what has not begun there is neither run nor lost."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oban_actors import Oban
from tests.queues.work import Work, crashes, job, jobs, read, view, wait_state
from tests.support.instances import Starter
from tests.support.waiting import wait_until


@pytest.fixture
def alpha(work: Work) -> Iterator[dict[str, Any]]:
    """A queue whose limit is more than its executor runs at once."""
    with ThreadPoolExecutor(1) as executor:
        yield {"queues": {"alpha": {"limit": 3, "executor": executor}}, "stager": None}
        # Its end waits for what runs.
        work.open()


def begun(oban: Oban, work: Work) -> list[Any]:
    """Insert four jobs: one runs, two wait at the executor, and one in the table."""
    made = oban.insert_all(jobs("sync", 4, "wait"))
    work.wait_inside(1)
    wait_until(lambda: len(view(oban).running) == 3)
    return made


def test_the_limit_is_the_queues(start_oban: Starter, work: Work, alpha: dict[str, Any]) -> None:
    """As many as the limit are handed over, and all run, each once; async ones on the loop."""
    oban = start_oban(**alpha)
    begun(oban, work)
    assert start_oban.tables.count("executing") == 3
    work.open()

    wait_until(lambda: start_oban.tables.count("completed") == 4)
    wait_state(oban, oban.insert(job("async", "return")), "completed")
    assert work.again == {}
    assert crashes(oban) == []


def test_what_has_not_begun_there_can_be_cancelled(
    start_oban: Starter, work: Work, alpha: dict[str, Any]
) -> None:
    """It never runs, and its slot is free at once for the one that waits in the table."""
    oban = start_oban(**alpha)
    first, second, third, fourth = begun(oban, work)
    assert oban.cancel_job(second)

    wait_until(lambda: view(oban).running == (first.id, third.id, fourth.id))
    assert len(wait_state(oban, second, "cancelled").errors) == 1
    work.open()
    wait_until(lambda: start_oban.tables.count("completed") == 3)
    assert second.id not in work.ran


class Careless(ThreadPoolExecutor):
    """An executor that forgets to give what its callers are to wait for."""

    def submit(self, *_given: Any, **_more: Any) -> Any:
        """Give nothing."""


def test_an_executor_that_gives_no_future(start_oban: Starter, work: Work) -> None:
    """The job has failed, with what was wrong; the queue goes on."""
    with Careless(1) as executor:
        oban = start_oban(queues={"alpha": {"limit": 3, "executor": executor}}, stager=None)
        one = oban.insert(job("sync", "return"))
        (error,) = wait_state(oban, one, "retryable").errors
        assert "(TypeError) Careless.submit gave no future, but: None" in error["error"]

        wait_state(oban, oban.insert(job("async", "return")), "completed")
        assert crashes(oban) == []
        assert work.ran == [2]


def test_what_has_not_begun_there_is_given_back_at_the_end(
    start_oban: Starter, work: Work, alpha: dict[str, Any]
) -> None:
    """When the grace period is over: available, its attempt unspent; what ran is written."""
    oban = start_oban(shutdown_grace_period=0.1, **alpha)
    first, *others = begun(oban, work)
    stopper = threading.Thread(target=oban.stop)
    stopper.start()
    wait_until(lambda: len(view_running(oban)) == 1)
    work.open()
    stopper.join(30)

    assert not stopper.is_alive()
    assert read(oban, first).state == "completed"
    for one in others:
        after = read(oban, one)
        assert (after.state, after.attempt) == ("available", 0)
    assert work.ran == [first.id]


def view_running(oban: Oban) -> tuple[int, ...]:
    """Ids of the jobs that run."""
    found = oban.check_queue("alpha")
    return found.running if found else ()
