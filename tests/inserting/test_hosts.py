"""Inserting in the host's own transaction, whatever it holds."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from oban_actors import Job, Oban, Stage
from oban_actors.errors import ConfigError, TransientError, UnfitTransaction
from oban_actors.host_connections import adopt
from tests.inserting.hosts import ASYNC, SYNC, AsyncHost, address, django_connection, engine_of
from tests.support.databases import Database
from tests.support.instances import Starter

UNIQUE = {"period": None}


def plain(**options: Any) -> Job:
    """Make a job."""
    args = {"text": "100 % ü :now {x} '", "n": [1]}
    return Job.new(**{"args": args, "worker": "tests.Worker", "tags": ["a"], **options})


def on(start: Starter, kind: str) -> Oban:
    """Make an instance, or leave the test where the database is not of this kind."""
    if start.database.kind != kind:
        pytest.skip(f"for {kind}")
    return start.make()


@pytest.mark.parametrize(("kind", "make", "driver"), SYNC)
def test_host(start_oban: Starter, kind: str, make: Any, driver: str) -> None:
    """Jobs live and die with the host's transaction, unique and replaced ones too."""
    oban = on(start_oban, kind)
    with make(start_oban.database, driver) as host:
        oban.insert(plain(), session=host.handle)
        host.rollback()
        assert start_oban.tables.states() == {}

        first = oban.insert(plain(unique=UNIQUE), connection=host.handle)
        again = oban.insert(
            plain(unique=UNIQUE, priority=3, schedule_in=60, replace=["priority", "scheduled_at"]),
            session=host.handle,
        )
        several = oban.insert_all([plain(), plain(schedule_in=5)], session=host.handle)
        assert start_oban.tables.states() == {}
        host.commit()

    assert again.conflict
    assert (again.id, again.priority) == (first.id, 3)
    stored = oban.get_job(first.id or 0)
    assert stored is not None
    assert stored.args == plain().args
    again.conflict = False
    assert stored == again
    for job in several:
        assert oban.get_job(job.id or 0) == job


@pytest.mark.parametrize(("kind", "make", "driver"), SYNC)
def test_notified_at_commit(start_oban: Starter, kind: str, make: Any, driver: str) -> None:
    """Queues are told when the host commits and not when it rolls back."""
    oban = on(start_oban, kind)
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "insert")
    with make(start_oban.database, driver) as host:
        oban.insert(plain(queue="lost"), session=host.handle)
        host.rollback()
        oban.insert(plain(queue="kept"), session=host.handle)
        host.commit()

    assert heard.wait_for("insert") == [{"queue": "kept"}]


@pytest.mark.parametrize(("kind", "make", "driver"), SYNC)
def test_within_the_process(start_oban: Starter, kind: str, make: Any, driver: str) -> None:
    """With an isolated notifier a host's commit is told, or seen by the next pass; no other is."""
    on(start_oban, kind)
    oban = start_oban.leading(notifier="isolated", stager={"interval": 600.0})
    heard = start_oban.hear(oban, "insert")
    with make(start_oban.database, driver) as host:
        oban.insert(plain(queue="lost"), session=host.handle)
        host.rollback()
        oban.insert_all([plain(queue="kept"), plain(schedule_in=1)], session=host.handle)
        assert heard.payloads("insert") == []
        host.commit()
    oban.ask("stager", Stage(), timeout=30)

    assert heard.wait_for("insert")[0] == {"queue": "kept"}


@pytest.mark.parametrize(("kind", "held", "driver"), ASYNC)
def test_async_host(start_oban: Starter, kind: str, held: str, driver: str) -> None:
    """What has to be awaited is awaited by ainsert, and refused by insert with its name."""
    oban = on(start_oban, kind)

    async def host() -> tuple[Job, Job, list[Job]]:
        async with AsyncHost(start_oban.database, held, driver) as one:
            with pytest.raises(ConfigError, match="ainsert"):
                oban.insert(plain(), session=one.handle)
            await oban.ainsert(plain(), session=one.handle)
            await one.handle.rollback()
            first = await oban.ainsert(plain(unique=UNIQUE), session=one.handle)
            again = await oban.ainsert(
                plain(unique=UNIQUE, tags=["b"], replace=["tags"]), connection=one.handle
            )
            several = await oban.ainsert_all([plain(), plain()], session=one.handle)
            assert await asyncio.to_thread(start_oban.tables.states) == {}
            await one.handle.commit()
            return first, again, several

    first, again, several = asyncio.run(host())

    assert (again.id, again.tags, again.conflict) == (first.id, ["b"], True)
    assert set(start_oban.tables.states()) == {job.id for job in [first, *several]}


def test_async_alone(start_oban: Starter) -> None:
    """Without a host's transaction the twins use one of ours."""
    oban = start_oban.make()

    async def host() -> list[Job]:
        one = await oban.ainsert(plain())
        return [one, *await oban.ainsert_all(plain() for _ in range(2))]

    jobs = asyncio.run(host())

    assert set(start_oban.tables.states()) == {job.id for job in jobs}


