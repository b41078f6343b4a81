"""Calls for one job: what becomes of it in each state, and who is told."""

from datetime import timedelta

import pytest

from oban_actors import ConfigError, InvalidJob, Job, JobNotFound, JobState, Oban
from tests.control.conftest import insert_each_state, job_in
from tests.queues.work import obey, renew
from tests.support.events import recording
from tests.support.instances import Starter, Tables
from tests.support.waiting import wait_until

ENDED = {JobState.CANCELLED, JobState.COMPLETED, JobState.DISCARDED}


def test_cancel(oban: Oban) -> None:
    """What has not ended is cancelled, with the time; what has ended stays."""
    ids = insert_each_state(oban)

    done = {state for state, job_id in ids.items() if oban.cancel_job(job_id)}

    assert done == set(JobState) - ENDED
    for state, job_id in ids.items():
        job = oban.get_job(job_id)
        assert job is not None
        assert job.state == (state if state in ENDED else "cancelled")
        assert (job.cancelled_at is None) == (state in ENDED)
    assert oban.cancel_job(max(ids.values()) + 1) is False


def test_retry(oban: Oban) -> None:
    """What is neither available nor running is available now, with an attempt more at least."""
    ids = insert_each_state(oban)
    first = oban.get_job(ids[JobState.COMPLETED])
    assert first is not None

    done = {state for state, job_id in ids.items() if oban.retry_job(job_id)}

    assert done == set(JobState) - {JobState.AVAILABLE, JobState.EXECUTING}
    job = oban.get_job(ids[JobState.COMPLETED])
    assert job is not None
    assert job.scheduled_at is not None
    assert first.scheduled_at is not None
    assert (job.state, job.attempt, job.max_attempts) == ("available", 1, 2)
    assert job.scheduled_at > first.scheduled_at


def test_a_retried_job_is_as_new(oban: Oban) -> None:
    """The marks of its end go, its errors stay, and used up attempts become one more."""
    error = {"at": "2026-11-24T12:00:00.000000Z", "attempt": 2, "error": "boom"}
    old = job_in("discarded")
    old.attempt, old.errors = 2, [error]
    (inserted,) = oban.insert_all([old])
    assert inserted.inserted_at is not None
    for name in ("completed_at", "cancelled_at", "discarded_at"):
        setattr(old, name, inserted.inserted_at)
    (job,) = oban.insert_all([old])

    assert oban.retry_job(job)

    found = oban.get_job(job.id or 0)
    assert found is not None
    assert (found.attempt, found.max_attempts, found.errors) == (2, 3, [error])
    assert (found.completed_at, found.cancelled_at, found.discarded_at) == (None, None, None)


@pytest.mark.parametrize(("attempt", "most", "then"), [(0, 1, 1), (1, 4, 4), (3, 4, 4), (4, 4, 5)])
def test_attempts_of_a_retried_job(oban: Oban, attempt: int, most: int, then: int) -> None:
    """It keeps what it may have, and has one more only where it had them all."""
    job = job_in("cancelled")
    job.attempt, job.max_attempts = attempt, most
    job = oban.insert(job)

    assert oban.retry_job(job)

    found = oban.get_job(job.id or 0)
    assert found is not None
    assert (found.attempt, found.max_attempts) == (attempt, then)


def test_delete(oban: Oban) -> None:
    """All but what runs can be deleted."""
    ids = insert_each_state(oban)

    done = {state for state, job_id in ids.items() if oban.delete_job(job_id)}

    assert done == set(JobState) - {JobState.EXECUTING}
    assert [job.state for job in oban.all_jobs()] == ["executing"]


def test_running_jobs_are_told(start_oban: Starter) -> None:
    """A cancel sends Oban's `pkill` for what runs, one for each job, and nothing for others."""
    oban = start_oban()
    heard = start_oban.hear(oban, "signal")
    jobs = oban.insert_all([job_in("executing"), job_in("available"), job_in("executing")])

    oban.cancel_job(jobs[0])
    oban.cancel_job(jobs[1])
    oban.cancel_all_jobs(state=["executing", "available"])

    ids = [jobs[0].id, jobs[2].id]
    assert heard.wait_for("signal", 2) == [{"action": "pkill", "job_id": each} for each in ids]


@pytest.mark.parametrize("how", ["one", "all"])
def test_what_a_running_job_is_told(start_oban: Starter, how: str) -> None:
    """Oban's two keys, and one of ours that says which of the job's runs is meant."""
    work = renew()
    oban = start_oban(queues={"alpha": 1}, stager=None)
    heard = start_oban.hear(oban, "signal")
    job = oban.insert(obey.new({"do": "heed"}))
    work.wait_inside(1)
    row = oban.get_job(job.id or 0)
    assert row is not None
    assert row.attempted_at is not None

    assert oban.cancel_job(job) if how == "one" else oban.cancel_all_jobs(queue="alpha") == 1

    (payload,) = heard.wait_for("signal")
    claimed_at = payload.pop("attempted_at")
    assert payload == {"action": "pkill", "job_id": job.id}
    assert claimed_at == row.attempted_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    wait_until(lambda: work.told == {job.id: "cancelled"})


