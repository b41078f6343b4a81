"""Tables broken on purpose, one fault each, and mended by what is printed."""

import json
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from oban_actors import Job, Oban
from oban_actors.doctor import examine
from oban_actors.doctor.manifest import expected
from tests.doctor.manifest import PATH, VERSIONS, made, written
from tests.doctor.mending import codes, execute, mend, only
from tests.migrations import elixir
from tests.support.databases import Database, new_database
from tests.support.instances import Starter, starter
from tests.support.postgres import Server

INDEX = "oban_jobs_state_queue_priority_scheduled_at_id_index"
STAGING = "oban_actors_staging_index"

POSTGRES: list[tuple[str, str, str]] = [
    ("ALTER TABLE {s}oban_jobs DROP COLUMN tags", "missing_column", "oban_jobs has no column tags"),
    (
        "ALTER TABLE {s}oban_jobs ALTER COLUMN max_attempts TYPE bigint",
        "column_type",
        "oban_jobs.max_attempts is of type bigint instead of integer",
    ),
    (
        "ALTER TABLE {s}oban_jobs ALTER COLUMN state DROP DEFAULT",
        "column_default",
        "oban_jobs.state has the default none instead of 'available'::oban_job_state",
    ),
    (
        "ALTER TABLE {s}oban_jobs ALTER COLUMN inserted_at SET DEFAULT now()",
        "column_default",
        "oban_jobs.inserted_at has the default",
    ),
    ("ALTER TABLE {s}oban_jobs ALTER COLUMN worker DROP NOT NULL", "column_null", "may be NULL"),
    ("ALTER TABLE {s}oban_jobs ALTER COLUMN meta SET NOT NULL", "column_null", "may not be NULL"),
    ("ALTER TABLE {s}oban_jobs DROP CONSTRAINT attempt_range", "missing_constraint", "lacks"),
    (
        (
            "ALTER TABLE {s}oban_jobs DROP CONSTRAINT worker_length;\n"
            "ALTER TABLE {s}oban_jobs ADD CONSTRAINT worker_length CHECK (worker <> '')"
        ),
        "constraint",
        "the constraint worker_length of oban_jobs is CHECK",
    ),
    (f"DROP INDEX {{s}}{STAGING}", "missing_index", f"oban_jobs lacks the index {STAGING}"),
    (
        f"DROP INDEX {{s}}{INDEX};\nCREATE INDEX {INDEX} ON {{s}}oban_jobs (state, queue)",
        "index",
        f"the index {INDEX} of oban_jobs is CREATE INDEX",
    ),
    (
        f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{{s}}{STAGING}'::regclass",
        "invalid_index",
        f"the index {STAGING} of oban_jobs is invalid",
    ),
    (
        (
            'CREATE INDEX "Left ""over" ON {s}oban_jobs (worker);\n'
            "UPDATE pg_index SET indisvalid = false "
            """WHERE indexrelid = '{s}"Left ""over"'::regclass"""
        ),
        "invalid_index",
        'the index Left "over of oban_jobs is invalid',
    ),
    ("DROP TABLE {s}oban_peers", "missing_table", "there is no table oban_peers"),
    ("DROP TABLE {s}oban_actors_crons", "missing_table", "there is no table oban_actors_crons"),
    ("DROP TABLE {s}oban_actors_producers", "own_version", "version 0 instead of"),
    (
        "ALTER TABLE {s}oban_jobs SET (autovacuum_enabled = false)",
        "autovacuum_off",
        "autovacuum is off for oban_jobs",
    ),
]

SQLITE: list[tuple[str, str, str]] = [
    (f"DROP INDEX {STAGING}", "missing_index", f"there is no index {STAGING}"),
    (
        f"DROP INDEX {INDEX}; CREATE INDEX {INDEX} ON oban_jobs (state, queue)",
        "index",
        f"the index {INDEX} is CREATE INDEX",
    ),
    ("DROP TABLE oban_peers", "missing_table", "there is no table oban_peers"),
    ("DROP TABLE oban_actors_crons", "missing_table", "there is no table oban_actors_crons"),
    ("DELETE FROM oban_actors_meta", "own_version", "version 0 instead of"),
    ("ALTER TABLE oban_jobs DROP COLUMN tags", "missing_column", "oban_jobs has no column tags"),
    (
        "ALTER TABLE oban_jobs DROP COLUMN completed_at",
        "missing_column",
        "oban_jobs has no column completed_at",
    ),
]


