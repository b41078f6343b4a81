"""PostgreSQL's tables: from anything that Elixir left, to its newest schema, and back."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from psycopg.sql import SQL, Identifier

from oban_actors import Oban
from oban_actors.errors import ConfigError, DatabaseError, SchemaMissing, SchemaTooNew
from oban_actors.repo import Repo, migrator
from oban_actors.repo.migrator import migrate, migrated_version, rollback
from oban_actors.repo.schema import EXTERNAL
from tests.migrations.conftest import Admin, run
from tests.migrations.describing import describe, without_gin
from tests.migrations.elixir import VERSIONS, install
from tests.repo.opening import opened_on
from tests.support.databases import Database

STAGING_DEFINITION = (
    "CREATE INDEX oban_actors_staging_index ON oban_jobs USING btree (scheduled_at, id) WHERE "
    "(state = ANY (ARRAY['scheduled'::oban_job_state, 'retryable'::oban_job_state]))"
)
STAGING = ("oban_actors_staging_index", STAGING_DEFINITION)
INDEXES = [
    "oban_actors_finished_index",
    "oban_actors_staging_index",
    "oban_actors_unfinished_index",
]
NOW_UTC = "timezone('UTC'::text, now())"
MOMENT = "timestamp without time zone"
JOBS = [
    ("id", "bigint", True, "nextval('oban_jobs_id_seq'::regclass)"),
    ("state", "oban_job_state", True, "'available'::oban_job_state"),
    ("queue", "text", True, "'default'::text"),
    ("worker", "text", True, None),
    ("args", "jsonb", True, "'{}'::jsonb"),
    ("errors", "jsonb[]", True, "ARRAY[]::jsonb[]"),
    ("attempt", "integer", True, "0"),
    ("max_attempts", "integer", True, "20"),
    ("inserted_at", MOMENT, True, NOW_UTC),
    ("scheduled_at", MOMENT, True, NOW_UTC),
    ("attempted_at", MOMENT, False, None),
    ("completed_at", MOMENT, False, None),
    ("attempted_by", "text[]", False, None),
    ("discarded_at", MOMENT, False, None),
    ("priority", "integer", True, "0"),
    ("tags", "text[]", False, "ARRAY[]::text[]"),
    ("meta", "jsonb", False, "'{}'::jsonb"),
    ("cancelled_at", MOMENT, False, None),
]
CHECKS = {
    "attempt_range": "CHECK (((attempt >= 0) AND (attempt <= max_attempts)))",
    "non_negative_priority": "CHECK ((priority >= 0)) NOT VALID",
    "positive_max_attempts": "CHECK ((max_attempts > 0))",
    "queue_length": "CHECK (((char_length(queue) > 0) AND (char_length(queue) < 128)))",
    "worker_length": "CHECK (((char_length(worker) > 0) AND (char_length(worker) < 128)))",
}


def test_from_nothing(repo: Repo, admin: Admin) -> None:
    """An empty database gets exactly the tables that Elixir's newest version has, and ours."""
    assert migrate(repo) == 14

    made = describe(admin, repo.config.prefix)
    columns = [row[1:] for row in made["columns"] if row[0] == "oban_jobs"]
    checks = {name: rule for name, rule in made["constraints"] if rule.startswith("CHECK")}
    assert columns == JOBS
    assert checks == CHECKS
    assert made["tables"] == [
        ("oban_actors_crons", "p", None),
        ("oban_actors_producers", "p", "3"),
        ("oban_jobs", "p", "14"),
        ("oban_peers", "u", None),
    ]
    assert [row[0] for row in made["states"]] == [
        "available",
        "suspended",
        "scheduled",
        "executing",
        "retryable",
        "completed",
        "discarded",
        "cancelled",
    ]
    assert made["code"] == []
    assert STAGING in made["indexes"]
    assert [name for name, _ in made["indexes"]] == [
        "oban_actors_crons_pkey",
        "oban_actors_finished_index",
        "oban_actors_producers_pkey",
        "oban_actors_staging_index",
        "oban_actors_unfinished_index",
        "oban_jobs_pkey",
        "oban_jobs_state_cancelled_at_index",
        "oban_jobs_state_discarded_at_index",
        "oban_jobs_state_queue_priority_scheduled_at_id_index",
        "oban_peers_pkey",
    ]


@pytest.mark.parametrize("enum_of", [11, 14])
@pytest.mark.parametrize("version", VERSIONS)
def test_from_elixir(repo: Repo, pg: Database, admin: Admin, version: int, enum_of: int) -> None:
    """What Elixir left becomes the same as a new installation; jobs and GIN indexes stay."""
    install(admin, pg.prefix, version, enum_of=enum_of)
    run(admin, "INSERT INTO {}.oban_jobs (worker) VALUES ('MyApp.Worker')", pg.prefix)
    assert migrated_version(repo) == version

    assert migrate(repo) == 14

    upgraded = describe(admin, pg.prefix)
    names = {name for name, _ in upgraded["indexes"]}
    rows = admin.execute(SQL("SELECT worker FROM {}.oban_jobs").format(Identifier(pg.prefix)))
    assert rows.fetchall() == [("MyApp.Worker",)]
    assert {"oban_jobs_args_index", "oban_jobs_meta_index"} < names
    run(admin, "DROP SCHEMA {} CASCADE", pg.prefix)
    migrate(repo, elixir_indexes=True)
    assert upgraded == describe(admin, pg.prefix)


