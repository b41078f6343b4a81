"""Queues that are started while they still end: they begin anew, as they were told last."""

import logging
from collections.abc import Mapping
from threading import Event
from typing import Any

import pytest

from oban_actors import Oban
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.actors.requests import WhichChildren
from oban_actors.config import QueueOptions
from oban_actors.messages import Check, Notification
from oban_actors.queues.supervisor import Queues, steered
from oban_actors.queues.workforce import Workforce
from tests.queues.test_crashes import crash
from tests.queues.test_shutdown import stopping
from tests.queues.work import Work, jobs, read, view, wait_state
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None, "shutdown_grace_period": 60.0}


def ending(oban: Oban, work: Work, queue: str) -> Any:
    """Let a queue that runs a job end, and begin it anew; gives the job."""
    one = oban.insert(jobs("sync", 1, "wait", queue=queue)[0])
    work.wait_inside(1)
    oban.stop_queue(queue)
    wait_until(lambda: oban._parts.workforce.is_ending(queue))
    oban.start_queue(queue, 4, local_only=True)
    return one


def wait_next(oban: Oban, options: QueueOptions) -> None:
    """Wait until alpha is to begin anew in this way."""
    wait_until(lambda: oban._parts.workforce.next() == {"alpha": options})


def wait_begun(oban: Oban, queue: str, limit: int, *, paused: bool) -> None:
    """Wait until a queue runs in this way."""

    def begun() -> bool:
        found = oban.check_queue(queue)
        told = found and (found.shutting_down, found.limit, found.paused)
        return told == (False, limit, paused)

    wait_until(begun, message=f"{queue} begun anew")


def test_what_it_is_told_while_it_ends(start_oban: Starter, work: Work) -> None:
    """It is paused, resumed and scaled as one that runs, which it shows once it does."""
    oban = start_oban(**ALPHA)
    before = SYSTEM_CLOCK.now()
    assert view(oban).shutdown_started_at is None
    one = ending(oban, work, "alpha")
    began = view(oban).shutdown_started_at
    assert began is not None
    assert before <= began <= SYSTEM_CLOCK.now()
    oban.pause_queue("alpha")
    wait_next(oban, QueueOptions(limit=4, paused=True))
    oban.resume_all_queues()
    wait_next(oban, QueueOptions(limit=4))
    oban.pause_all_queues()
    oban.scale_queue("alpha", 2)
    wait_next(oban, QueueOptions(limit=2, paused=True))
    assert view(oban).shutting_down
    work.open()

    wait_begun(oban, "alpha", 2, paused=True)
    assert view(oban).shutdown_started_at is None
    wait_state(oban, one, "completed")
    oban.resume_queue("alpha")
    wait_state(oban, oban.insert(jobs("sync", 1)[0]), "completed")


def test_what_it_is_told_right_before_it_begins(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Producer that ended hears no more, the new one not yet: Queues tells it."""
    oban = start_oban(**ALPHA)
    one = ending(oban, work, "alpha")
    dismiss = Workforce.dismiss

    def dismissing(workforce: Workforce, queue: str) -> None:
        oban.tell("queues", Notification("signal", {"action": "pause", "queue": queue}))
        dismiss(workforce, queue)

    monkeypatch.setattr(Workforce, "dismiss", dismissing)
    work.open()

    wait_begun(oban, "alpha", 4, paused=True)
    wait_state(oban, one, "completed")


def test_the_last_word_counts_though_it_is_heard_first(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its Producer hears by itself can come before what Queues, held up, tells it."""
    oban = start_oban(**ALPHA)
    added, heard, go = Event(), Event(), Event()
    steer = Queues._steer

    def steering(queues: Queues, queue: str, payload: Mapping[str, Any]) -> None:
        heard.set()
        assert go.wait(30)
        steer(queues, queue, payload)

    def adding(queues: Queues, *given: Any) -> None:
        add(queues, *given)
        oban.tell("queues", pause)
        added.set()

    add = Queues._add
    monkeypatch.setattr(Queues, "_add", adding)
    monkeypatch.setattr(Queues, "_steer", steering)
    pause, resume = (
        Notification("signal", {"action": action, "queue": "beta"})
        for action in ("pause", "resume")
    )
    oban.start_queue("beta", 1, local_only=True)
    assert added.wait(30)
    assert heard.wait(30)
    for name in (("producer", "beta"), "queues"):
        oban.tell(name, resume)
    assert oban.ask(("producer", "beta"), Check(), timeout=30).paused is False
    go.set()

    # Queues asks itself whether all was told, so that it has to answer several times.
    for _ in range(5):
        oban.ask("queues", WhichChildren(), timeout=30)
    assert oban.ask(("producer", "beta"), Check(), timeout=30).paused is False
    assert oban._parts.workforce.next() == {}


@pytest.mark.parametrize("queue", ["alpha", "beta"])
def test_it_begins_anew_though_who_knew_crashed(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    """When the supervisor of the queues crashes its successor does so, be it an option or not."""
    # It waits for the jobs of what ends, and is not to have waited before.
    oban = start_oban(**{**ALPHA, "shutdown_grace_period": 1.5})
    oban.start_queue("beta", 1, local_only=True)
    one = ending(oban, work, queue)
    crash(monkeypatch, oban.whereis("queues"))

    wait_begun(oban, queue, 4, paused=False)
    work.open()
    wait_state(oban, one, "completed")
    wait_state(oban, oban.insert(jobs("sync", 1, queue=queue)[0]), "completed")
    assert work.again == {}
    assert oban._parts.workforce.next() == {}


@pytest.mark.parametrize("stop", ["queue", "tree"])
def test_a_stop_is_the_last_word(start_oban: Starter, work: Work, stop: str) -> None:
    """Of the queue alone or of all: it does not begin anew by itself, as another one neither."""
    oban = start_oban(queues={"alpha": 5, "gamma": 1}, stager=None, shutdown_grace_period=60.0)
    oban.start_queue("beta", 1, local_only=True)
    ending(oban, work, "beta")
    if stop == "queue":
        oban.stop_queue("beta")
        wait_until(lambda: oban._parts.workforce.next() == {})
        work.open()
    else:
        stopper = stopping(oban)
        wait_until(lambda: oban._parts.workforce.next() == {})
        work.open()
        stopper.join(60)
        oban.start()

    # What is left of it may be written yet.
    wait_until(lambda: oban.check_queue("beta") is None)
    (other,) = oban.insert_all(jobs("sync", 1, queue="beta"))
    wait_state(oban, oban.insert(jobs("sync", 1, queue="gamma")[0]), "completed")
    assert read(oban, other).state == "available"
    assert oban._parts.workforce.next() == {}


def test_a_limit_that_is_none_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Others may send anything; it is told."""
    with caplog.at_level(logging.WARNING, "oban_actors"):
        after = steered("alpha", QueueOptions(limit=3), {"action": "scale", "limit": "many"})

    assert after == QueueOptions(limit=3)
    assert "queue alpha can't be scaled as a signal says" in caplog.text
