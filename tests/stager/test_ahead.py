"""Jobs inserted or put off by whoever knows another interval than the leader's, or none."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from oban_actors import Job, worker
from oban_actors.announcing import AHEAD, Announcer
from oban_actors.claim import Ack
from oban_actors.config import Config
from oban_actors.notifiers import Publisher
from tests.queues.work import wait_state
from tests.stager.passes import SLOW
from tests.support.instances import Starter, scheduled
from tests.support.waiting import wait_until

LATER = 1.3
"""Seconds, more than the interval by default."""

OTHERS: Mapping[str, Mapping[str, Any]] = {
    "another interval": {},
    "no stager": {"stager": None, "peer": False},
}
LEADER = "web.1/oban_actors:one"
SUCCESSOR = "web.1/oban_actors:two"


@worker(name="tests.later", queue="alpha", backoff=LATER)
def later(job: Job) -> None:
    """Fail once."""
    if job.attempt == 1:
        raise ValueError("once")


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("runs", [True, False], ids=["started", "never started"])
def test_a_job_is_staged_when_it_is_due(
    start_oban: Starter, options: Mapping[str, Any], *, runs: bool
) -> None:
    """Not at the leader's next tick, which is an hour away, whoever has inserted it."""
    start_oban.leading(stager=SLOW)
    oban = start_oban(**options) if runs else start_oban.make(**options)

    job = oban.insert(scheduled(LATER))

    wait_state(oban, job, "available")


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_a_retry_of_another_node(start_oban: Starter, options: Mapping[str, Any]) -> None:
    """It runs when it is due, though the leader has another interval than the node it runs on."""
    start_oban.leading(stager=SLOW)
    oban = start_oban(queues={"alpha": 1}, **options)

    job = oban.insert(later.new({}))

    assert wait_state(oban, job, "completed").attempt == 2


def test_hears_the_leaders_interval(start_oban: Starter) -> None:
    """A Producer tells no more than has to be told: who leads is heard on every node."""
    start_oban.leading(stager={"interval": 0.4})
    follower = start_oban(peer=False, stager=None)

    wait_until(lambda: follower._parts.announcer.interval == 0.4)


def tells(announcer: Announcer, seconds: float) -> bool:
    """Whether the leader is told of a job that is put off for so long."""
    ack = Ack(1, cast("Any", None), cast("Any", "retryable"), delay=seconds)
    return announcer.delay_ahead([ack]) is not None


def beat(node: str = LEADER, **more: object) -> dict[str, object]:
    """What a Stager sends, or with `renewed` a Peer."""
    return {"name": "Oban", "beat": node, "next": 5.0, **more}


def made(**options: Any) -> Announcer:
    """One that sends nothing."""
    return Announcer(Config.build(**options), cast("Publisher", None))


def test_takes_a_minute_until_it_knows() -> None:
    """It can't know less: nobody has said how often the leader looks."""
    announcer = made()

    assert tells(announcer, AHEAD)
    assert not tells(announcer, AHEAD + 0.1)


def test_knows_its_own_interval_where_it_leads_itself() -> None:
    """Nobody beats there, and a turn is not to go step by step for it."""
    announcer = made(peer="isolated", stager={"interval": 2.0})

    assert tells(announcer, 2.0)
    assert not tells(announcer, 2.1)


def test_does_not_know_it_where_another_leads() -> None:
    """A peer that is told not to lead has a leader whose interval it doesn't know."""
    announcer = made(peer={"kind": "isolated", "leader": False}, stager={"interval": 2.0})

    assert tells(announcer, AHEAD)


def test_takes_the_leaders_interval_once_it_knows() -> None:
    """Neither a Peer's beats, which come at another pace, nor those of other names say it."""
    announcer = made()
    announcer.hear(beat(next=2.0, renewed=15.0))
    announcer.hear(beat(name="Other"))
    announcer.hear(beat(next="soon"))
    announcer.hear(beat(node=cast("Any", 7)))
    announcer.hear({"name": "Oban", "due": "2026-01-01T00:00:00Z"})
    assert tells(announcer, AHEAD)

    announcer.hear(beat())
    announcer.hear(beat(next=2.0, renewed=15.0))
    assert tells(announcer, 5.0)
    assert not tells(announcer, 5.1)


def test_forgets_the_leaders_interval_with_the_leader() -> None:
    """Its successor's may be longer, and so may that of one whose beats were missed."""
    announcer = made()
    announcer.hear(beat())
    announcer.hear(beat(SUCCESSOR, renewed=15.0))
    assert tells(announcer, AHEAD)

    announcer.hear(beat(SUCCESSOR))
    announcer.forget()
    assert tells(announcer, AHEAD)


def test_tells_what_is_due_within_its_own_interval() -> None:
    """It may be the next to lead, and tells what its own passes would have to know."""
    announcer = made(stager={"interval": 90.0})
    announcer.hear(beat())

    assert tells(announcer, 90.0)
    assert not tells(announcer, 90.1)
