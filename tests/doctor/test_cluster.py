"""Leaders, producers and jobs in every state of disorder, on both databases."""

from typing import Any
from uuid import uuid4

import pytest

from oban_actors import Job, Oban, worker
from oban_actors.doctor import Limits, examine
from oban_actors.doctor.jobs import speaks_elixir, speaks_python
from oban_actors.queues.roster import producer_uuid
from oban_actors.worker_registry import forget
from tests.doctor.mending import codes, mend, only
from tests.support.instances import Starter
from tests.support.waiting import wait_until

PAST = {
    "postgresql": "timezone('UTC', now()) - interval '1 hour'",
    "sqlite": "'2026-01-01T00:00:00.000000Z'",
}
AHEAD = {
    "postgresql": "timezone('UTC', now()) + interval '1 hour'",
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 hour')",
}
NOW = {"postgresql": "timezone('UTC', now())", "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')"}


def producer(start: Starter, *, beat: str = "", started: str = "", queue: str = "alpha") -> str:
    """Write the row of a producer, which beats no more, and give its uuid."""
    uuid = producer_uuid()
    kind = start.database.kind
    table = start.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    start.tables.execute(
        f"INSERT INTO {table} "
        "(uuid, identity, name, node, queue, queue_limit, started_at, beat_at) "
        f"VALUES (:uuid, 'i', 'Oban', 'web.1', :queue, 5, {started or PAST[kind]}, "
        f"{beat or PAST[kind]})",
        uuid=uuid,
        queue=queue,
    )
    return uuid


def claim(start: Starter, job_id: int, uuid: str, at: str = "", **values: Any) -> None:
    """Let a row be executing for a producer."""
    postgres = start.database.kind == "postgresql"
    by = "ARRAY['web.1', :uuid]" if postgres else "json_array('web.1', :uuid)"
    more = "".join(f", {name} = {value}" for name, value in values.items())
    start.tables.execute(
        f"UPDATE {{jobs}} SET state = 'executing', attempted_by = {by}, "
        f"attempted_at = {at or PAST[start.database.kind]}{more} WHERE id = :id",
        uuid=uuid,
        id=job_id,
    )


def insert(oban: Oban, worker_name: str = "tests.Worker", queue: str = "alpha") -> int:
    """Insert a job."""
    job = oban.insert(Job.new(worker=worker_name, queue=queue))
    assert job.id is not None
    return job.id


def state(start: Starter, job_id: int) -> str:
    """A job's state."""
    return start.tables.states()[job_id]


@pytest.mark.parametrize(
    ("started", "expires", "code"),
    [(PAST, PAST, "lease_expired"), (NOW, AHEAD, "lease_ahead")],
    ids=["ended", "ends too far ahead"],
)
def test_a_lease_that_nobody_renews(
    start_oban: Starter, started: dict[str, str], expires: dict[str, str], code: str
) -> None:
    """It says who held it, also where a clock was set back since; the fix frees it."""
    oban = start_oban.make()
    kind = start_oban.database.kind
    start_oban.tables.execute(
        f"INSERT INTO {{peers}} VALUES ('Oban', 'web.1', {started[kind]}, {expires[kind]})"
    )

    finding = only(oban)
    assert finding.code == code
    assert "held by web.1" in finding.what
    mend(oban, start_oban.database, finding)
    assert examine(oban) == []


def test_a_lease_that_holds_is_no_fault(start_oban: Starter) -> None:
    """Nor is that of another instance's, or none where this one never leads."""
    oban = start_oban.leading()
    assert examine(oban) == []
    start_oban.tables.execute("DELETE FROM {peers}")


def test_nobody_leads_though_nodes_run(start_oban: Starter) -> None:
    """The fix is a node that may; a tree that starts has its time for an election."""
    oban = start_oban.make()
    now = NOW[start_oban.database.kind]
    uuid = producer(start_oban, beat=now, started=now)
    assert examine(oban) == []
    table = start_oban.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    past = PAST[start_oban.database.kind]
    start_oban.tables.execute(f"UPDATE {table} SET started_at = {past} WHERE uuid = :u", u=uuid)

    finding = only(oban)
    assert finding.code == "no_leader"
    assert "web.1" in finding.what
    assert "peer=False" in finding.fix
    start_oban.leading()
    assert examine(oban) == []