def test_a_retry_wakes_its_queue(start_oban: Starter) -> None:
    """Each queue is told once, in the transaction of the retry."""
    oban = start_oban(insert_notify=False, stager=None)
    heard = start_oban.hear(oban, "insert")
    oban.insert_all(job_in("discarded", queue=queue) for queue in ("a", "b", "a"))
    oban.insert(job_in("available", queue="never"))

    assert oban.retry_all_jobs(everything=True) == 3

    assert sorted(each["queue"] for each in heard.wait_for("insert", 2)) == ["a", "b"]


def test_update(oban: Oban) -> None:
    """Every field that may be changed is, as `Job.new` would have it, and the rest stays."""
    job = oban.insert(job_in("available", args={"a": 1}))

    updated = oban.update_job(
        job,
        {
            "args": {"b": [1, {"c": None}]},
            "max_attempts": 7,
            "meta": {"m": "ü"},
            "priority": 4,
            "queue": "other",
            "tags": [" Big ", "big"],
            "worker": "Elixir.My.Worker",
        },
    )

    assert updated == oban.get_job(job.id or 0)
    assert (updated.args, updated.meta) == ({"b": [1, {"c": None}]}, {"m": "ü"})
    assert (updated.max_attempts, updated.priority, updated.queue) == (7, 4, "other")
    assert (updated.tags, updated.worker, updated.state) == (["big"], "My.Worker", "available")
    assert updated.scheduled_at == job.scheduled_at


