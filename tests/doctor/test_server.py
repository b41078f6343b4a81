"""Servers, roles and addresses that are not as they should be."""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier

from oban_actors import Oban, SystemClock
from oban_actors.doctor import Finding, Limits, examine, render
from tests.cluster import pooling
from tests.doctor.mending import codes, execute, mend, only
from tests.support.databases import Database, new_database
from tests.support.instances import Starter, starter
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer, Server
from tests.support.waiting import wait_until


@pytest.fixture
def start(pg: Database) -> Iterator[Starter]:
    """Makes instances on PostgreSQL."""
    with starter(pg) as one:
        yield one


def session(database: Database) -> "psycopg.Connection[object]":
    """A connection of somebody else's."""
    url = sa.make_url(database.url).set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), application_name="report")


def fill(database: Database, rows: int) -> None:
    """Insert jobs at once."""
    execute(
        database,
        "INSERT INTO {s}oban_jobs (worker, state) SELECT 'tests.Worker', 'completed' "
        f"FROM generate_series(1, {rows})",
    )


class Skewed(SystemClock):
    """A machine whose clock is wrong."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.skew = timedelta(seconds=seconds)

    def now(self) -> datetime:
        """Tell the wrong time."""
        return super().now() + self.skew


@pytest.mark.parametrize(("seconds", "way"), [(60.0, "ahead of"), (-60.0, "behind")])
def test_a_clock_that_is_wrong(start: Starter, seconds: float, way: str) -> None:
    """Either way; a right one is no fault."""
    clock = Skewed(seconds)
    oban = start.make(clock=clock)

    finding = only(oban)
    assert finding.code == "clock"
    assert f"s {way} the database's" in finding.what
    clock.skew = timedelta()
    assert examine(oban) == []


def test_a_transaction_that_stays_open(start: Starter, pg: Database) -> None:
    """It is named with its session, which the fix ends."""
    oban = start.make()
    limits = Limits(transaction=0.0)
    # Whatever else runs on this server is older: only this session is looked for.
    with contextlib.closing(session(pg)) as other:
        other.execute("SELECT 1")
        pid = other.info.backend_pid

        def found() -> list[Finding]:
            every = examine(oban, limits)
            return [one for one in every if one.what.startswith(f"session {pid} ")]

        finding = wait_until(found)[0]
        assert finding.code == "old_transaction"
        assert "(report) is idle in transaction" in finding.what
        assert [one for one in examine(oban) if one.code == "old_transaction"] == []
        mend(oban, pg, finding)
        wait_until(lambda: not found())
        with pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


def test_dead_rows(start: Starter, pg: Database) -> None:
    """More of them than of the living, until they are vacuumed."""
    oban = start.make()
    limits = Limits(dead_rows=500)
    # Or the server may be quicker, where this takes its time.
    for kind in ("", "insert_"):
        execute(
            pg,
            f"ALTER TABLE {{s}}oban_jobs SET (autovacuum_vacuum_{kind}threshold = 1000000)",
        )
    fill(pg, 1_000)
    execute(pg, "DELETE FROM {s}oban_jobs")
    finding = wait_until(lambda: examine(oban, limits))[0]
    assert finding.code == "dead_rows"
    assert "1000 dead rows beside 0 living" in finding.what
    mend(oban, pg, finding)
    wait_until(lambda: examine(oban, limits) == [])


def test_bloat(start: Starter, pg: Database) -> None:
    """Much room for few rows, of the table and of its indexes, each with its own fix."""
    oban = start.make()
    fill(pg, 5_000)
    execute(
        pg,
        "DELETE FROM {s}oban_jobs WHERE id < (SELECT max(id) - 5 FROM {s}oban_jobs);\n"
        "VACUUM ANALYZE {s}oban_jobs",
    )
    limits = Limits(bloat=60_000)

    found = examine(oban, limits)
    assert {one.code for one in found} == {"bloat", "index_bloat"}
    for one in [one for one in found if one.code == "index_bloat"]:
        mend(oban, pg, one)
    assert codes(oban, limits) == ["bloat"]
    mend(oban, pg, only(oban, limits))
    assert examine(oban, limits) == []
    assert examine(oban) == []


@pytest.mark.db
def test_autovacuum_that_is_off_for_all(own_database: Database) -> None:
    """Somebody turned it off in the server's configuration."""
    with starter(own_database) as begin:
        oban = begin.make()
        execute(own_database, "ALTER SYSTEM SET autovacuum = off;\nSELECT pg_reload_conf()")
        finding = wait_until(lambda: examine(oban))[0]
        assert finding.code == "autovacuum_off"
        mend(oban, own_database, finding)
        wait_until(lambda: examine(oban) == [])


