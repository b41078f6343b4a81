"""Testing modes: what runs, and what becomes of inserted jobs."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from oban_actors import ConfigError, IsLeader, Job, NotRunning, Oban, VirtualClock, worker
from oban_actors.config import Config
from oban_actors.testing import all_enqueued, assert_enqueued, refute_enqueued, with_testing_mode
from tests.support.events import recording
from tests.support.instances import Starter
from tests.testing import work


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    work.RAN.clear()
    yield
    work.RAN.clear()


@worker(queue="alpha", name="tests.completes")
def completes(job: Job) -> None:
    """Complete itself where it would write."""
    job.complete(session=object())


class Plugin:
    """A plugin that must not run."""

    def child_spec(self) -> Any:
        """Fail: nobody may ask."""
        raise AssertionError("a plugin was started")


@pytest.mark.parametrize("mode", ["manual", "inline"])
def test_nothing_runs_by_itself(start_oban: Starter, mode: str) -> None:
    """The tree starts, and has no queues, plugins, stager or leader, whatever was asked for."""
    oban = start_oban(
        testing=mode,
        queues={"alpha": 5},
        plugins=[Plugin()],
        peer="isolated",
        stager={"interval": 0.01},
    )

    assert oban.check_all_queues() == []
    assert oban.ask("peer", IsLeader()) is False
    assert oban.tell("stager", object()) is False
    ids = {child.id for child in oban.tree().children}
    assert not {"stager", "plugins"} & {str(each) for each in ids}


def test_options_are_checked_all_the_same() -> None:
    """A test finds an option that the program could not run with."""
    with pytest.raises(ConfigError, match=r"queues\.alpha"):
        Config.build(testing="manual", queues={"alpha": 0})
    with pytest.raises(ConfigError, match="'testing': expected one of 'disabled', 'manual', 'in"):
        Config.build(testing="off")


def test_manual_jobs_wait(start_oban: Starter) -> None:
    """In mode manual an inserted job stands in the table, and nobody runs it."""
    oban = start_oban(testing="manual", queues={"alpha": 5})

    job = oban.insert(work.note.new({"n": 1}))

    assert assert_enqueued(oban, worker=work.note).id == job.id
    assert work.RAN == []


def test_inline_jobs_run_at_once(start_oban: Starter) -> None:
    """A job runs in the inserting thread before `insert` returns, and no row is written."""
    oban = start_oban.make(testing="inline")

    with recording("oban.job.stop") as events:
        job = oban.insert(work.note.new({"n": 1}))
        jobs = oban.insert_all([work.ANote.new({"n": 2}), work.note.new({"n": 3}, schedule_in=60)])

    assert work.RAN == [1, 2, 3]
    assert [each.state for each in (job, *jobs)] == ["completed"] * 3
    assert job.completed_at is not None
    assert job.attempt == 1
    assert start_oban.tables.states() == {}
    assert len(events.all()) == 3


def test_inline_jobs_are_not_unique(start_oban: Starter) -> None:
    """Nothing is remembered by which another job could be the same: each one runs, as in Oban."""
    oban = start_oban.make(testing="inline")
    jobs = [oban.insert(work.note.new({"n": 1}, unique=True)) for _ in range(2)]

    assert work.RAN == [1, 1]
    assert [job.conflict for job in jobs] == [False, False]


def test_inline_needs_no_database() -> None:
    """Without a server and tables inline jobs run all the same."""
    oban = Oban("postgresql+psycopg://nobody@localhost:1/nothing", testing="inline")

    assert oban.insert(work.note.new({"n": 1})).state == "completed"
    assert work.RAN == [1]


def test_inline_errors_are_raised(start_oban: Starter) -> None:
    """What a worker raises reaches who inserts; the jobs after it do not run."""
    oban = start_oban.make(testing="inline")

    with pytest.raises(ValueError, match=r"^boom$"):
        oban.insert_all([work.note.new({"n": 1, "end": "raise"}), work.note.new({"n": 2})])
    with pytest.raises(ValueError, match=r"^boom$"):
        oban.insert(work.note.new({"n": 3, "end": "raise"}, max_attempts=1))
    with pytest.raises(RuntimeError, match=r"unknown worker: tests\.nobody"):
        oban.insert(Job.new(worker="tests.nobody"))
    assert work.RAN == [1, 3]


def test_inline_jobs_show_how_they_ended(start_oban: Starter) -> None:
    """A job that is cancelled or snoozed comes back as its row would be."""
    clock = VirtualClock()
    oban = start_oban.make(testing="inline", clock=clock)

    cancelled = oban.insert(work.note.new({"end": "cancel"}))
    snoozed = oban.insert(work.note.new({"end": "raise snooze"}, meta={"snoozed": 2}))

    assert cancelled.state == "cancelled"
    assert cancelled.cancelled_at is not None
    assert "Cancel('no more')" in cancelled.errors[0]["error"]
    assert (snoozed.state, snoozed.attempt, snoozed.meta) == ("scheduled", 0, {"snoozed": 3})
    assert snoozed.scheduled_at == clock.now() + timedelta(seconds=60)


def test_an_inline_job_may_complete_itself(start_oban: Starter) -> None:
    """A worker that ends its job in its own transaction can be run inline."""
    job = start_oban.make(testing="inline").insert(completes.new())

    assert job.state == "completed"
    with pytest.raises(NotRunning):
        job.complete(session=object())


def test_inline_jobs_may_insert_more(start_oban: Starter) -> None:
    """What a job inserts runs inline too, before that job ends."""
    oban = work.Chain.oban = start_oban.make(testing="inline")

    oban.insert(work.link.new({"left": 3}))

    assert work.RAN == [3, 2, 1, 0]


def test_a_block_has_its_own_mode(start_oban: Starter) -> None:
    """Within the block jobs run inline, or go to the table; afterwards it is as before."""
    oban = start_oban.make(testing="manual")

    with with_testing_mode(oban, "inline"):
        oban.insert(work.note.new({"n": 1}))
        with with_testing_mode(oban, "manual"):
            oban.insert(work.note.new({"n": 2}))
        with pytest.raises(ValueError, match="boom"), with_testing_mode(oban, "inline"):
            oban.insert(work.note.new({"n": 3, "end": "raise"}))
    oban.insert(work.note.new({"n": 4}))

    assert work.RAN == [1, 3]
    assert [job.args["n"] for job in all_enqueued(oban)] == [4, 2]
    with pytest.raises(ConfigError, match="'mode': expected one of"), with_testing_mode(oban, "x"):  # type: ignore[arg-type]  # as a user may
        pass


def test_blocks_of_two_instances(start_oban: Starter) -> None:
    """The mode of one counts on within the block of another."""
    one, two = start_oban.make(testing="manual"), start_oban.make(testing="manual")

    with with_testing_mode(one, "inline"), with_testing_mode(two, "inline"):
        one.insert(work.note.new({"n": 1}))
        two.insert(work.note.new({"n": 2}))

    assert work.RAN == [1, 2]


def test_a_block_is_its_threads_own(start_oban: Starter) -> None:
    """Neither other threads nor other instances change their mode with it."""
    oban, other = start_oban.make(testing="manual"), start_oban.make(testing="manual")

    with with_testing_mode(oban, "inline"):
        other.insert(work.note.new({"n": 1}))
        thread = threading.Thread(target=lambda: oban.insert(work.note.new({"n": 2})))
        thread.start()
        thread.join()

    assert work.RAN == []
    assert len(all_enqueued(oban)) == 2
    refute_enqueued(oban, args={"n": 3})
