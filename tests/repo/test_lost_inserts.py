"""Jobs whose COMMIT got no answer: they are there once, whichever way they went."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import make_url

from oban_actors import CommitUnknown, Job, Oban
from tests.repo.gate import Gate
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

Admin = psycopg.Connection[Any]
WAYS = pytest.mark.parametrize(
    "how",
    [{}, {"schedule_in": 60}, {"unique": True}, {"unique": True, "schedule_in": 60}],
    ids=["message", "steps", "unique", "unique steps"],
)


@pytest.fixture
def oban(pg: Database, proxy: TcpProxy) -> Iterator[Oban]:
    """An instance behind a network that can go silent; not started."""
    url = make_url(pg.url).set(host=proxy.host, port=proxy.port)
    made = Oban(url, prefix=pg.prefix, statement_timeout=20.0, connect_timeout=2.0)
    made.migrate()
    yield made
    made.repo.close()


@WAYS
def test_lost_answer(oban: Oban, proxy: TcpProxy, admin: Admin, how: dict[str, Any]) -> None:
    """What was committed is found out, and not inserted again."""
    prefix = oban.config.prefix
    gate = Gate(prefix, f"{prefix}.oban_jobs", admin)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(oban.insert, Job.new(worker="w", **how))
        wait_until(gate.waiting)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM oban_jobs").fetchone())
        proxy.drop()
        proxy.thaw()
        job = running.result(60)

    assert not job.conflict
    assert admin.execute("SELECT id FROM oban_jobs").fetchall() == [(job.id,)]


@WAYS
def test_commit_that_never_was(oban: Oban, admin: Admin, how: dict[str, Any]) -> None:
    """What was not committed is inserted again."""
    prefix = oban.config.prefix
    gate = Gate(prefix, f"{prefix}.oban_jobs", admin)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(oban.insert, Job.new(worker="w", **how))
        first = wait_until(gate.waiting)
        admin.execute("SELECT pg_terminate_backend(%s)", [first])
        wait_until(lambda: gate.waiting() not in (None, first))
        gate.open()
        job = running.result(60)

    assert not job.conflict
    assert admin.execute("SELECT id FROM oban_jobs").fetchall() == [(job.id,)]


@pytest.mark.parametrize(
    "how", [{}, {"priority": 3, "replace": ["priority"]}], ids=["as is", "replaced"]
)
def test_commit_of_a_job_that_was_there(oban: Oban, proxy: TcpProxy, how: dict[str, Any]) -> None:
    """Where nothing was inserted nothing is unknown: it is as after any other insert."""
    there = oban.insert(Job.new(worker="w", unique=True))
    lost: list[object] = []

    def lose(_connection: object) -> None:
        if not lost:
            lost.append(proxy.drop())

    sa.event.listen(oban.repo.engine, "commit", lose)
    job = oban.insert(Job.new(worker="w", unique=True, **how))

    assert lost
    assert (job.id, job.conflict, job.priority) == (there.id, True, how.get("priority", 0))
    assert [each.priority for each in oban.all_jobs()] == [job.priority]


def test_lost_answer_to_a_replacement(oban: Oban, proxy: TcpProxy, admin: Admin) -> None:
    """What was replaced in a job that was there is found out as well."""
    there = oban.insert(Job.new(worker="w", unique=True))
    prefix = oban.config.prefix
    gate = Gate(prefix, f"{prefix}.oban_jobs", admin, "UPDATE")
    again = Job.new(worker="w", unique=True, priority=3, replace=["priority"])
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(oban.insert, again)
        wait_until(gate.waiting)
        proxy.freeze()
        gate.open()
        wait_until(lambda: admin.execute("SELECT 1 FROM oban_jobs WHERE priority = 3").fetchone())
        # It would be replaced once more, if that were not found out.
        written = one(admin.execute("SELECT cast(xmin AS text) FROM oban_jobs"))
        proxy.drop()
        proxy.thaw()
        job = running.result(60)

    assert (job.id, job.conflict, job.priority) == (there.id, True, 3)
    assert one(admin.execute("SELECT cast(xmin AS text) FROM oban_jobs")) == written


def test_commit_of_a_call_that_changed_nothing(oban: Oban, proxy: TcpProxy) -> None:
    """A job that had ended before has ended, whatever became of the COMMIT."""
    job = oban.insert(Job.new(worker="w", state="completed"))
    sa.event.listen(oban.repo.engine, "commit", lambda _: proxy.drop(), once=True)
    assert oban.cancel_job(job) is False
    sa.event.listen(oban.repo.engine, "commit", lambda _: proxy.drop(), once=True)
    assert oban.update_job(job, lambda _: {}) == oban.get_job(job.id or 0)


@pytest.fixture
def forgetful() -> Iterator[PostgresServer]:
    """A server that writes nothing down before it has to."""
    settings = {"wal_writer_delay": "10s", "bgwriter_lru_maxpages": "0", "autovacuum": "off"}
    with PostgresServer(settings=settings) as server:
        yield server


@WAYS
def test_id_that_was_given_again(forgetful: PostgresServer, how: dict[str, Any]) -> None:
    """A crash takes the transaction, and its id goes to another one: that is not taken for it."""
    url = make_url(forgetful.url())
    with ThreadPoolExecutor(1) as threads, TcpProxy(forgetful.port) as proxy:
        oban = Oban(url.set(host=proxy.host, port=proxy.port), statement_timeout=20.0)
        with closing(oban.repo):
            oban.migrate()
            with closing(connect(forgetful)) as admin:
                gate = Gate("public", "public.oban_jobs", admin)
                running = threads.submit(oban.insert, Job.new(worker="w", **how))
                lost = transaction_of(admin, wait_until(gate.waiting) or 0)
                proxy.freeze()
                forgetful.restart("immediate")
            with closing(connect(forgetful)) as admin:
                given = give_transaction(admin)
                assert given <= lost, "its id is not free again"
                while given < lost:
                    given = give_transaction(admin)
                proxy.drop()
                proxy.thaw()
                with pytest.raises(CommitUnknown) as raised:
                    running.result(60)

                assert raised.value.transaction_id == str(lost)
                assert admin.execute("SELECT count(*) FROM oban_jobs").fetchone() == (0,)


def connect(server: PostgresServer) -> Admin:
    """Connect to a server directly."""
    return psycopg.connect(server.conninfo(), autocommit=True)


def transaction_of(admin: Admin, pid: int) -> int:
    """Give the id of the transaction that a server process is in."""
    query = "SELECT cast(cast(backend_xid AS text) AS bigint) FROM pg_stat_activity WHERE pid = %s"
    return int(one(admin.execute(query, [pid])))


def give_transaction(admin: Admin) -> int:
    """Give another transaction an id, and commit it."""
    query = "SELECT cast(cast(pg_current_xact_id() AS text) AS bigint)"
    return int(one(admin.execute(query)))


def one(cursor: "psycopg.Cursor[Any]") -> Any:
    """Give the one value that there is."""
    ((value,),) = cursor.fetchall()
    return value