def test_a_fresh_database_has_no_faults(start_oban: Starter) -> None:
    """Neither before a node ran on it, nor while one does, nor after."""
    oban = start_oban.make(queues={"alpha": 1})
    assert examine(oban) == []
    with oban:
        oban.insert_all([])
        assert examine(oban.repo) == []
    assert examine(oban) == []


@pytest.mark.db
def test_tables_in_the_schema_that_needs_no_name(postgres_server: Server) -> None:
    """The catalog leaves out what every session sees, unless it is told not to."""
    with new_database(postgres_server) as name:
        oban = Oban(postgres_server.url(name))
        oban.migrate()
        assert examine(oban) == []
        database = Database("postgresql", postgres_server.url(name))
        execute(database, "ALTER TABLE {s}oban_jobs ALTER COLUMN state DROP DEFAULT")
        mend(oban, database, only(oban))
        assert examine(oban) == []
        oban.repo.close()


def test_more_than_should_be_is_no_fault(pg: Database) -> None:
    """A column and an index of the host's own, and a check that was validated meanwhile."""
    with starter(pg) as start:
        oban = start.make()
        execute(
            pg,
            "ALTER TABLE {s}oban_jobs ADD COLUMN tenant text;\n"
            "CREATE INDEX by_tenant ON {s}oban_jobs (tenant);\n"
            "ALTER TABLE {s}oban_jobs VALIDATE CONSTRAINT non_negative_priority",
        )
        assert examine(oban) == []


def test_no_tables_at_all(database: Database) -> None:
    """One fault, and not one for each table."""
    oban = Oban(database.url, prefix=database.prefix)
    finding = only(oban)
    assert (finding.severity, finding.code) == ("error", "no_tables")
    mend(oban, database, finding)
    assert examine(oban) == []
    oban.rollback()
    oban.repo.close()


def check_fault(database: Database, fault: str, code: str, what: str) -> None:
    """A fault is found, it alone, and gone after its own fix."""
    with starter(database) as start:
        oban = start.make()
        execute(database, fault)

        finding = only(oban)
        assert finding.code == code
        assert what in finding.what
        mend(oban, database, finding)
        assert examine(oban) == []


@pytest.mark.parametrize(("fault", "code", "what"), POSTGRES)
def test_a_fault_on_postgresql(pg: Database, fault: str, code: str, what: str) -> None:
    """It is found, it alone, and gone after its own fix."""
    check_fault(pg, fault, code, what)


@pytest.mark.parametrize(("fault", "code", "what"), SQLITE)
def test_a_fault_on_sqlite(sqlite: Database, fault: str, code: str, what: str) -> None:
    """Likewise."""
    check_fault(sqlite, fault, code, what)


@pytest.mark.parametrize("table", ["oban_jobs", "oban_actors_notifications"])
def test_a_column_that_sqlite_can_not_add(sqlite: Database, table: str) -> None:
    """Then the fix makes the table anew, and its rows and indexes are there again."""
    with starter(sqlite) as start:
        oban = start.make()
        job = oban.insert(_job(1))
        execute(
            sqlite,
            "DROP INDEX oban_actors_unique_index; "
            f"ALTER TABLE {table} DROP COLUMN inserted_at; "
            "CREATE INDEX oban_actors_unique_index ON oban_jobs (worker)",
        )
        found = examine(oban)
        assert f"{table} has no column inserted_at" in found[0].what
        for finding in found:
            mend(oban, sqlite, finding)
        assert examine(oban) == []
        assert oban.get_job(job.id or 0).args == job.args


def test_a_column_of_another_type(sqlite: Database) -> None:
    """SQLite minds it little, and the fix is the same."""
    with starter(sqlite) as start:
        oban = start.make()
        execute(
            sqlite,
            "ALTER TABLE oban_peers DROP COLUMN node; "
            "ALTER TABLE oban_peers ADD COLUMN node BLOB NOT NULL DEFAULT 'x'; "
            "INSERT INTO oban_peers VALUES ('Other', '2030', '2030', 'web.1')",
        )
        finding = only(oban)
        assert (finding.severity, finding.code) == ("notice", "column_type")
        assert "oban_peers.node is of type BLOB instead of TEXT" in finding.what
        mend(oban, sqlite, finding)
        assert examine(oban) == []
        assert start.tables.execute("SELECT name, node FROM {peers}") == [("Other", "web.1")]


