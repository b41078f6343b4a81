"""SQLite's tables: from nothing, or from a file that Elixir's Lite engine made."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from oban_actors.engines import SqliteEngine
from oban_actors.errors import SchemaMissing, SchemaTooNew
from oban_actors.repo.migrator import OWN_VERSION, migrate, migrated_version, rollback
from tests.migrations.elixir import install_lite
from tests.repo.opening import opened_on
from tests.support.databases import Database

TABLES = {
    "oban_actors_crons",
    "oban_actors_meta",
    "oban_actors_notifications",
    "oban_actors_producers",
    "oban_jobs",
    "oban_peers",
}


def tables(path: Path) -> set[str]:
    """Name the tables of a file."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return {name for (name,) in rows} - {"sqlite_sequence"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the `sqlite` fixture's file is."""
    return tmp_path / "jobs.db"


def test_from_nothing_and_back(sqlite: Database, path: Path) -> None:
    """All tables come, as often as asked for, and go."""
    with opened_on(sqlite) as repo:
        with pytest.raises(SchemaMissing, match=r"oban\.migrate\(\)"):
            repo.verify()
        assert migrate(repo) == 1
        assert migrate(repo) == 1
        facts = repo.verify()
        assert (facts.peers, facts.producers, facts.staging_index) == (True, True, True)
        assert tables(path) == TABLES

        assert rollback(repo) == 0
        assert rollback(repo) == 0
        assert migrated_version(repo) == 0
        assert tables(path) == set()


def test_same_as_elixir(sqlite: Database, path: Path, tmp_path: Path) -> None:
    """The jobs table has the columns and the index that Elixir's has."""
    theirs = tmp_path / "theirs.db"
    install_lite(str(theirs))
    with opened_on(sqlite) as repo:
        migrate(repo)

    def described(file: Path) -> list[object]:
        connection = sqlite3.connect(file)
        found: list[object] = []
        for row in connection.execute("PRAGMA table_info(oban_jobs)"):
            _, name, kind, required, default, key = row
            found.append((name, kind, required, default and default.strip("()"), key))
        index = "PRAGMA index_info(oban_jobs_state_queue_priority_scheduled_at_id_index)"
        found += connection.execute(index).fetchall()
        connection.close()
        return found

    assert described(path) == described(theirs)


def test_from_elixir(sqlite: Database, path: Path) -> None:
    """A file that Elixir made gets the rest, and its jobs can be read and staged."""
    install_lite(str(path))
    engine = SqliteEngine()
    with opened_on(sqlite) as repo:
        assert migrated_version(repo) == 1
        assert migrate(repo) == 1
        plain, failed = (repo.transaction(partial(engine.get_job, job_id=i)) for i in (1, 2))
        done = repo.transaction(lambda c: engine.stage_jobs(c, 10, None, []))
        mode = repo.transaction(lambda c: c.execute(text("PRAGMA journal_mode")).scalar())

    assert tables(path) == TABLES
    assert plain is not None
    assert (plain.worker, plain.args, plain.state) == ("MyApp.Plain", {"id": 1}, "available")
    assert failed is not None
    assert failed.errors[0]["error"] == "boom"
    assert (failed.tags, failed.attempted_by) == (["a", "b"], ["web.1"])
    assert [(job.id, job.state) for job in done.jobs] == [(2, "retryable")]
    assert mode == "wal"


def test_from_our_first_version(sqlite: Database, path: Path) -> None:
    """A file of our own first version can't be used until it has the index for unique jobs."""
    with opened_on(sqlite) as repo:
        migrate(repo)
        connection = sqlite3.connect(path)
        connection.execute("DROP INDEX oban_actors_unique_index")
        connection.execute("UPDATE oban_actors_meta SET value = '1'")
        connection.commit()
        connection.close()
        with pytest.raises(SchemaMissing, match="oban_actors_unique_index"):
            repo.verify()

        migrate(repo)

        assert repo.verify().own_version == OWN_VERSION


def test_newer_file(sqlite: Database) -> None:
    """Tables of ours from a future version are refused."""
    with opened_on(sqlite) as repo:
        migrate(repo)
        newer = text("UPDATE oban_actors_meta SET value = '4'")
        repo.transaction(lambda connection: connection.execute(newer))

        with pytest.raises(SchemaTooNew):
            migrate(repo)


def test_at_the_same_time(sqlite: Database, path: Path) -> None:
    """Several processes that start together all find the tables ready."""

    def start(_: int) -> int:
        with opened_on(sqlite) as repo:
            return migrate(repo)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(start, range(4))) == [1] * 4

    assert tables(path) == TABLES
