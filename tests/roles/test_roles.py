"""Each role of docs/roles.md can do its part, by the statements that stand there, and no more."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors
from psycopg.sql import SQL, Identifier

from oban_actors import (
    Evaluate,
    Job,
    Oban,
    Prune,
    Reindex,
    Rescue,
    Stage,
    worker,
)
from oban_actors.plugins import Cron, Lifeline, PluginResult, Pruner, Reindexer
from tests.support.databases import new_database
from tests.support.instances import wait_until_leader
from tests.support.postgres import Server
from tests.support.waiting import wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "roles.md"
BLOCK = re.compile(r"^```sql\n(.*?)^```", re.DOTALL | re.MULTILINE)
ROLE = re.compile(r"\bjobs_(owner|worker|web|reader)\b")
SCHEMA = "background"
ROLES = ("owner", "worker", "web", "reader")


@worker(name="roles.Done")
def done(job: Job) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Granted:
    """A database whose roles were made as the page says."""

    server: Server
    database: str
    suffix: str

    def name(self, role: str) -> str:
        """Give a role's name on the server, where others may run the same test."""
        return f"jobs_{role}_{self.suffix}"

    def url(self, role: str) -> str:
        """Give the address for whoever acts as a role."""
        url = sa.make_url(self.server.url(self.database))
        acting = url.update_query_dict({"options": f"-c role={self.name(role)}"})
        return acting.render_as_string(hide_password=False)

    def oban(self, role: str, **options: Any) -> Oban:
        """Make an instance that acts as a role."""
        return Oban(self.url(role), prefix=SCHEMA, **options)

    def execute(self, statement: str, role: str | None = None) -> list[Any]:
        """Execute statements, as a role or as the superuser."""
        with psycopg.connect(self.server.conninfo(self.database), autocommit=True) as connection:
            if role is not None:
                connection.execute(SQL("SET ROLE {}").format(Identifier(self.name(role))))
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def granted(postgres_server: Server) -> Iterator[Granted]:
    """Do as the page says: make the owner, migrate as it, then make the others."""
    suffix = uuid4().hex[:12]
    owner, *others = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(others) == len(ROLES) - 1
    with new_database(postgres_server) as database:
        found = Granted(postgres_server, database, suffix)
        found.execute(ROLE.sub(lambda match: found.name(match[1]), owner))
        made = found.oban("owner")
        made.migrate()
        made.repo.close()
        for block in others:
            found.execute(ROLE.sub(lambda match: found.name(match[1]), block))
        yield found
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        for role in ROLES:
            connection.execute(SQL("DROP ROLE {}").format(Identifier(found.name(role))))


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    complaints = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert complaints == []


def ask(oban: Oban, plugin: str, message: Any) -> PluginResult:
    """Have a plugin run, and expect it to work."""
    result = oban.ask(("plugin", plugin), message, timeout=60)
    assert isinstance(result, PluginResult)
    assert result.error is None
    return result


def test_the_owner_migrates_and_rebuilds_indexes(granted: Granted) -> None:
    """The one duty that needs it works; and the tables are its own."""
    with granted.oban("owner", plugins=[Reindexer()]) as oban:
        wait_until_leader(oban)
        oban.migrate()
        assert ask(oban, "reindexer", Reindex()).extra["failed"] == ()
    owners = granted.execute(
        f"SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = '{SCHEMA}'"
    )
    assert owners == [(granted.name("owner"),)]


def test_a_node_does_all_that_nodes_do(granted: Granted) -> None:
    """It leads, stages, runs jobs, inserts by cron, rescues, prunes and changes jobs."""
    plugins = [Pruner(max_age=0), Lifeline(), Cron([("@hourly", done)])]
    with granted.oban("worker", plugins=plugins, queues={"default": 2}) as oban:
        wait_until_leader(oban)
        job = oban.insert(Job.new(worker="roles.Done", schedule_in=-1))
        assert oban.ask("stager", Stage(), timeout=60).error is None
        assert job.id is not None
        wait_until(lambda: _state(granted, job.id) == "completed", message="it ran")
        ask(oban, "cron", Evaluate())
        ask(oban, "lifeline", Rescue())
        later = oban.insert(Job.new(worker="roles.Done", queue="elsewhere", schedule_in=3600))
        assert oban.cancel_job(later) is True
        assert oban.retry_job(later) is True
        assert oban.update_job(later, {"priority": 3}).priority == 3
        assert ask(oban, "pruner", Prune()).extra["pruned_count"] >= 1
        assert oban.delete_all_jobs(state="scheduled") >= 0
    assert granted.execute(f"SELECT count(*) FROM {SCHEMA}.oban_actors_producers") == [(0,)]


def _state(granted: Granted, job_id: int | None) -> str | None:
    rows = granted.execute(f"SELECT state FROM {SCHEMA}.oban_jobs WHERE id = {job_id}")
    return rows[0][0] if rows else None


@pytest.mark.parametrize("started", [False, True])
def test_a_web_process_inserts(granted: Granted, *, started: bool) -> None:
    """One job or many, unique or not, in its own transaction or the host's."""
    oban = granted.oban("web", peer=False, stager=None)
    if started:
        oban.start()
    try:
        inserted = [
            oban.insert(Job.new(worker="roles.Done", queue="web", unique=True, args={"n": 1})),
            oban.insert(Job.new(worker="roles.Done", queue="web", unique=True, args={"n": 1})),
            *oban.insert_all(Job.new(worker="roles.Done", queue="web") for _ in range(3)),
        ]
        engine = sa.create_engine(granted.url("web"), poolclass=sa.NullPool)
        with engine.begin() as connection:
            job = Job.new(worker="roles.Done", queue="web")
            inserted.append(oban.insert(job, connection=connection))
        assert inserted[0].id == inserted[1].id
        assert all(job.id for job in inserted)
    finally:
        oban.stop()
        oban.repo.close()