def test_a_state_that_is_missing(pg: Database, pg_conninfo: str) -> None:
    """An enum made for seven states holds no suspended jobs, which version 14 says there are."""
    with psycopg.connect(pg_conninfo, autocommit=True) as connection:
        elixir.install(connection, pg.prefix, 13, enum_of=13)
    oban = Oban(pg.url, prefix=pg.prefix)
    oban.migrate(version=13)
    execute(pg, "COMMENT ON TABLE {s}oban_jobs IS '14'")

    finding = only(oban)
    assert (finding.code, "'suspended'" in finding.what) == ("missing_state", True)
    mend(oban, pg, finding)
    assert examine(oban) == []
    oban.repo.close()


@pytest.mark.parametrize("enum_of", [13, 14])
@pytest.mark.parametrize("version", VERSIONS)
def test_elixirs_own_tables_are_healthy(
    pg: Database, pg_conninfo: str, version: int, enum_of: int
) -> None:
    """Of each version, with our own beside them."""
    with psycopg.connect(pg_conninfo, autocommit=True) as connection:
        elixir.install(connection, pg.prefix, version, enum_of=enum_of)
    oban = Oban(pg.url, prefix=pg.prefix)
    oban.migrate(version=version)

    assert examine(oban) == []
    oban.repo.close()


def test_elixirs_own_file_is_healthy(sqlite: Database) -> None:
    """As the Lite engine's migration leaves it, with ours beside it."""
    path = sa.make_url(sqlite.url).database
    assert path is not None
    elixir.install_lite(path)
    oban = Oban(sqlite.url)
    oban.migrate()

    assert examine(oban) == []
    oban.repo.close()


def test_old_tables(pg: Database) -> None:
    """Of a version before leadership."""
    with starter(pg) as start:
        oban = start.make()
        oban.rollback(version=10)
        found = examine(oban)
        assert found[0].code == "old_version"
        mend(oban, pg, found[0])
        assert examine(oban) == []


def test_tables_of_the_future(pg: Database) -> None:
    """What isn't known isn't compared; a comment that is no version is told."""
    with starter(pg) as start:
        oban = start.make()
        execute(pg, "COMMENT ON TABLE {s}oban_jobs IS '99'")
        assert codes(oban) == ["new_version"]
        execute(pg, "COMMENT ON TABLE {s}oban_jobs IS '14'")
        execute(pg, "COMMENT ON TABLE {s}oban_actors_producers IS '99'")
        assert codes(oban) == ["new_own_version"]
        execute(pg, "COMMENT ON TABLE {s}oban_jobs IS 'ours'")
        assert codes(oban) == ["not_examined"]
        execute(pg, "COMMENT ON TABLE {s}oban_jobs IS '∞'")
        execute(pg, "ALTER TABLE {s}oban_jobs ALTER COLUMN tags SET NOT NULL")
        assert "column_null" not in codes(oban)


@pytest.mark.db
def test_the_manifest_is_what_the_migrations_make(postgres_server: Server) -> None:
    """After changing the migrations: `python -m tests.doctor.manifest`."""
    assert json.loads(PATH.read_text("utf-8")) == made(postgres_server)
    assert PATH.read_text("utf-8") == written(json.loads(PATH.read_text("utf-8")))
    assert expected(10) is None


def test_a_damaged_file(sqlite: Database) -> None:
    """Bytes that somebody else wrote into it are found."""
    with starter(sqlite) as start:
        oban = start.make()
        oban.insert_all([_job(number) for number in range(2_000)])
        execute(sqlite, "PRAGMA wal_checkpoint(TRUNCATE)")
        oban.repo.close()
        path = Path(sa.make_url(sqlite.url).database or "")
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 8192] = b"\xff" * 8192
        path.write_bytes(content)

        assert "damaged" in codes(oban)


def test_a_file_that_can_have_no_wal(tmp_path: Path) -> None:
    """As on a network's disk: there readers and writers are in each other's way."""
    url = f"sqlite:///file:{tmp_path / 'jobs.db'}?vfs=unix-dotfile&uri=true"
    oban = Oban(url)
    oban.migrate()

    finding = only(oban)
    assert finding.code == "journal_mode"
    assert "delete instead of wal" in finding.what
    oban.repo.close()


def _job(number: int) -> Job:
    return Job.new(worker="tests.Worker", args={"number": number, "text": "x" * 200})
