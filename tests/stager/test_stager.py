"""The Stager at work, messaged directly, on both databases."""

import threading

import pytest

from oban_actors import Election, Notify, Oban, ServerCrashed, Stage
from oban_actors.actors import VirtualClock
from tests.stager.passes import SLOW, of_stager, stage
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import (
    Starter,
    available,
    scheduled,
    starter,
)
from tests.support.waiting import wait_until


def test_due_jobs_become_available(start_oban: Starter, events: Recorder) -> None:
    """Jobs due 9 and 5 s ago are staged, one due in 10 s is not; start and stop say so."""
    oban = start_oban.leading(stager=SLOW)
    first = oban.insert(scheduled(-9))
    second = oban.insert(scheduled(-5))
    future = oban.insert(scheduled(10))
    wait_until(lambda: start_oban.tables.count("available") == 2)
    events.clear()
    third = oban.insert(scheduled(-3600, queue="beta"), session=None)
    result = stage(oban)

    states = start_oban.tables.states()
    assert [states[job.id] for job in (first, second, third, future) if job.id] == [
        "available",
        "available",
        "available",
        "scheduled",
    ]
    assert result.leader
    assert result.error is None
    stop = events.wait_for("oban.plugin.stop", of_stager)
    start = events.wait_for("oban.plugin.start", of_stager)
    assert set(start.measurements) >= {"system_time"}
    assert start.metadata["conf"] is oban.config
    assert isinstance(stop.measurements["duration"], int)
    assert stop.metadata["leader"] is True


def test_a_pass_answers_with_what_it_did(start_oban: Starter) -> None:
    """Asked `Stage()`, the Stager makes one pass; the result names jobs, queues and next due."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    due = oban.insert(scheduled(-5, queue="alpha"))
    oban.insert(scheduled(100, queue="gamma"))
    oban.insert(available(queue="beta"))

    result = stage(oban)

    assert [(job.id, job.queue, job.state) for job in result.staged] == [
        (due.id, "alpha", "scheduled")
    ]
    assert sorted(result.queues) == ["alpha", "beta"]
    assert result.next_due_in == pytest.approx(100, abs=30)
    assert stage(oban).staged_count == 0


def test_the_event_counts_what_was_staged(start_oban: Starter, events: Recorder) -> None:
    """Jobs due 9 and 5 s ago are two, and the event names them."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    jobs = oban.insert_all([scheduled(-9), scheduled(-5), scheduled(10)])
    events.clear()

    stage(oban)

    stop = events.wait_for("oban.plugin.stop", of_stager)
    assert stop.metadata["staged_count"] == 2
    assert [job.id for job in stop.metadata["staged_jobs"]] == [job.id for job in jobs[:2]]
    of_engine = events.wait_for("oban.engine.stage_jobs.stop").metadata
    assert of_engine["jobs"] == stop.metadata["staged_jobs"]
    assert of_engine["queues"] == ("alpha",)


def test_retryable_jobs_are_staged_too(start_oban: Starter) -> None:
    """A failed job whose time has come is made available; finished ones stay as they are."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    ids = [oban.insert(scheduled(-5)).id for _ in range(5)]
    for job_id, state in zip(
        ids, ["retryable", "completed", "discarded", "cancelled", "executing"], strict=True
    ):
        start_oban.tables.execute(
            "UPDATE {jobs} SET state = :state WHERE id = :id", state=state, id=job_id
        )

    assert [job.id for job in stage(oban).staged] == [ids[0]]


def test_the_limit_takes_the_earliest(start_oban: Starter) -> None:
    """With a limit of one, the job due first is staged, whatever its id."""
    oban = start_oban.leading(stager={"interval": 3600.0, "limit": 1}, insert_notify=False)
    late = oban.insert(scheduled(-1))
    early = oban.insert(scheduled(-9))

    assert [job.id for job in stage(oban).staged] == [early.id]
    assert [job.id for job in stage(oban).staged] == [late.id]


def test_a_full_pass_of_the_timer_is_followed_by_another(start_oban: Starter) -> None:
    """A backlog above the limit is staged by one tick, not by one tick for each batch."""
    oban = start_oban.leading(stager={"interval": 3600.0, "limit": 2}, insert_notify=False)
    oban.insert_all([scheduled(-5) for _ in range(7)])

    oban.tell("stager", Stage())

    wait_until(lambda: start_oban.tables.count("available") == 7)


def test_the_first_pass_comes_after_an_interval(database: Database, start_oban: Starter) -> None:
    """`init` arms the timer; a virtual clock shows when it fires, and that it is armed again."""
    clock = VirtualClock()
    oban = start_oban.make(
        clock=clock, peer="isolated", notifier="isolated", stager={"interval": 7.0}
    )
    oban.insert_all([scheduled(1), scheduled(8), scheduled(50)])
    oban.start()
    clock.advance(6.9)
    # Answered after whatever the clock has sent.
    oban.whereis("stager").proxy().mode.get(timeout=30)
    assert start_oban.tables.count("available") == 0

    clock.advance(0.2)

    wait_until(lambda: start_oban.tables.count("available") == 1)
    wait_until(lambda: oban.tree().find("stager").state == "idle")
    clock.advance(7.1)
    wait_until(lambda: start_oban.tables.count("available") == 2)
    assert start_oban.tables.count("scheduled") == 1


def test_a_successor_looks_soon(start_oban: Starter) -> None:
    """What a Stager that crashed knew of due jobs is not waited for until the next tick."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    oban.insert(scheduled(-5))
    before = oban.whereis("stager")
    with pytest.raises(ServerCrashed):
        before.ask("nonsense", timeout=30)

    wait_until(lambda: start_oban.tables.count("available") == 1)