def test_without_unique_jobs_three_columns_are_enough(granted: Granted) -> None:
    """As the page says: what jobs are given can't be read by those who insert them."""
    web = granted.name("web")
    granted.execute(f"REVOKE SELECT ON {SCHEMA}.oban_jobs FROM {web}")
    granted.execute(f"GRANT SELECT (id, inserted_at, scheduled_at) ON {SCHEMA}.oban_jobs TO {web}")
    try:
        oban = granted.oban("web", peer=False, stager=None)
        assert oban.insert(Job.new(worker="roles.Done", queue="web", args={"secret": 1})).id
        oban.repo.close()
        with pytest.raises(errors.InsufficientPrivilege):
            granted.execute(f"SELECT args FROM {SCHEMA}.oban_jobs", "web")
    finally:
        granted.execute(f"REVOKE ALL ON {SCHEMA}.oban_jobs FROM {web}")
        granted.execute(f"GRANT INSERT, SELECT ON {SCHEMA}.oban_jobs TO {web}")


@pytest.mark.parametrize("started", [False, True])
def test_who_looks_reads(granted: Granted, *, started: bool) -> None:
    """Jobs, one or all, and the other tables."""
    oban = granted.oban("reader", peer=False, stager=None)
    made = granted.oban("web", peer=False, stager=None)
    job = made.insert(Job.new(worker="roles.Done", queue="read"))
    made.repo.close()
    if started:
        oban.start()
    try:
        assert job.id is not None
        assert oban.get_job(job.id) is not None
        assert [each.id for each in oban.all_jobs(queue="read")][-1] == job.id
    finally:
        oban.stop()
        oban.repo.close()
    for table in ("oban_peers", "oban_actors_producers", "oban_actors_crons"):
        granted.execute(f"SELECT * FROM {SCHEMA}.{table}", "reader")


def test_tables_to_come_can_be_granted_before(granted: Granted) -> None:
    """With the statement of the page, an upgrade's new table is a node's too."""
    [statement] = re.findall(r"`(ALTER DEFAULT PRIVILEGES [^`]+)`", PAGE.read_text("utf-8"))
    named = ROLE.sub(lambda match: granted.name(match[1]), statement)
    granted.execute(named)
    try:
        granted.execute(f"CREATE TABLE {SCHEMA}.newer (a integer)", "owner")
        granted.execute(f"INSERT INTO {SCHEMA}.newer VALUES (1)", "worker")
        granted.execute(f"DROP TABLE {SCHEMA}.newer", "owner")
    finally:
        undone = named.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")
        granted.execute(undone)


OF_OWNER = (
    "CREATE TABLE {s}.more (a integer)",
    "ALTER TABLE {s}.oban_jobs ADD COLUMN more integer",
    "TRUNCATE {s}.oban_jobs",
    "DROP TABLE {s}.oban_peers",
    "DROP INDEX {s}.oban_actors_staging_index",
    "REINDEX INDEX {s}.oban_actors_staging_index",
    "CREATE INDEX more ON {s}.oban_jobs (queue)",
    "COMMENT ON TABLE {s}.oban_jobs IS '1'",
    "ALTER TYPE {s}.oban_job_state ADD VALUE 'more'",
    # No rollback undoes it, so that it must not go back.
    "SELECT setval('{s}.oban_jobs_id_seq', nextval('{s}.oban_jobs_id_seq'))",
)
OF_NODES = (
    "UPDATE {s}.oban_jobs SET state = 'cancelled'",
    "DELETE FROM {s}.oban_jobs",
    "SELECT id FROM {s}.oban_jobs FOR UPDATE",
    "INSERT INTO {s}.oban_peers VALUES ('Oban', 'me', now(), now())",
    "UPDATE {s}.oban_peers SET node = 'me'",
    "DELETE FROM {s}.oban_peers",
    "DELETE FROM {s}.oban_actors_producers",
    "UPDATE {s}.oban_actors_crons SET evaluated_at = now()",
)
OF_LOOKING = (
    "SELECT * FROM {s}.oban_peers",
    "SELECT * FROM {s}.oban_actors_producers",
    "SELECT * FROM {s}.oban_actors_crons",
)
OF_INSERTING = (
    "INSERT INTO {s}.oban_jobs (worker) VALUES ('w')",
    "SELECT nextval('{s}.oban_jobs_id_seq')",
)
REFUSED = [
    *((role, "CREATE SCHEMA more") for role in ROLES),
    *(("worker", each) for each in OF_OWNER),
    *(("web", each) for each in (*OF_OWNER, *OF_NODES, *OF_LOOKING)),
    *(("reader", each) for each in (*OF_OWNER, *OF_NODES, *OF_INSERTING)),
]


@pytest.mark.parametrize(("role", "statement"), REFUSED)
def test_it_can_do_no_more(granted: Granted, role: str, statement: str) -> None:
    """What is another role's is refused."""
    with pytest.raises(errors.InsufficientPrivilege):
        granted.execute(statement.format(s=SCHEMA), role)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        *(("owner", each) for each in OF_OWNER),
        *(("worker", each) for each in (*OF_NODES, *OF_LOOKING, *OF_INSERTING)),
    ],
)
def test_what_is_refused_others_may(granted: Granted, role: str, statement: str) -> None:
    """So it is the right that is lacking, and not the statement that is wrong."""
    granted.execute(f"BEGIN; {statement.format(s=SCHEMA)}; ROLLBACK", role)