@pytest.mark.parametrize(
    "call",
    [lambda oban, job: oban.acancel_job(job), lambda oban, _: oban.ainsert(plain())],
    ids=["acancel_job", "ainsert"],
)
def test_the_event_loop_goes_on(
    start_oban: Starter, call: Callable[[Oban, Job], Coroutine[Any, Any, object]]
) -> None:
    """A twin that has to wait for the database keeps no other task waiting, here who lets it go."""
    oban = start_oban.make(lock_timeout=0.2)
    job, tables = oban.insert(plain()), start_oban.tables
    lock = {"postgresql": "LOCK TABLE {jobs}", "sqlite": "UPDATE {jobs} SET priority = 1"}

    async def main() -> object:
        task = asyncio.create_task(call(oban, job))
        await asyncio.sleep(0)
        other.rollback()
        return await task

    with tables.engine.connect() as other:
        tables.on(other, lock[start_oban.database.kind])
        assert asyncio.run(main())


@pytest.mark.parametrize("handle", [object(), "postgresql://", 3, sqlite3])
def test_unknown(start_oban: Starter, handle: Any) -> None:
    """Anything else is refused by its name, and nothing is inserted."""
    oban = start_oban.make()

    with pytest.raises(ConfigError, match=type(handle).__qualname__):
        oban.insert(plain(), session=handle)
    kind = f"{type(handle).__module__}.{type(handle).__qualname__}"
    with pytest.raises(ConfigError, match=f"session or connection, got both: {kind} and {kind}$"):
        oban.insert(plain(), session=handle, connection=handle)
    assert start_oban.tables.states() == {}


def test_other_database(start_oban: Starter, pg: Database, sqlite: Database) -> None:
    """A connection to a database of the other kind is refused."""
    oban = start_oban.make()
    other = sqlite if start_oban.database.kind == "postgresql" else pg

    with (
        engine_of(sa.make_url(other.url)) as engine,
        engine.connect() as connection,
        pytest.raises(ConfigError, match=f"one to {start_oban.database.kind}"),
    ):
        oban.insert(plain(), connection=connection)


def test_autocommit(start_oban: Starter) -> None:
    """A connection that commits each statement by itself is no transaction."""
    oban = start_oban.make()
    url = sa.make_url(start_oban.database.url)
    with engine_of(url) as engine, engine.connect() as connection:
        automatic = connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(UnfitTransaction, match="AUTOCOMMIT"):
            oban.insert(plain(), connection=automatic)
    handle: Any
    if start_oban.database.kind == "sqlite":
        handle = sqlite3.connect(str(url.database), isolation_level=None)
    else:
        text = address(start_oban.database, "postgresql").render_as_string(hide_password=False)
        handle = psycopg.connect(text, autocommit=True)
    try:
        with pytest.raises(UnfitTransaction, match="autocommit"):
            oban.insert(plain(), connection=handle)
        handle.execute("BEGIN")
        oban.insert(plain(), connection=handle)
        handle.execute("COMMIT")
    finally:
        handle.close()

    assert len(start_oban.tables.states()) == 1


def test_a_pipeline(start_oban: Starter) -> None:
    """Where results come later, nothing is sent."""
    oban = on(start_oban, "postgresql")
    conninfo = address(start_oban.database, "postgresql").render_as_string(hide_password=False)

    async def awaited() -> None:
        async with await psycopg.AsyncConnection.connect(conninfo) as connection:
            async with connection.pipeline():
                with pytest.raises(UnfitTransaction, match="pipeline mode"):
                    await oban.ainsert(plain(), connection=connection)
            await connection.commit()

    with psycopg.connect(conninfo) as connection:
        with connection.pipeline(), pytest.raises(UnfitTransaction, match="pipeline mode"):
            oban.insert(plain(), connection=connection)
        connection.commit()
    asyncio.run(awaited())

    assert start_oban.tables.states() == {}


def test_other_cursors(start_oban: Starter) -> None:
    """What kind of cursors a host's connection makes does not matter."""
    oban = on(start_oban, "postgresql")
    conninfo = address(start_oban.database, "postgresql").render_as_string(hide_password=False)
    for kind in (psycopg.RawCursor, psycopg.ClientCursor):
        with psycopg.connect(conninfo, cursor_factory=kind) as connection:
            job = oban.insert(plain(), connection=connection)
        assert oban.get_job(job.id or 0) == job


def test_autocommit_of_django(start_oban: Starter) -> None:
    """Django's connection is in a transaction only within `atomic()`, or where it is told so."""
    oban = start_oban.make()
    with django_connection(start_oban.database, "") as host:
        host.handle.set_autocommit(True)
        with pytest.raises(UnfitTransaction, match=r"use transaction\.atomic\(\)"):
            oban.insert(plain(), connection=host.handle)
        host.handle.set_autocommit(False)
        host.handle.vendor = "oracle"
        with pytest.raises(ConfigError, match="PostgreSQL or SQLite, got: oracle"):
            oban.insert(plain(), connection=host.handle)

    assert start_oban.tables.states() == {}