def test_a_job_is_staged_when_it_is_due_not_at_the_next_tick(start_oban: Starter) -> None:
    """What is inserted due within the interval arms the leader's timer."""
    oban = start_oban.leading(stager={"interval": 20.0})
    wait_until(lambda: stage(oban).error is None)

    oban.insert(scheduled(0.3))

    wait_until(lambda: start_oban.tables.count("available") == 1, timeout=15)


def test_a_follower_stages_nothing(start_oban: Starter, events: Recorder) -> None:
    """A node that never leads makes no pass over the table, but tells that it ran."""
    oban = start_oban(peer=False, stager=SLOW)
    oban.insert(scheduled(-5))

    result = stage(oban)

    assert not result.leader
    assert result.staged_count == 0
    assert start_oban.tables.count("available") == 0
    assert events.wait_for("oban.plugin.stop", of_stager).metadata["staged_count"] == 0


def test_under_an_elixir_leader_it_does_not_stage(start_oban: Starter) -> None:
    """An unexpired row of somebody else is respected."""
    oban = start_oban.make(stager=SLOW)
    insert = "INSERT INTO {peers} (name, node, started_at, expires_at) VALUES ('Oban', 'web.1', "
    if start_oban.database.kind == "postgresql":
        now = "now() at time zone 'utc'"
        values = f"{now}, {now} + interval '1 hour')"
    else:
        values = "'2026-01-01T00:00:00.000000Z', '2999-01-01T00:00:00.000000Z')"
    start_oban.tables.execute(insert + values)
    oban.start()
    oban.ask("peer", Election(), timeout=30)
    oban.insert(scheduled(-5))

    assert stage(oban).leader is False
    assert start_oban.tables.count("available") == 0


def test_queues_are_told_in_the_same_pass(start_oban: Starter) -> None:
    """Listeners of `insert` hear each queue that has available jobs, staged now or before."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    heard = start_oban.hear(oban, "insert")
    oban.insert_all([scheduled(-5, queue="alpha"), available(queue="beta")])

    stage(oban)

    payloads = heard.wait_for("insert", 2)
    assert {"queue": "alpha"} in payloads
    assert {"queue": "beta"} in payloads


def test_no_work_tells_nobody(start_oban: Starter) -> None:
    """Without available jobs there is no notification."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    heard = start_oban.hear(oban, "insert")
    oban.insert(scheduled(500))

    assert stage(oban).queues == ()
    # Notifications come in their order: whatever the pass had sent would stand before this one.
    oban.ask("notifier", Notify("insert", ({"queue": "marker"},)), timeout=30)
    assert heard.wait_for("insert") == [{"queue": "marker"}]


@pytest.mark.db
def test_a_concurrent_cancel_is_never_undone(pg: Database, start_oban: Starter) -> None:
    """Staging passes a row that another transaction is cancelling, and finds it cancelled."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    job = oban.insert(scheduled(-5))
    other = oban.insert(scheduled(-4))
    tables = start_oban.tables
    with tables.engine.begin() as connection:
        tables.on(connection, "UPDATE {jobs} SET state = 'cancelled' WHERE id = :id", id=job.id)
        assert [staged.id for staged in stage(oban).staged] == [other.id]

    stage(oban)

    assert tables.states() == {job.id: "cancelled", other.id: "available"}


@pytest.mark.db
def test_locked_rows_do_not_make_it_spin(
    pg: Database, start_oban: Starter, events: Recorder
) -> None:
    """Rows due but locked are looked at again with growing delays, and staged once free."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite locks no rows")
    oban = start_oban.leading(stager={"interval": 30.0}, insert_notify=False)
    job = oban.insert(scheduled(-5))
    tables = start_oban.tables
    with tables.engine.begin() as connection:
        tables.on(connection, "SELECT id FROM {jobs} WHERE id = :id FOR UPDATE", id=job.id)
        events.clear()
        oban.tell("stager", Stage())
        events.wait_for_count(4, "oban.plugin.stop", of_stager)
        starts = events.all("oban.plugin.start", of_stager)
        times = [each.measurements["system_time"] for each in starts]
        # One look at once, then 50 ms and 100 ms later.
        assert times[3] - times[1] >= 140_000_000
    wait_until(lambda: tables.states()[job.id or 0] == "available")