@pytest.mark.parametrize("asked", [True, False])
def test_elixirs_indexes_are_an_option(pg: Database, admin: Admin, asked: bool) -> None:  # noqa: FBT001 (a parameter)
    """The two indexes on JSON are made where the instance is asked for them, and kept."""
    for options in ({"elixir_indexes": asked}, {}):
        oban = Oban(pg.url, prefix=pg.prefix, **options)
        try:
            oban.migrate()
        finally:
            oban.repo.close()
        names = {name for name, _ in describe(admin, pg.prefix)["indexes"]}
        assert ({"oban_jobs_args_index", "oban_jobs_meta_index"} <= names) is asked


@pytest.mark.parametrize("version", VERSIONS)
def test_back_to_elixir(repo: Repo, pg: Database, admin: Admin, version: int) -> None:
    """Taken back, the tables are what Elixir's own migrations to that version leave."""
    migrate(repo, elixir_indexes=True)

    assert rollback(repo, version=version) == version

    mine = describe(admin, pg.prefix)
    assert migrate(repo) == 14
    run(admin, "DROP SCHEMA {} CASCADE", pg.prefix)
    install(admin, pg.prefix, version)
    theirs = describe(admin, pg.prefix)
    for part in ("states", "code"):
        assert mine[part] == theirs[part]
    for part in ("tables", "columns", "indexes"):
        ours = [row for row in mine[part] if not row[0].startswith("oban_actors")]
        assert ours == theirs[part]
    for name, rule in theirs["constraints"]:
        # A check that comes back is not applied to the rows that came meanwhile.
        assert (name, rule) in mine["constraints"] or (name, f"{rule} NOT VALID") in mine[
            "constraints"
        ]


def test_each_step_back_and_forth(repo: Repo, pg: Database, admin: Admin) -> None:
    """From every version to every other: down to nothing and up again gives the same tables."""
    migrate(repo)
    newest = describe(admin, pg.prefix)

    for version in reversed(range(14)):
        assert rollback(repo, version=version) == version
        assert migrated_version(repo) == version
        assert migrate(repo) == 14
        again = describe(admin, pg.prefix)
        assert {part: sorted(again[part], key=str) for part in again} == {
            part: sorted(newest[part], key=str) for part in newest
        }

    rollback(repo)
    assert describe(admin, pg.prefix)["tables"] == []
    assert describe(admin, pg.prefix)["states"] == []
    assert rollback(repo) == 0


def test_stops_at_a_version(repo: Repo, pg: Database, admin: Admin) -> None:
    """An installation shared with an older Oban stays at that one's version."""
    assert migrate(repo, version=11) == 11
    assert migrate(repo, version=11) == 11

    assert "oban_jobs_notify" in {row[0] for row in describe(admin, pg.prefix)["code"]}


@pytest.mark.parametrize("version", [-1, 15, "13", 13.0, True])
def test_unknown_version(repo: Repo, version: Any) -> None:
    """What is no version, or one that nobody has made yet, can't be asked for."""
    for change, lowest in ((migrate, 1), (rollback, 0)):
        expected = f"'version': expected an integer from {lowest} to 14, got: {version!r}"
        with pytest.raises(ConfigError, match=re.escape(expected)):
            change(repo, version=version)


def test_repeated(repo: Repo, pg: Database, admin: Admin) -> None:
    """Nothing changes when it is done again."""
    migrate(repo)
    before = describe(admin, pg.prefix)

    assert migrate(repo) == 14

    assert describe(admin, pg.prefix) == before


