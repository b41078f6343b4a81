"""drain_queue: a queue's jobs run where it is called, and are acknowledged as always."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_actors import ConfigError, Job, JobState, Oban, VirtualClock
from oban_actors.testing import DrainCounts
from tests.support.events import recording
from tests.support.instances import Starter
from tests.testing import work
from tests.testing.work import read


def test_every_end_is_counted_and_recorded(oban: Oban) -> None:
    """Each verdict has its count, its row shows it, and its event is told."""
    jobs = oban.insert_all(
        [
            work.note.new({"end": "fine"}),
            work.ANote.new({"end": "fine"}),
            work.note.new({"end": "raise"}),
            work.note.new({"end": "raise"}, max_attempts=1),
            work.note.new({"end": "cancel"}),
            work.ANote.new({"end": "raise snooze"}),
        ]
    )

    with recording("oban.job.stop", "oban.job.exception") as events:
        counts = oban.drain_queue("alpha")

    assert counts == DrainCounts(cancelled=1, discard=1, failure=1, snoozed=1, success=2)
    rows = [read(oban, job) for job in jobs]
    states = ["completed", "completed", "retryable", "discarded", "cancelled", "scheduled"]
    assert [row.state for row in rows] == states
    assert "ValueError) boom" in rows[2].errors[0]["error"]
    assert rows[5].meta == {"snoozed": 1}
    assert all(row.attempted_by[0] == oban.config.node for row in rows)
    told = [event.metadata["state"] for event in events.all("oban.job.stop")]
    assert told == ["success", "success", "cancelled", "snoozed"]
    assert len(events.all("oban.job.exception")) == 2


def test_only_the_queue_asked_for_is_drained(oban: Oban) -> None:
    """Jobs of other queues and jobs that are not due stay as they are."""
    other = oban.insert(work.note.new(queue="beta"))
    later = oban.insert(work.note.new(schedule_in=3600))

    assert oban.drain_queue("alpha") == DrainCounts()
    assert read(oban, other).state == "available"
    assert read(oban, later).state == "scheduled"


def test_jobs_run_in_the_order_of_a_queue(oban: Oban) -> None:
    """Priority first, then time, then id."""
    oban.insert_all([work.note.new({"n": 3}, priority=2), work.note.new({"n": 1})])
    oban.insert_all([work.note.new({"n": 2}), work.note.new({"n": 4}, priority=9)])

    oban.drain_queue("alpha")

    assert work.RAN == [1, 2, 3, 4]


def test_a_limit_leaves_the_rest_available(oban: Oban) -> None:
    """`with_limit` bounds what is claimed; the rest is not touched."""
    jobs = oban.insert_all(work.note.new({"n": n}) for n in range(5))

    assert oban.drain_queue("alpha", with_limit=2).success == 2
    assert [read(oban, job).state for job in jobs] == ["completed"] * 2 + ["available"] * 3
    assert oban.drain_queue("alpha", with_limit=2, with_recursion=True).success == 3


def test_recursion_runs_what_jobs_insert(oban: Oban) -> None:
    """Without recursion only what was there runs, with it all that follows."""
    oban.insert(work.link.new({"left": 3}))

    assert oban.drain_queue("alpha").success == 1
    assert oban.drain_queue("alpha", with_recursion=True).success == 3
    assert work.RAN == [3, 2, 1, 0]


def test_scheduled_jobs_run_when_asked_for(oban: Oban) -> None:
    """`with_scheduled` takes all that are put off, or those due by a time, retryable ones too."""
    soon = oban.insert(work.note.new({"n": 1}, schedule_in=60))
    late = oban.insert(work.note.new({"n": 2}, schedule_in=7200))
    other = oban.insert(work.note.new({"n": 3}, schedule_in=60, queue="beta"))
    until = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251 (as a user writes it)

    assert oban.drain_queue("alpha", with_scheduled=until).success == 1
    assert [read(oban, job).state for job in (soon, late)] == ["completed", "scheduled"]
    assert oban.drain_queue("alpha", with_scheduled=True).success == 1
    assert work.RAN == [1, 2]
    assert read(oban, other).state == "scheduled"


@pytest.mark.parametrize(("seconds", "ran"), [(0, 1), (1, 0)])
def test_times_that_others_wrote(oban: Oban, start_oban: Starter, seconds: int, ran: int) -> None:
    """They may have no digits below the second, and on SQLite a blank where others have a T."""
    oban.insert(work.note.new(schedule_in=60))
    start_oban.tables.execute(
        "UPDATE {jobs} SET scheduled_at = :at", at=f"2026-01-02 12:00:0{seconds}"
    )
    until = datetime(2026, 1, 2, 12, tzinfo=UTC)

    assert oban.drain_queue("alpha", with_scheduled=until).success == ran


def test_retries_run_until_none_is_left(oban: Oban) -> None:
    """With recursion and scheduled jobs a failing job is tried until it is discarded."""
    job = oban.insert(work.note.new({"end": "raise"}, max_attempts=3))

    counts = oban.drain_queue("alpha", with_recursion=True, with_scheduled=True)

    assert counts == DrainCounts(failure=2, discard=1)
    assert [error["attempt"] for error in read(oban, job).errors] == [1, 2, 3]


def test_without_safety_the_error_is_raised_and_nothing_lost(oban: Oban) -> None:
    """The failure is recorded, what ran stays done, what did not begin is given back whole."""
    jobs = oban.insert_all(
        [work.note.new({"n": 1}), work.note.new({"end": "raise"}), work.note.new({"n": 2})]
    )

    with pytest.raises(ValueError, match=r"^boom$"):
        oban.drain_queue("alpha", with_safety=False)

    rows = [read(oban, job) for job in jobs]
    assert [row.state for row in rows] == ["completed", "retryable", "available"]
    assert [row.attempt for row in rows] == [1, 1, 0]
    assert oban.drain_queue("alpha").success == 1


def test_what_is_done_twice_is_done_once(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be lost of any of its transactions, which then comes again."""
    transaction = oban.repo.transaction

    def twice(work: Any, **options: Any) -> Any:
        transaction(work, **options)
        return transaction(work, **options)

    ends = ("fine", "raise", "cancel", "snooze")
    jobs = oban.insert_all(work.note.new({"n": n, "end": end}) for n, end in enumerate(ends))
    with monkeypatch.context() as patch:
        patch.setattr(oban.repo, "transaction", twice)
        counts = oban.drain_queue("alpha")

    assert counts == DrainCounts(success=1, failure=1, cancelled=1, snoozed=1)
    assert work.RAN == [0, 1, 2, 3]
    rows = [read(oban, job) for job in jobs]
    assert [row.attempt for row in rows] == [1, 1, 1, 0]
    assert [len(row.errors) for row in rows] == [0, 1, 1, 0]
    assert rows[3].meta == {"snoozed": 1}


