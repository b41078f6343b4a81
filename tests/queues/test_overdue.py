"""The time that a run may take: what ends it, and what becomes of one that does not end."""

from typing import Any

import pytest

from oban_actors import DatabaseUnavailable, VirtualClock
from oban_actors.claim import Claim
from oban_actors.messages import CancelClaims
from oban_actors.queues.foreman import Foreman
from oban_actors.running import EndReason
from tests.plugins.rescue import scene
from tests.queues.work import OBEY, Work, claims, job, jobs, read, view, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until


@pytest.mark.parametrize(("kind", "what"), [("sync", "heed"), ("async", "wait")])
@pytest.mark.parametrize(("most", "state"), [(20, "retryable"), (1, "discarded")])
def test_a_run_out_of_time_fails(
    start_oban: Starter, work: Work, told: Recorder, kind: str, what: str, most: int, state: str
) -> None:
    """A worker that heeds its time-out ends in time; its job fails with a TimeoutError."""
    oban = start_oban(queues={"alpha": 10})
    one = oban.insert(OBEY[kind].new({"do": what, "timeout": 0.05}, max_attempts=most))
    event = told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == state
    (error,) = after.errors
    assert error["error"].startswith("** (TimeoutError) ")
    assert "timed out after 0.05 s" in error["error"]
    assert event.measurements["duration"] >= 0.05 * 1e9
    assert work.told == {one.id: "timeout"}


@pytest.mark.parametrize(
    ("kind", "what", "where"),
    [
        ("sync", "wait", "its thread hangs in\n"),
        ("async", "refuse", "its task waits in\n"),
        ("async", "block", "its thread hangs in\n"),
    ],
)
def test_a_run_that_ignores_its_time_is_stuck(
    start_oban: Starter,
    work: Work,
    told: Recorder,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    what: str,
    where: str,
) -> None:
    """Its error is recorded, its slot given again; the row stays claimed until the run ends."""
    oban = start_oban(queues={"alpha": 1})
    one = oban.insert(OBEY[kind].new({"do": what, "timeout": 0.05}))
    wait_until(lambda: view(oban).stuck == (one.id,))

    producer = next(node for node in oban.tree().walk() if node.actor == "producer alpha")
    assert producer.note == "1 running, 1 stuck"
    assert "1 running, 1 stuck" in str(oban.tree())
    name = OBEY[kind].spec.name
    said = f"job {one.id} ({name}) is out of time and goes on; {where}"
    # It is counted before it is told of.
    (stack,) = wait_until(
        lambda: [text.partition(said)[2] for text in caplog.messages if said in text]
    )
    line = "await asyncio.shield" if what == "refuse" else "work.gate.result"
    function = {"wait": "_obey", "refuse": "_refuse", "block": "_aobey"}[what]
    assert f"in {function}\n    {line}" in stack
    during = read(oban, one)
    assert during.state == "executing"
    (error,) = during.errors
    assert "timed out after 0.05 s" in error["error"]
    if what != "block":
        wait_state(oban, oban.insert(job(kind, "return")), "completed")
    assert told.all("oban.job.exception") == []
    work.open()
    told.wait_for("oban.job.exception")

    after = read(oban, one)
    assert after.state == "retryable"
    assert after.errors == [error]
    assert view(oban).stuck == ()


@pytest.mark.parametrize(("kind", "what"), [("sync", "wait"), ("async", "refuse")])
def test_a_stuck_run_is_beaten_for_until_it_ends(
    start_oban: Starter, work: Work, events: Recorder, kind: str, what: str
) -> None:
    """However long it goes on, no Lifeline takes it for dead; then its end is written."""
    one = scene(start_oban, events, queues={"alpha": 1})
    hung = one.oban.insert(OBEY[kind].new({"do": what, "timeout": 1.0}))
    work.wait_inside(1)
    one.clock.advance(1)
    claim = claims(one.oban)[hung.id or 0]
    wait_until(lambda: claim.running.reason == "timeout")
    wait_until(lambda: (one.clock.advance(0.02), view(one.oban).stuck)[1])
    one.watch_beside(view(one.oban).uuid)
    assert view(one.oban).stuck == (hung.id,)
    assert read(one.oban, hung).state == "executing"
    work.open()

    assert wait_state(one.oban, hung, "retryable").attempt == 1
    assert work.ran == [hung.id]