def refuse_staging_of(starter: Starter, job_id: int | None) -> None:
    """Let the database refuse to stage one row."""
    if starter.database.kind == "postgresql":
        schema = starter.database.prefix
        starter.tables.execute(
            f'CREATE FUNCTION "{schema}".refuse() RETURNS trigger LANGUAGE plpgsql AS '
            "$$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
        )
        starter.tables.execute(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {{jobs}} FOR EACH ROW WHEN (NEW.id = {job_id} "
            f"AND NEW.state = 'available') EXECUTE FUNCTION \"{schema}\".refuse()"
        )
    else:
        starter.tables.execute(
            f"CREATE TRIGGER refuse BEFORE UPDATE ON {{jobs}} WHEN NEW.id = {job_id} "
            "AND NEW.state = 'available' BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )


def test_a_row_that_cannot_be_staged_stops_no_other(
    start_oban: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside and named; the rest of the batch is staged, and nothing spins."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    jobs = oban.insert_all([scheduled(-20 + n) for n in range(9)])
    refuse_staging_of(start_oban, jobs[3].id)

    result = stage(oban)

    assert result.error is None
    assert result.set_aside == (jobs[3].id,)
    assert [job.id for job in result.staged] == [j.id for j in jobs if j is not jobs[3]]
    assert f"job {jobs[3].id} can't be staged" in caplog.text
    again = stage(oban)
    assert again.staged_count == 0
    assert again.next_due_in is None


def test_a_failing_database_is_told_and_retried(
    start_oban: Starter, events: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A pass that fails crashes nobody; staging goes on when the database works again."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    before = oban.whereis("stager")
    job = oban.insert(scheduled(-5))
    rename = "ALTER TABLE {jobs} RENAME TO elsewhere"
    back = start_oban.tables.jobs.replace("oban_jobs", "elsewhere")
    start_oban.tables.execute(rename)

    result = stage(oban)
    oban.tell("stager", Stage())

    assert result.error is not None
    failed = events.wait_for("oban.plugin.stop", lambda e: "error" in e.metadata)
    assert failed.metadata["staged_count"] == 0
    assert "staging failed" in caplog.text
    start_oban.tables.execute(f"ALTER TABLE {back} RENAME TO oban_jobs")
    wait_until(lambda: start_oban.tables.states()[job.id or 0] == "available")
    assert oban.whereis("stager") is before


def test_many_due_times_cost_few_passes(start_oban: Starter, events: Recorder) -> None:
    """Hundreds of jobs due within a second are staged by tens of passes."""
    oban = start_oban.leading()
    events.clear()
    oban.insert_all([scheduled(0.5 + n / 500) for n in range(500)])

    wait_until(lambda: start_oban.tables.count("available") == 500)
    assert len(events.all("oban.plugin.stop", of_stager)) < 150


def test_two_instances_never_stage_twice(start_oban: Starter) -> None:
    """Whoever is asked, however often, each job is staged once."""
    first = start_oban.leading(stager=SLOW, insert_notify=False)
    second = start_oban(stager=SLOW)
    first.insert_all([scheduled(-5) for _ in range(200)])
    staged: list[int] = []
    lock = threading.Lock()

    def run(oban: Oban) -> None:
        for _ in range(5):
            result = stage(oban)
            with lock:
                staged.extend(job.id for job in result.staged)

    threads = [threading.Thread(target=run, args=(oban,)) for oban in (first, second) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(staged) == 200
    assert len(set(staged)) == 200


@pytest.mark.db
def test_a_pass_does_not_wait_for_the_disk(pg: Database) -> None:
    """What it would lose in a crash of the server is due all the same."""
    with starter(pg) as start:
        oban = start.leading(stager=SLOW, insert_notify=False)
        schema = pg.prefix
        start.tables.execute(
            f'CREATE FUNCTION "{schema}".note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN '
            "NEW.tags = ARRAY[current_setting('synchronous_commit')]; RETURN NEW; END $$"
        )
        start.tables.execute(
            "CREATE TRIGGER note BEFORE UPDATE ON {jobs} FOR EACH ROW "
            f'EXECUTE FUNCTION "{schema}".note()'
        )
        job = oban.insert(scheduled(-5))

        assert stage(oban).staged_count == 1
        found = oban.get_job(job.id or 0)
        assert found is not None
        assert found.tags == ["off"]
