"""Jobs put off for a short while: the turn that writes them tells the leader's Stager."""

from datetime import datetime
from typing import Any

import pytest

from oban_actors import Job, Snooze, worker
from tests.queues.work import read, wait_state
from tests.stager.passes import SLOW
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}}
SOON = 0.2


@worker(name="tests.twice", queue="alpha", backoff=SOON)
def twice(job: Job) -> object:
    """Take two runs, and be put off after the first as the job says."""
    if job.meta.get("snoozed") or job.attempt > 1:
        return None
    if job.args["how"] == "fail":
        raise ValueError("once")
    return Snooze(SOON)


@worker(name="tests.for_long", queue="alpha")
def for_long(job: Job) -> object:
    """Be put off beyond the interval."""
    return Snooze(60)


@pytest.mark.parametrize("how", ["snooze", "fail"])
def test_runs_again_when_it_is_due(start_oban: Starter, how: str) -> None:
    """Not at the next tick, which is an hour away."""
    oban = start_oban.leading(stager=SLOW, **ALPHA)
    one = oban.insert(twice.new({"how": how}))

    after = wait_state(oban, one, "completed")

    assert after.attempt == (2 if how == "fail" else 1)


def test_another_node_leads(start_oban: Starter) -> None:
    """The leader need not be the node that runs the job."""
    start_oban.leading(stager=SLOW)
    follower = start_oban(peer=False, stager=SLOW, **ALPHA)
    one = follower.insert(twice.new({"how": "fail"}))

    wait_state(follower, one, "completed")


def test_only_what_is_due_within_the_interval(start_oban: Starter) -> None:
    """What comes later is found by the passes; what comes soon is told as its row has it."""
    oban = start_oban.leading(stager={"interval": 5.0}, **ALPHA)
    # Until the node has heard from the leader how often that looks, it tells more.
    wait_until(lambda: oban._parts.announcer.interval == 5.0)
    heard = start_oban.hear(oban, "actors")
    far = oban.insert(for_long.new({}))
    wait_state(oban, far, "scheduled")
    near = oban.insert(twice.new({"how": "fail"}))
    wait_state(oban, near, "completed")

    told = wait_until(lambda: [each["due"] for each in heard.payloads("actors") if "due" in each])
    due = read(oban, near).scheduled_at
    assert due is not None
    (moment,) = map(datetime.fromisoformat, told)
    # The clock was read once for each, and what is far is a minute away.
    assert abs((moment - due).total_seconds()) < 5