def test_a_producer_that_is_gone(start_oban: Starter) -> None:
    """Its row is all that it left."""
    oban = start_oban.make()
    producer(start_oban)

    finding = only(oban)
    assert (finding.severity, finding.code) == ("notice", "dead_producer")
    mend(oban, start_oban.database, finding)
    assert examine(oban) == []


@pytest.mark.parametrize("row", [True, False])
def test_jobs_of_a_producer_that_is_gone(start_oban: Starter, *, row: bool) -> None:
    """With its row or without; they are given back by the fix, or discarded where used up."""
    oban = start_oban.make()
    uuid = producer(start_oban) if row else producer_uuid()
    left, used_up = insert(oban), insert(oban)
    claim(start_oban, left, uuid, attempt=1)
    claim(start_oban, used_up, uuid, attempt=20)

    finding = only(oban)
    assert (finding.severity, finding.code) == ("error", "orphans")
    assert finding.what.startswith("2 jobs are executing for a producer of node web.1")
    mend(oban, start_oban.database, finding)
    assert (state(start_oban, left), state(start_oban, used_up)) == ("available", "discarded")
    assert examine(oban) == []


def test_names_do_not_end_a_comment(start_oban: Starter) -> None:
    """Whoever may write a row may not put statements into what an administrator runs."""
    oban = start_oban.make()
    job = insert(oban)
    claim(start_oban, job, producer_uuid())
    by = "attempted_by[1]" if start_oban.database.kind == "postgresql" else "attempted_by"
    value = "'x\nDELETE'" if by.endswith("]") else "replace(attempted_by, 'web.1', 'x\\nDELETE')"
    start_oban.tables.execute(f"UPDATE {{jobs}} SET {by} = {value}")

    finding = only(oban)
    assert finding.code == "orphans"
    assert [line.split()[0] for line in finding.fix.splitlines()] == ["--", "UPDATE", "DELETE"]
    assert "'x\\nDELETE'" in finding.fix.splitlines()[0]


def test_claims_that_are_no_orphans(start_oban: Starter) -> None:
    """Those of Elixir's producers, of one that beats, of one that has yet to."""
    oban = start_oban.make(peer=False)
    now = NOW[start_oban.database.kind]
    claim(start_oban, insert(oban), str(uuid4()))
    claim(start_oban, insert(oban), producer(start_oban, beat=now))
    claim(start_oban, insert(oban), producer_uuid(), at=now)

    assert examine(oban) == []


def test_jobs_without_an_attempt_left(start_oban: Starter) -> None:
    """No fetch ever takes them."""
    oban = start_oban.make()
    job, other = insert(oban), insert(oban)
    start_oban.tables.execute("UPDATE {jobs} SET attempt = max_attempts WHERE id = :id", id=job)

    finding = only(oban)
    assert finding.code == "used_up"
    assert f"for ever: {job}" in finding.what
    mend(oban, start_oban.database, finding)
    assert (state(start_oban, job), state(start_oban, other)) == ("discarded", "available")
    assert examine(oban) == []