def test_an_unknown_worker_and_an_unreadable_row_fail(oban: Oban, start_oban: Starter) -> None:
    """What can't be run is a failure like any other, and drains on."""
    oban.insert(Job.new(worker="tests.nobody", queue="alpha"))
    odd = oban.insert(work.note.new())
    good = oban.insert(work.note.new())
    start_oban.tables.execute("UPDATE {jobs} SET args = '[1]' WHERE id = :id", id=odd.id)

    assert oban.drain_queue("alpha") == DrainCounts(failure=2, success=1)
    assert read(oban, good).state == "completed"
    start_oban.tables.execute("UPDATE {jobs} SET state = 'available' WHERE id = :id", id=odd.id)
    # No worker has raised anything that could be raised here.
    assert oban.drain_queue("alpha", with_safety=False) == DrainCounts(discard=1)


@pytest.mark.parametrize("commits", [True, False])
def test_a_job_may_complete_itself(
    oban: Oban, start_oban: Starter, monkeypatch: pytest.MonkeyPatch, *, commits: bool
) -> None:
    """With its worker's commit it is done, and failed without."""
    engine = start_oban.tables.engine

    def complete(job: Job) -> None:
        with engine.connect() as connection:
            job.complete(connection=connection)
            if commits:
                connection.commit()

    monkeypatch.setattr(work, "act", complete)
    job = oban.insert(work.acts.new())

    assert oban.drain_queue("alpha") == DrainCounts(success=commits, failure=not commits)
    assert read(oban, job).state == ("completed" if commits else "retryable")


def test_a_time_out_ends_an_async_job(oban: Oban) -> None:
    """An async worker out of its time fails with it, though no tree watches."""
    job = oban.insert(work.endless.new())

    assert oban.drain_queue("alpha") == DrainCounts(failure=1)
    assert "TimeoutError" in read(oban, job).errors[0]["error"]


def test_a_virtual_clock_makes_jobs_due(start_oban: Starter) -> None:
    """Under a virtual clock a job is drained once its time has come, and not before."""
    clock = VirtualClock()
    oban = start_oban.make(testing="manual", clock=clock)
    job = oban.insert(work.note.new(schedule_in=60))

    assert oban.drain_queue("alpha", with_scheduled=clock.now()) == DrainCounts()
    clock.advance(60)
    assert oban.drain_queue("alpha", with_scheduled=clock.now()).success == 1
    assert read(oban, job).completed_at == clock.now()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": "*"}, "invalid value for 'queue': expected another name than '\\*'"),
        ({"with_limit": 0}, "'with_limit': expected a positive integer, got: 0"),
        ({"with_recursion": 1}, "'with_recursion': expected a boolean, got: 1"),
        ({"with_safety": None}, "'with_safety': expected a boolean, got: None"),
        ({"with_scheduled": "now"}, "'with_scheduled': expected a boolean or an aware datetime"),
        (
            {"with_scheduled": datetime(2026, 1, 1)},  # noqa: DTZ001 (what is refused)
            "'with_scheduled': expected a boolean or an aware datetime",
        ),
    ],
)
def test_wrong_options_are_refused(oban: Oban, options: dict[str, Any], message: str) -> None:
    """An option that can't be meant is named, and nothing runs."""
    job = oban.insert(work.note.new())

    with pytest.raises(ConfigError, match=message):
        oban.drain_queue(**({"queue": "alpha"} | options))

    assert read(oban, job).state == JobState.AVAILABLE
