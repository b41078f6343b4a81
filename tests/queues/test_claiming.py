"""Which jobs a queue runs, in which order, and how many at once."""

from datetime import timedelta
from typing import Any

import pytest

from tests.queues.work import Work, job, jobs, view, wait_state
from tests.support.instances import Starter
from tests.support.waiting import wait_until

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


ALPHA: dict[str, Any] = {"queues": {"alpha": 10}}


def test_the_order_of_jobs(start_oban: Starter, work: Work) -> None:
    """Fetched by priority, then by the time they are due, then by id."""
    oban = start_oban(queues={"alpha": {"limit": 1, "paused": True}})
    hour = timedelta(hours=1)
    now = oban.config.clock.now()
    plans = [
        (1, now - hour),
        (0, now - hour),
        (0, now - 2 * hour),
        (0, now - hour),
        (9, now),
        (2, now),
    ]
    made = [
        job("sync", "return", priority=priority, scheduled_at=at, state="available")
        for priority, at in plans
    ]
    ids = [one.id for one in oban.insert_all(made)]
    oban.resume_queue("alpha")
    wait_until(lambda: start_oban.tables.count("completed") == len(ids))

    assert work.ran == [ids[n] for n in (2, 1, 3, 0, 5, 4)]


@KINDS
def test_the_limit_is_reached_and_never_exceeded(
    start_oban: Starter, work: Work, kind: str
) -> None:
    """Five at a time, as the runs themselves see it: never six, and never only four for good."""
    oban = start_oban(queues={"alpha": 5})
    oban.insert_all(jobs(kind, 100, "meet"))
    wait_until(lambda: start_oban.tables.count("completed") == 100)

    assert work.most == 5
    assert work.again == {}


def test_a_thousand_async_jobs_at_once(start_oban: Starter, work: Work) -> None:
    """As many as the limit says are inside at the same time, and all end."""
    oban = start_oban(queues={"alpha": 1_000})
    oban.insert_all(jobs("async", 1_000, "wait"))
    work.wait_inside(1_000)
    assert len(view(oban).running) == 1_000
    work.open()

    wait_until(lambda: start_oban.tables.count("completed") == 1_000)
    assert work.again == {}
    wait_until(lambda: view(oban).running == ())


def test_both_kinds_share_the_limit(start_oban: Starter, work: Work) -> None:
    """Sync and async jobs of one queue together are no more than its limit."""
    oban = start_oban(queues={"alpha": 4})
    mixed = [job(kind, "wait") for _ in range(5) for kind in ("sync", "async")]
    oban.insert_all(mixed)
    work.wait_inside(4)
    work.open()
    wait_until(lambda: start_oban.tables.count("completed") == 10)

    assert work.most == 4


@KINDS
def test_a_scheduled_job_runs_when_it_is_due(start_oban: Starter, work: Work, kind: str) -> None:
    """It is staged, its queue told, and run: nobody asks for it."""
    oban = start_oban.leading(**ALPHA)
    one = oban.insert(job(kind, "return", schedule_in=0.2))
    after = wait_state(oban, one, "completed")

    assert after.scheduled_at is not None
    assert after.attempted_at is not None
    assert after.attempted_at >= after.scheduled_at
    assert work.ran == [one.id]


def test_more_jobs_than_one_fetch(start_oban: Starter, work: Work) -> None:
    """A full fetch is followed by another at once: all run, each once, without being told of."""
    oban = start_oban(queues={"alpha": {"limit": 7, "paused": True}})
    oban.insert_all(jobs("sync", 500))
    oban.resume_queue("alpha")
    wait_until(lambda: start_oban.tables.count("completed") == 500)

    assert work.again == {}
    assert len(work.ran) == 500


def test_only_its_own_queue(start_oban: Starter, work: Work) -> None:
    """A queue runs no other queue's jobs."""
    oban = start_oban(queues={"alpha": 5, "beta": 5})
    others = oban.insert_all(jobs("sync", 3, queue="gamma"))
    mine = oban.insert_all(jobs("sync", 3) + jobs("sync", 3, queue="beta"))
    wait_until(lambda: start_oban.tables.count("completed") == 6)

    assert sorted(work.ran) == [one.id for one in mine]
    assert {start_oban.tables.states()[one.id or 0] for one in others} == {"available"}