@pytest.mark.db
@pytest.mark.slow
def test_what_is_left_of_others() -> None:
    """A prepared transaction and a slot that nobody uses; and at last a server that only reads."""
    settings = {"wal_level": "logical", "max_prepared_transactions": "5"}
    with PostgresServer(settings=settings) as server, new_database(server) as name:
        database = Database("postgresql", server.url(name), "jobs")
        oban = Oban(database.url, prefix="jobs")
        oban.migrate()
        with contextlib.closing(session(database)) as other:
            other.execute("INSERT INTO jobs.oban_jobs (worker) VALUES ('tests.Worker')")
            other.execute("PREPARE TRANSACTION 'it''s left'")

        finding = wait_until(lambda: examine(oban, Limits(transaction=0.0)))[0]
        assert finding.code == "prepared_transaction"
        assert examine(oban) == []
        mend(oban, database, finding)
        execute(database, "SELECT pg_create_logical_replication_slot('left', 'pgoutput')")
        finding = only(oban)
        assert finding.code == "replication_slot"
        mend(oban, database, finding)
        assert examine(oban) == []
        oban.repo.close()

        server.stop()
        (server._data / "standby.signal").touch()
        server.start()
        finding = only(oban)
        assert (finding.severity, finding.code) == ("error", "standby")
        oban.repo.close()
        server.stop()
        (server._data / "standby.signal").unlink()
        server.start()


def test_a_pooler_that_swallows_notifications(pg: Database) -> None:
    """LISTEN works and nothing comes; with a listen_url of its own all is well."""
    if pooling.program() is None:
        pytest.skip("needs pgbouncer")
    with pooling.pgbouncer(pg.url) as url:
        oban = Oban(url, prefix=pg.prefix)
        oban.migrate()
        finding = only(oban, Limits(listen=1.0))
        assert (finding.severity, finding.code) == ("error", "listen")
        assert "listen_url" in finding.fix
        oban.repo.close()
        direct = pg.url.replace("+psycopg", "")
        mended = Oban(url, prefix=pg.prefix, notifier={"listen_url": direct})
        assert examine(mended) == []
        mended.repo.close()


def test_notifications_that_do_not_come(start: Starter, postgres_server: Server) -> None:
    """A listen_url that leads to another database hears nothing, as a pooler does."""
    other = postgres_server.url("postgres").replace("+psycopg", "")
    oban = start.make(notifier={"listen_url": other})

    finding = only(oban, Limits(listen=0.3))
    assert finding.code == "listen"
    assert "correct notifier.listen_url" in finding.fix
    assert examine(start.make()) == []


def test_a_listen_url_that_leads_nowhere(start: Starter, unused_port: int) -> None:
    """The rest is examined all the same."""
    url = f"postgresql://127.0.0.1:{unused_port}/none"
    oban = start.make(notifier={"listen_url": url})

    finding = only(oban)
    assert finding.code == "listen_connection"
    assert finding.fix.startswith("correct notifier.listen_url")


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    return free_port()


def test_a_server_that_is_not_there(unused_port: int) -> None:
    """One fault, told and not raised."""
    oban = Oban(f"postgresql://127.0.0.1:{unused_port}/none")

    finding = only(oban)
    assert (finding.severity, finding.code) == ("error", "unreachable")
    oban.repo.close()


def test_a_role_that_may_only_read(postgres_server: Server) -> None:
    """All is examined; what it may not see is said, with the right that it lacks."""
    role = f"oban_test_{uuid4().hex[:12]}"
    with new_database(postgres_server) as name:
        owner = Oban(postgres_server.url(name), prefix="background")
        owner.migrate()
        owner.repo.close()
        with psycopg.connect(postgres_server.conninfo(name), autocommit=True) as connection:
            quoted = Identifier(role)
            connection.execute(SQL("CREATE ROLE {}").format(quoted))
            connection.execute(SQL("GRANT USAGE ON SCHEMA background TO {}").format(quoted))
            connection.execute(
                SQL("GRANT SELECT ON ALL TABLES IN SCHEMA background TO {}").format(quoted)
            )
            url = sa.make_url(postgres_server.url(name))
            acting = url.update_query_dict({"options": f"-c role={role}"})
            oban = Oban(acting.render_as_string(hide_password=False), prefix="background")

            finding = only(oban)
            assert (finding.severity, finding.code) == ("notice", "not_allowed")
            assert finding.fix == f"GRANT pg_read_all_stats TO {role};"
            connection.execute(finding.fix.encode())
            assert examine(oban) == []
            connection.execute(SQL("REVOKE SELECT ON background.oban_peers FROM {}").format(quoted))
            assert [one.what.split(" may")[0] for one in examine(oban)] == ["the lease"]
            oban.repo.close()
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def test_nothing_is_changed(start: Starter, pg: Database) -> None:
    """An examination writes nothing: it runs where nothing can be written."""
    oban = start.make()
    url = sa.make_url(pg.url).update_query_dict({"options": "-c default_transaction_read_only=on"})
    reader = Oban(url.render_as_string(hide_password=False), prefix=pg.prefix)

    assert examine(reader) == []
    reader.repo.close()
    assert oban.get_job(1) is None


def test_faults_as_text() -> None:
    """The worst first, each with its fix, and how many there are."""
    assert render([]) == "No faults were found."
    found = [
        Finding("error", "index", "it is gone", "CREATE INDEX a;\nCREATE INDEX b;"),
        Finding("notice", "seen", "it is there", "nothing"),
        Finding("notice", "seen", "it is there too", "nothing"),
    ]
    assert render(found) == (
        "ERROR index: it is gone\n"
        "  fix: CREATE INDEX a;\n"
        "       CREATE INDEX b;\n"
        "\n"
        "NOTICE seen: it is there\n"
        "  fix: nothing\n"
        "\n"
        "NOTICE seen: it is there too\n"
        "  fix: nothing\n"
        "\n"
        "1 error, 2 notices"
    )
    assert found[0].to_dict()["code"] == "index"
