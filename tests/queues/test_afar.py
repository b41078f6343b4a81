"""What a run at an executor finds of its claim and of its time."""

import os

import pytest

from oban_actors import tracing
from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.queues import afar
from oban_actors.queues.afar import TimedRunning, borrowed, end_loan, lend, moment, seconds_since
from oban_actors.queues.remote import payload, perform_here
from tests.queues.claims import claim
from tests.workers import jobs
from tests.workers.running import do, performer


def test_its_claim_is_found_where_it_was_lent() -> None:
    """In this process, until the run is over; a fork has it too, but it is none of its own."""
    one = claim()
    token = lend(one)
    assert borrowed(token) is one
    assert borrowed("another") is borrowed(None) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        assert borrowed(token) is None
    end_loan(token)
    end_loan(token)

    assert borrowed(token) is None


def test_a_run_tells_itself_that_its_time_is_over() -> None:
    """Once, with the reason; one that has time, or no end of it, is not told to end."""
    early, late, endless = TimedRunning(), TimedRunning(), TimedRunning()
    now = SYSTEM_CLOCK.monotonic()
    early.deadline, late.deadline = now + 3600, now

    assert [each.cancelled for each in (early, late, endless)] == [False, True, False]
    assert [each.reason for each in (early, late, endless)] == [None, "timeout", None]
    late.deadline = None
    assert late.cancelled
    early.cancel("cancelled")
    assert (early.cancelled, early.reason) == (True, "cancelled")


def test_how_long_ago_is_known_on_one_machine() -> None:
    """Its processes read one clock; of another machine's nothing is known."""
    now = moment()
    if now is None:
        pytest.skip("this system does not say which machine it is")
    machine, seconds = now

    assert seconds_since((machine, seconds - 60)) >= 60
    assert seconds_since((machine, seconds + 60)) == 0
    assert seconds_since(("another", seconds - 60)) == 0
    assert seconds_since(None) == 0


def test_the_time_until_somebody_takes_a_job_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it waited at its executor is not there any more when it runs."""
    monkeypatch.setattr(afar, "_boot", lambda: "this")
    one, by = do(jobs.timed, "times"), performer()
    by.begin(one)
    given = payload(one, tracing.performing(one.job), by)
    handed = ("this", SYSTEM_CLOCK.monotonic() - 20)
    where = (jobs.timed.spec.module, jobs.timed.spec.name)
    outcome = perform_here(*where, given | {"handed": handed}, TimedRunning())
    over = perform_here(*where, given | {"handed": ("this", handed[1] - 20)}, TimedRunning())

    left, _ = outcome["result"]
    assert 0 < left <= 10
    assert over["result"][0] < 0