def test_odd_rows_of_a_file(start_sqlite: Starter) -> None:
    """Columns hold anything there; the faults of others are found beside them."""
    oban = start_sqlite.make()
    for column in ("queue", "worker", "scheduled_at", "attempt"):
        for value in ("x'4100'", "x'ff41'", "cast(x'ff41' AS TEXT)"):
            start_sqlite.tables.execute(
                f"UPDATE {{jobs}} SET {column} = {value}, queue = :queue WHERE id = :id",
                id=insert(oban),
                queue=f"odd_{column}",
            )
    for value in ("x'ff41'", "cast(x'ff41' AS TEXT)"):
        job = insert(oban)
        start_sqlite.tables.execute(f"UPDATE {{jobs}} SET queue = {value} WHERE id = :id", id=job)
    start_sqlite.tables.execute(
        "UPDATE {jobs} SET queue = x'4100', attempted_by = '[1, 2]' WHERE id = :id", id=insert(oban)
    )
    claim(start_sqlite, insert(oban), "x", attempted_by="'[1, 2]'")
    job = insert(oban)
    start_sqlite.tables.execute("UPDATE {jobs} SET attempt = max_attempts WHERE id = :id", id=job)

    found = [finding.what for finding in examine(oban)]
    assert [what for what in found if "could not be looked at" in what] == []
    assert f"1 jobs of queue 'alpha' wait with no attempt left, for ever: {job}" in found


def test_elixirs_jobs_where_only_python_works(start_oban: Starter) -> None:
    """They would fail as unknown; the fix moves them, and them alone."""
    oban = start_oban.make(peer=False)
    producer(start_oban, beat=NOW[start_oban.database.kind])
    foreign, ours = insert(oban, "MyApp.Mailer"), insert(oban)

    finding = only(oban)
    assert finding.code == "elixir_jobs"
    assert "1 jobs of Elixir workers (MyApp.Mailer) wait in queue 'alpha'" in finding.what
    mend(oban, start_oban.database, finding)
    queues = dict(start_oban.tables.execute("SELECT id, queue FROM {jobs}"))
    assert (queues[foreign], queues[ours]) == ("alpha_elixir", "alpha")
    assert examine(oban) == []


def test_a_queue_that_both_languages_run(start_oban: Starter) -> None:
    """A run of Elixir's there shows that Elixir takes its own."""
    oban = start_oban.make(peer=False)
    producer(start_oban, beat=NOW[start_oban.database.kind])
    insert(oban, "MyApp.Mailer")
    done = insert(oban, "MyApp.Mailer")
    claim(start_oban, done, str(uuid4()))
    assert examine(oban) == []
    start_oban.tables.execute("UPDATE {jobs} SET state = 'completed' WHERE id = :id", id=done)
    assert examine(oban) == []


def test_a_worker_of_that_name_here_is_no_elixirs(start_oban: Starter) -> None:
    """What is registered can run."""
    oban = start_oban.make(peer=False)
    producer(start_oban, beat=NOW[start_oban.database.kind])
    insert(oban, "MyApp.Local")
    try:

        @worker(name="MyApp.Local")
        def local(job: Job) -> None:
            pass

        assert examine(oban) == []
    finally:
        forget("MyApp.Local")


def test_python_jobs_in_a_queue_that_nobody_runs(start_oban: Starter) -> None:
    """Once they have waited; the fix is a node that runs the queue."""
    oban = start_oban.make()
    insert(oban, "shop.jobs.mail", "mail")
    assert examine(oban) == []

    limits = Limits(waiting=0.0)
    wait_until(lambda: codes(oban, limits) == ["unserved_queue"])
    finding = only(oban, limits)
    assert "in queue 'mail', which no Python node runs" in finding.what
    assert "queues={'mail': 10}" in finding.fix
    start_oban(queues={"mail": {"limit": 1, "paused": True}})
    wait_until(lambda: examine(oban, limits) == [])


@pytest.mark.parametrize(
    ("name", "elixir", "python"),
    [
        ("MyApp.Mailer", True, False),
        ("Elixir.MyApp.Mailer", True, False),
        ("MyApp.Workers.Daily_2", True, False),
        ("Mailer", False, False),
        ("shop.jobs.mail", False, True),
        ("shop.jobs.Mailer", False, True),
        ("mail", False, False),
        ("My App.Mailer", False, False),
    ],
)
def test_names_of_workers(name: str, *, elixir: bool, python: bool) -> None:
    """A name of one word may be anybody's, and is nobody's fault."""
    assert (speaks_elixir(name), speaks_python(name)) == (elixir, python)