def test_update_by_a_function(oban: Oban) -> None:
    """A function sees the job as it stands; what it raises leaves the job alone."""
    job = oban.insert(job_in("available", meta={"count": 1}))

    updated = oban.update_job(job, lambda job: {"meta": {"count": job.meta["count"] + 1}})
    with pytest.raises(ZeroDivisionError):
        oban.update_job(job, lambda _: {"priority": 1 // 0})

    assert updated.meta == {"count": 2}
    assert oban.get_job(job.id or 0) == updated


def test_update_to_another_time(start_oban: Starter) -> None:
    """A time makes a job scheduled, to the microsecond; the leader is told if it is soon."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "actors")
    job = oban.insert(job_in("available"))
    assert job.scheduled_at is not None
    later = job.scheduled_at + timedelta(days=1, microseconds=1)

    updated = oban.update_job(job, {"scheduled_at": later})
    assert (updated.state, updated.scheduled_at) == ("scheduled", later)
    oban.update_job(job, {"scheduled_at": job.scheduled_at})

    due = job.scheduled_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    told = wait_until(lambda: [each for each in heard.payloads("actors") if "due" in each])
    assert told == [{"name": "Oban", "due": due}]


def test_an_update_of_the_queue_wakes_it(start_oban: Starter) -> None:
    """An available job that changes its queue is heard of there."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "insert")
    job = oban.insert(job_in("retryable"))

    oban.update_job(job, {"queue": "quiet"})
    oban.retry_job(job)
    oban.update_job(job, {"queue": "loud"})

    assert heard.wait_for("insert", 2) == [{"queue": "quiet"}, {"queue": "loud"}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prioritty": 1}, "did you mean 'priority'"),
        ({"priority": 10}, "'priority': expected an integer from 0 to 9, got: 10"),
        ({"queue": "*"}, r"'queue': expected another name than '\*', which means all queues"),
        ({"state": "completed"}, "unknown option 'state'"),
        ({"args": None}, "'args'"),
        ({"max_attempts": 1}, "'max_attempts': expected at least the 2 it had already, got: 1"),
        (["priority"], "'changes': expected a mapping"),
    ],
)
def test_updates_that_are_refused(oban: Oban, changes: dict[str, object], message: str) -> None:
    """A wrong change is refused by name, and the job stays as it was."""
    job = job_in("available")
    job.attempt = 2
    job = oban.insert(job)

    with pytest.raises(InvalidJob, match=message):
        oban.update_job(job, changes)

    assert oban.get_job(job.id or 0) == job


def test_times_that_would_run_a_job_twice_or_never(oban: Oban) -> None:
    """A running job can't be scheduled, nor one without attempts left unless it gets more."""
    running = oban.insert(job_in("executing"))
    spent = job_in("discarded")
    spent.attempt = 2
    spent = oban.insert(spent)

    with pytest.raises(InvalidJob, match="would run twice"):
        oban.update_job(running, {"scheduled_at": running.scheduled_at})
    with pytest.raises(InvalidJob, match="would never run"):
        oban.update_job(spent, {"scheduled_at": spent.scheduled_at})
    both = oban.update_job(spent, {"scheduled_at": spent.scheduled_at, "max_attempts": 3})

    assert both.state == "scheduled"


@pytest.mark.parametrize("state", ["available", "scheduled", "retryable", "suspended"])
def test_too_few_attempts_for_a_job_that_waits(oban: Oban, state: str) -> None:
    """Without one more it would wait for ever; one that runs or has ended needs none."""
    waits = oban.insert(job_in(state))

    with pytest.raises(InvalidJob, match=r"'max_attempts': expected more than the 1 .*, got: 1"):
        oban.update_job(waits, {"max_attempts": 1})

    assert oban.get_job(waits.id or 0) == waits
    assert oban.update_job(waits, {"max_attempts": 2}).max_attempts == 2
    for other in ("executing", "completed"):
        assert oban.update_job(oban.insert(job_in(other)), {"max_attempts": 1}).max_attempts == 1


def test_a_running_job_stays_in_its_queue(oban: Oban) -> None:
    """Its producer would no longer find it; everything else may be changed."""
    running = oban.insert(job_in("executing"))

    with pytest.raises(InvalidJob, match="can't be moved to another queue"):
        oban.update_job(running, {"queue": "elsewhere"})

    changed = oban.update_job(running, {"queue": running.queue, "priority": 3})
    assert (changed.state, changed.priority) == ("executing", 3)


def test_a_queue_that_none_can_be(oban: Oban, tables: Tables) -> None:
    """A row of it is there as any other, and can be changed to one that runs."""
    job = oban.insert(job_in("available"))
    tables.execute("UPDATE {jobs} SET queue = '*'")

    (found,) = oban.all_jobs(queue="*")
    assert (found.id, found.queue) == (job.id, "*")
    assert oban.update_job(found, {"priority": 1}).queue == "*"
    assert oban.cancel_job(found)
    assert oban.retry_job(found)
    assert oban.update_job(found, {"queue": "default"}).queue == "default"


def test_what_is_not_there(oban: Oban) -> None:
    """No such job: nothing to read, nothing done, and an error of its own for an update."""
    assert oban.get_job(7) is None
    assert (oban.cancel_job(7), oban.retry_job(7), oban.delete_job(7)) == (False, False, False)
    with pytest.raises(JobNotFound, match="no job 7") as caught:
        oban.update_job(7, {"priority": 1})
    assert caught.value.id == 7


@pytest.mark.parametrize("wrong", ["1", None, True, 2**63, Job.new(worker="w")])
def test_what_is_no_job(oban: Oban, wrong: int) -> None:
    """Neither a job nor an id is refused before the database is asked."""
    with pytest.raises(ConfigError, match="expected a job or its id"):
        oban.cancel_job(wrong)


def test_events(oban: Oban) -> None:
    """Each call is one span by Oban's name, with what it was about and what came of it."""
    names = [
        f"{call}{of}" for call in ("cancel", "retry", "delete") for of in ("_job", "_all_jobs")
    ]
    spans = [f"oban.engine.{name}.stop" for name in [*names, "update_job"]]
    job = oban.insert(job_in("available"))

    with recording(*spans) as recorder:
        oban.cancel_job(job)
        oban.cancel_all_jobs(queue="none")
        oban.retry_job(job)
        oban.retry_all_jobs(queue="none")
        oban.update_job(job, {"priority": 1})
        oban.delete_job(job)
        oban.delete_all_jobs(queue="none")

    assert sorted(event.name for event in recorder.all()) == sorted(spans)
    assert all(event.metadata["conf"] is oban.config for event in recorder.all())
    assert recorder.all("oban.engine.cancel_job.stop")[0].metadata["changed"] is True
    assert recorder.all("oban.engine.update_job.stop")[0].metadata["job"].priority == 1
    bulk = recorder.all("oban.engine.delete_all_jobs.stop")[0].metadata
    assert (bulk["queryable"], bulk["jobs"]) == ({"queue": "none"}, [])


def test_an_unreadable_row(oban: Oban, tables: Tables) -> None:
    """It is named by whoever reads it, or left out on demand; it can be cancelled and deleted."""
    good, bad = oban.insert_all([job_in("available"), job_in("available")])
    kind = "jsonb" if tables.schema else "text"
    tables.execute(f"UPDATE {{jobs}} SET args = cast('[1]' AS {kind}) WHERE id = :id", id=bad.id)

    with pytest.raises(InvalidJob, match=f"job {bad.id} "):
        oban.get_job(bad.id or 0)
    with pytest.raises(InvalidJob, match=f"job {bad.id} "):
        oban.all_jobs()
    assert oban.all_jobs(skip_unreadable=True) == [good]
    assert oban.cancel_job(bad)
    assert oban.delete_all_jobs(id=[bad.id or 0]) == 1
