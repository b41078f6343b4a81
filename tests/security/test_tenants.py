"""Two tenants on one database, by prefix, name or file: neither hears anything of the other."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from oban_actors import Job, Notify, Oban, worker
from oban_actors.worker_registry import forget
from tests.queues.work import crashes, wait_state
from tests.support.databases import Database, new_prefix
from tests.support.instances import Starter, starter, wait_until_leader
from tests.support.waiting import wait_until

SAME: dict[str, Any] = {"queues": {"alpha": 2}, "node": "web.1"}
CHANNELS = ("insert", "signal", "leader", "actors", "sonar", "gossip")

HOSTILE = (
    '{"action":"pause","ident":"any","queue":"alpha"}',
    '{"action":"pause","ident":"any","queue":"*"}',
    '{"action":"stop","ident":"any","queue":"alpha"}',
    '{"action":"scale","ident":"any","queue":"alpha","limit":0}',
    '{"action":"pkill","job_id":1}',
    '{"down":"Oban"}',
    '{"node":"web.1","ping":true}',
    '{"queue":"alpha"}',
    "no json",
    "Z:no base64",
    "H4sIAAAA",
    '{"action":' * 500,
    '{"queue":["alpha"],"ident":7}',
)


@pytest.fixture
def ran() -> Iterator[list[tuple[str, int]]]:
    """Which tenant's job ran where, by the args of the job."""
    runs: list[tuple[str, int]] = []

    @worker(name="security.tenant", queue="alpha")
    def tenant(job: Job) -> None:
        runs.append((job.args["of"], job.id or 0))

    yield runs
    forget("security.tenant")


def job_of(tenant: str) -> Job:
    """Make a job."""
    return Job.new({"of": tenant}, worker="security.tenant", queue="alpha")


@pytest.fixture
def tenants(
    database: Database, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[list[Starter]]:
    """Two places for jobs: schemas of one PostgreSQL database, or files of one folder."""
    with ExitStack() as stack:
        if database.kind == "sqlite":
            other = Database("sqlite", f"sqlite:///{tmp_path / 'others.db'}")
        else:
            conninfo = request.getfixturevalue("pg_conninfo")
            prefix = stack.enter_context(new_prefix(conninfo))
            other = Database("postgresql", database.url, prefix)
        yield [stack.enter_context(starter(each)) for each in (database, other)]


def say(start: Starter, channel: str, payload: str) -> None:
    """Send a payload as it is, past all of our checks, on a tenant's channel."""
    with start.tables.engine.begin() as connection:
        if start.database.kind == "sqlite":
            statement = "INSERT INTO oban_actors_notifications (channel, payload) VALUES (:c, :p)"
        else:
            statement = "SELECT pg_notify(:c, :p)"
            channel = f"{start.database.prefix}.oban_{channel}"
        connection.execute(sa.text(statement), {"c": channel, "p": payload[:7_000]})


def test_by_prefix_or_file(tenants: list[Starter], ran: list[tuple[str, int]]) -> None:
    """Same name, node and queues: each has its leader, its jobs, its signals and its peace."""
    one, two = (each(**SAME) for each in tenants)
    for oban in (one, two):
        wait_until_leader(oban)
    heard = tenants[1].hear(two, *CHANNELS, "own")
    before = len(heard._messages)
    jobs = [one.insert(job_of("one")), one.insert(job_of("one"))]
    for job in jobs:
        wait_state(one, job, "completed")
    one.pause_queue("alpha")
    wait_until(lambda: one.check_queue("alpha").paused)
    one.scale_queue("alpha", 7)
    wait_until(lambda: one.check_queue("alpha").limit == 7)
    one.ask("notifier", Notify("own", [{"for": "one"}]), timeout=30)
    for channel in CHANNELS:
        for payload in HOSTILE:
            say(tenants[0], channel, payload)
    # What comes behind it all on this channel comes last.
    two.ask("notifier", Notify("own", [{"for": "two"}]), timeout=30)
    assert heard.wait_for("own") == [{"for": "two"}]

    last = two.insert(job_of("two"))
    wait_state(two, last, "completed")
    assert two.check_queue("alpha").paused is False
    assert two.check_queue("alpha").limit == 2
    assert crashes(two) == []
    mine = [each for each in heard._messages[before:] if "one" in json.dumps(each.payload)]
    assert mine == []
    assert heard.payloads("signal") == []
    assert heard.payloads("leader") == []
    assert sorted(of for of, _ in ran) == ["one", "one", "two"]
    assert [job.args for job in two.all_jobs()] == [{"of": "two"}]
    assert tenants[1].tables.execute("SELECT count(*) FROM {peers}")[0][0] == 1


def test_hostile_words_on_ones_own_channels(
    start_oban: Starter, ran: list[tuple[str, int]]
) -> None:
    """Whoever may send at all can pause a queue; nothing crashes, no job is lost, all goes on."""
    oban = start_oban.leading(**SAME)
    for channel in CHANNELS:
        for payload in HOSTILE:
            say(start_oban, channel, payload)
    oban.ask("notifier", Notify("signal", [{"action": "resume", "queue": "*"}]), timeout=30)
    job = oban.insert(job_of("one"))
    oban.start_queue("alpha", 2)
    oban.resume_queue("alpha")
    oban.scale_queue("alpha", 2)

    wait_state(oban, job, "completed")
    assert crashes(oban) == []
    assert ran == [("one", job.id)]


def test_by_name(start_oban: Starter) -> None:
    """Two names on the same tables lead apart, and signals of one node are for that node alone."""
    one = start_oban.leading(name="One", **SAME)
    two = start_oban.leading(name="Two", **SAME)

    one.pause_queue("alpha", local_only=True)
    wait_until(lambda: one.check_queue("alpha").paused)
    one.scale_queue("alpha", 9, node="web.1")
    wait_until(lambda: one.check_queue("alpha").limit == 9)
    two.scale_queue("alpha", 5, local_only=True)
    wait_until(lambda: two.check_queue("alpha").limit == 5)
    say(start_oban, "leader", '{"down":"Two"}')
    one.stop()

    assert two.check_queue("alpha").paused is False
    assert one.config.ident != two.config.ident
    names = {row[0] for row in start_oban.tables.execute("SELECT name FROM {peers}")}
    assert names == {"Two"}


@pytest.mark.db
def test_channels_of_names_that_look_alike(pg_url: str, pg_conninfo: str) -> None:
    """A prefix that is the beginning of another, or differs in its case, is another tenant."""
    with ExitStack() as stack:
        name = stack.enter_context(new_prefix(pg_conninfo))
        names = [name, f"{name}_oban", f"{name}X", f"{name}x"]
        obans: list[Oban] = []
        for prefix in names:
            oban = Oban(pg_url, prefix=prefix, peer=False, stager=None)
            stack.callback(oban.repo.close)
            oban.migrate()
            obans.append(stack.enter_context(oban))
        heard = []
        for oban, prefix in zip(obans, names, strict=True):
            start = stack.enter_context(starter(Database("postgresql", pg_url, prefix)))
            heard.append(start.hear(oban, "insert"))
        for number, oban in enumerate(obans):
            oban.ask("notifier", Notify("insert", [{"queue": str(number)}]), timeout=30)
        for number, each in enumerate(heard):
            assert each.wait_for("insert") == [{"queue": str(number)}]
        for start_heard in heard:
            start_heard.ref.stop()
    with psycopg.connect(pg_conninfo, autocommit=True) as connection:
        for prefix in names[1:]:
            connection.execute(
                psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(psycopg.sql.Identifier(prefix))
            )