OLDER_DJANGO = """
import sys

sys.modules["psycopg"] = None
from django.conf import settings

settings.configure()
from django.db.backends.postgresql import base
from django.db.backends.postgresql.psycopg_any import is_psycopg3
from django.db.utils import ConnectionHandler

assert not is_psycopg3
del sys.modules["psycopg"]
import sqlalchemy as sa
from oban_actors import Oban

url = sa.make_url(sys.argv[1])
django = ConnectionHandler({"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username,
    "PASSWORD": url.password or "", "HOST": url.host, "PORT": str(url.port),
}})["default"]
django.set_autocommit(False)
oban = Oban(sys.argv[1], prefix=sys.argv[2])
same = oban.jobs.c.args == {"n": [1], "text": "ü"}
assert [job.args["n"] for job in oban.all_jobs(same, connection=django)] == [[1]]
assert oban.cancel_all_jobs(same, connection=django) == 1
django.commit()
"""


def test_a_django_on_psycopg2(start_oban: Starter) -> None:
    """What is JSON in a condition reaches the older driver too."""
    oban = on(start_oban, "postgresql")
    jobs = oban.insert_all([plain(args={"n": [1], "text": "ü"}), plain()])
    given = [start_oban.database.url, oban.config.prefix]
    subprocess.run([sys.executable, "-c", OLDER_DJANGO, *given], check=True, timeout=60)

    assert start_oban.tables.states() == {jobs[0].id: "cancelled", jobs[1].id: "available"}


def test_a_backend_of_django_by_others(start_oban: Starter) -> None:
    """One that builds on Django's is as good, from whichever module it comes."""
    oban = start_oban.make()
    with django_connection(start_oban.database, "") as host:
        kind: Any = type(host.handle)
        host.handle.__class__ = type(
            "DatabaseWrapper", (kind,), {"__module__": "backends.of.others"}
        )
        job = oban.insert(plain(), connection=host.handle)
        host.commit()

    assert oban.get_job(job.id or 0) == job


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_too_strict(start_oban: Starter, level: str) -> None:
    """A transaction that can't see what others commit is refused for unique jobs only."""
    oban = on(start_oban, "postgresql")
    with engine_of(sa.make_url(start_oban.database.url)) as engine, engine.connect() as made:
        connection = made.execution_options(isolation_level=level)
        oban.insert(plain(), connection=connection)
        with pytest.raises(UnfitTransaction, match="read committed"):
            oban.insert(plain(unique=UNIQUE), connection=connection)
        connection.commit()


def test_lock_of_another(start_oban: Starter) -> None:
    """Who holds the same unique job in an open transaction is waited for, but not for ever."""
    oban = start_oban.make(lock_timeout=0.2, statement_timeout=1)
    url = sa.make_url(start_oban.database.url)
    with engine_of(url) as engine, engine.connect() as first:
        oban.insert(plain(unique=UNIQUE), connection=first)
        with pytest.raises(TransientError):
            oban.insert(plain(unique=UNIQUE))
        with engine.connect() as second:
            if url.get_backend_name() == "sqlite":
                second.exec_driver_sql("PRAGMA busy_timeout = 200")
            with pytest.raises(TransientError, match="in time"):
                oban.insert(plain(unique=UNIQUE), connection=second)
        first.commit()

    assert oban.insert(plain(unique=UNIQUE)).conflict


@pytest.mark.parametrize(("kind", "make", "driver"), SYNC)
def test_lock_of_another_host(start_oban: Starter, kind: str, make: Any, driver: str) -> None:
    """Whatever a host holds, it is told in our words who was in its way."""
    oban = on(start_oban, kind)
    patience = "SET LOCAL lock_timeout = 100" if kind == "postgresql" else "PRAGMA busy_timeout=100"
    with make(start_oban.database, driver) as first, make(start_oban.database, driver) as second:
        oban.insert(plain(unique=UNIQUE), connection=first.handle)
        adopt(second.handle, "connection", oban.repo.dialect).execute(sa.text(patience))
        with pytest.raises(TransientError, match="another transaction"):
            oban.insert(plain(unique=UNIQUE), connection=second.handle)
        second.rollback()
        first.rollback()

    assert start_oban.tables.states() == {}


def test_settings_of_the_host(start_oban: Starter) -> None:
    """The host's transaction has the same settings after a unique insert as before."""
    oban = on(start_oban, "postgresql")
    show = sa.text("SELECT current_setting('lock_timeout')")
    with engine_of(sa.make_url(start_oban.database.url)) as engine, engine.connect() as connection:
        for setting in ("0", "3s"):
            connection.exec_driver_sql(f"SET lock_timeout = '{setting}'")
            oban.insert(plain(unique=UNIQUE), connection=connection)
            assert connection.execute(show).scalar_one() == setting
        connection.exec_driver_sql("SET enable_bitmapscan = 'off'")
        oban.insert(plain(unique={"keys": ["text"]}), connection=connection)
        assert connection.exec_driver_sql("SHOW enable_bitmapscan").scalar_one() == "off"
        connection.rollback()