@pytest.mark.parametrize("version", [None, *VERSIONS])
def test_at_the_same_time(
    pg: Database, admin: Admin, caplog: pytest.LogCaptureFixture, version: int | None
) -> None:
    """Several processes that start together all find the tables ready."""
    if version is not None:
        install(admin, pg.prefix, version)

    def start(_: int) -> int:
        with opened_on(pg) as repo:
            return migrate(repo)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(start, range(4))) == [14] * 4

    assert STAGING in describe(admin, pg.prefix)["indexes"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("prefix", ["Capital", "select", "_x9"])
def test_any_prefix(pg: Database, admin: Admin, prefix: str) -> None:
    """A schema's name that SQL knows otherwise is as good as any."""
    database = Database(pg.kind, pg.url, prefix)
    try:
        with opened_on(database) as repo:
            assert migrate(repo) == 14
            assert migrate(repo, elixir_indexes=True) == 14
            assert repo.verify().staging_index
            assert rollback(repo, version=7) == 7
            assert rollback(repo) == 0
    finally:
        run(admin, "DROP SCHEMA IF EXISTS {} CASCADE", prefix)


@pytest.mark.parametrize("table", ["oban_jobs", "oban_actors_producers"])
def test_newer_schema(repo: Repo, pg: Database, admin: Admin, table: str) -> None:
    """Tables of a future version are refused and left as they are."""
    migrate(repo)
    run(admin, "COMMENT ON TABLE {}.{} IS '15'", pg.prefix, table)
    before = describe(admin, pg.prefix)

    for change in (migrate, rollback):
        with pytest.raises(SchemaTooNew) as caught:
            change(repo)
        assert caught.value.found == 15

    assert describe(admin, pg.prefix) == before


def test_external(repo: Repo, pg: Database, admin: Admin) -> None:
    """Jobs tables that somebody else looks after are left alone; ours come beside them."""
    install(admin, pg.prefix, 14)
    run(admin, "COMMENT ON TABLE {}.oban_jobs IS '∞'", pg.prefix)
    before = describe(admin, pg.prefix)

    assert migrate(repo, elixir_indexes=True) == EXTERNAL

    after = describe(admin, pg.prefix)
    assert ("oban_jobs", "p", "∞") in after["tables"]
    assert [row for row in after["indexes"] if "oban_jobs" in row[1]] == [
        row for row in before["indexes"] if "oban_jobs" in row[1]
    ]
    assert repo.verify().producers
    assert rollback(repo, version=13) == EXTERNAL
    assert describe(admin, pg.prefix) == after
    assert rollback(repo) == EXTERNAL
    assert describe(admin, pg.prefix) == before


def test_going_back_keeps_nobody_waiting_for_long(
    repo: Repo, pg: Database, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a table is waited behind, so it waits no longer than `migrate` does."""
    migrate(repo)
    waits: list[object] = []
    step = migrator._run

    def looking(connection: Any, *more: Any) -> None:
        waits.append(connection.exec_driver_sql("SHOW lock_timeout").scalar())
        step(connection, *more)

    monkeypatch.setattr(migrator, "_run", looking)
    assert rollback(repo, version=12) == 12
    assert set(waits) == {"5s"}


def test_comment_that_is_no_version(repo: Repo, pg: Database, admin: Admin) -> None:
    """Somebody's own words on the table stop the migration before it does harm."""
    install(admin, pg.prefix, 13)
    run(admin, "COMMENT ON TABLE {}.oban_jobs IS 'our jobs'", pg.prefix)

    with pytest.raises(DatabaseError, match="our jobs"):
        migrate(repo)


def test_lost_comment(repo: Repo, pg: Database, admin: Admin) -> None:
    """Restored without its comment, a database goes through all steps again."""
    migrate(repo)
    newest = describe(admin, pg.prefix)
    run(admin, "COMMENT ON TABLE {}.oban_jobs IS NULL", pg.prefix)

    assert migrate(repo) == 14

    again = describe(admin, pg.prefix)
    assert without_gin(again) == newest


def test_failed_migration_changes_nothing(repo: Repo, pg: Database, admin: Admin) -> None:
    """A step that fails takes all others back."""
    install(admin, pg.prefix, 11)
    run(admin, "ALTER TYPE {}.oban_job_state RENAME TO renamed", pg.prefix)
    before = describe(admin, pg.prefix)

    with pytest.raises(DatabaseError):
        migrate(repo)

    assert describe(admin, pg.prefix) == before


@pytest.mark.parametrize("index", INDEXES)
def test_invalid_index_is_replaced(repo: Repo, pg: Database, admin: Admin, index: str) -> None:
    """An index that a killed migration left half built is built anew."""
    migrate(repo)
    admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        [f"{pg.prefix}.{index}"],
    )
    assert repo.verify().indexes[index] is False

    migrate(repo)

    assert repo.verify().indexes[index] is True


def test_from_our_first_version(repo: Repo, pg: Database, admin: Admin) -> None:
    """Tables of our own first version get the indexes for unique jobs, and are the same then."""
    migrate(repo)
    newest = describe(admin, pg.prefix)
    for index in INDEXES:
        run(admin, "DROP INDEX {}.{}", pg.prefix, index)
    run(admin, "COMMENT ON TABLE {}.oban_actors_producers IS '1'", pg.prefix)

    assert migrate(repo) == 14

    assert describe(admin, pg.prefix) == newest


def test_verify(repo: Repo, pg: Database, admin: Admin) -> None:
    """Starting needs the jobs table and the columns that are used, no certain version."""
    with pytest.raises(SchemaMissing, match=r"call oban\.migrate\(\) first"):
        repo.verify()
    install(admin, pg.prefix, 11)
    facts = repo.verify()
    assert (facts.version, facts.peers, facts.producers) == (11, True, False)
    run(admin, "DROP TABLE {}.oban_peers", pg.prefix)
    assert repo.verify().peers is False

    run(admin, "ALTER TABLE {}.oban_jobs DROP COLUMN meta", pg.prefix)

    with pytest.raises(SchemaMissing, match="no column meta"):
        repo.verify()