def test_the_slot_of_a_stuck_run_is_used_at_once(start_oban: Starter, work: Work) -> None:
    """A job that waits begins as soon as its place is free, and without being told of again."""
    clock = VirtualClock()
    oban = start_oban(queues={"alpha": 1}, stager=None, clock=clock)
    hung, next_one = oban.insert_all(
        [OBEY["sync"].new({"do": "wait", "timeout": 1.0}), job("sync", "return")]
    )
    work.wait_inside(1)
    clock.advance(1)
    wait_until(lambda: claims(oban)[hung.id or 0].running.reason == "timeout")
    # Far less than until the Pulse looks for jobs that wait.
    wait_until(lambda: (clock.advance(0.02), view(oban).stuck)[1])

    wait_state(oban, next_one, "completed")


def test_a_time_that_is_over_before_anybody_watches_it(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline is a moment: a Foreman that hears of the run late does not put it off."""
    clock = VirtualClock()
    watch = Foreman._watch

    def late(self: Foreman, claim: Claim) -> None:
        clock.advance(1)
        watch(self, claim)

    monkeypatch.setattr(Foreman, "_watch", late)
    oban = start_oban(queues={"alpha": 1}, stager=None, clock=clock)
    one = oban.insert(OBEY["sync"].new({"do": "heed", "timeout": 1.0}))

    wait_state(oban, one, "retryable")
    assert work.told == {one.id: "timeout"}


@pytest.mark.parametrize("reason", ["cancelled", "shutdown"])
def test_the_time_of_a_run_that_was_told_to_end_counts_too(
    start_oban: Starter, work: Work, reason: EndReason
) -> None:
    """One that does not end for that either is stuck, once its time is over."""
    clock = VirtualClock()
    oban = start_oban(queues={"alpha": 1}, stager=None, clock=clock)
    hung, next_one = oban.insert_all(
        [OBEY["sync"].new({"do": "wait", "timeout": 1.0}), job("sync", "return")]
    )
    work.wait_inside(1)
    claim = claims(oban)[hung.id or 0]
    oban.tell(("foreman", "alpha"), CancelClaims([claim], reason))
    wait_until(lambda: claim.running.cancelled)
    clock.advance(1)
    wait_until(lambda: (clock.advance(0.02), view(oban).stuck)[1])

    wait_state(oban, next_one, "completed")
    assert claim.running.reason == ("cancelled" if reason == "cancelled" else "timeout")


def test_a_foreman_that_can_not_record_is_not_kept_by_it(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away is tried once, not for each run that is stuck; all are told."""
    tried: list[int] = []

    def away(_engine: Any, _connection: Any, _claimant: Any, job_id: int, *_more: Any) -> bool:
        tried.append(job_id)
        raise DatabaseUnavailable("put in")

    oban = start_oban(queues={"alpha": 3}, stager=None)
    monkeypatch.setattr(type(oban._parts.engine), "record_error", away)
    hung = oban.insert_all([OBEY["sync"].new({"do": "wait", "timeout": 0.05}) for _ in range(3)])
    wait_until(lambda: len(view(oban).stuck) == 3)
    assert len(tried) == 1
    work.open()

    for one in hung:
        (error,) = wait_state(oban, one, "retryable").errors
        assert "timed out after 0.05 s" in error["error"]


def test_stuck_runs_are_replaced_up_to_the_limit(start_oban: Starter, work: Work) -> None:
    """With as many stuck as the limit is, as many others run; when those are stuck too, none."""
    oban = start_oban(queues={"alpha": 2})
    hung = [OBEY["sync"].new({"do": "wait", "timeout": 0.05}) for _ in range(4)]
    oban.insert_all([*hung, *jobs("sync", 2)])
    wait_until(lambda: len(view(oban).stuck) == 4)
    assert start_oban.tables.count("available") == 2
    assert work.inside == 4
    work.open()

    wait_until(lambda: start_oban.tables.count("completed") == 2)
    wait_until(lambda: start_oban.tables.count("retryable") == 4)
