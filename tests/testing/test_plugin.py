"""The pytest plugin, in test runs of a user's: fixtures on SQLite and on a given server."""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parent.parent.parent

SUITE = """
import pytest
from oban_actors import Job, worker
from oban_actors.testing import DrainCounts, assert_enqueued, refute_enqueued

RAN = []
STARTED = []

@worker(queue="mailers", name="mail")
def mail(job):
    RAN.append(job.args["to"])

def test_an_instance(oban):
    oban.insert(mail.new({"to": "ann"}))
    assert_enqueued(oban, worker=mail, args={"to": "ann"})
    assert not oban.alive
    assert oban.drain_queue("mailers") == DrainCounts(success=1)
    assert RAN == ["ann"]

def test_another_starts_empty(oban):
    refute_enqueued(oban)

def test_a_factory(make_oban, virtual_clock):
    first = make_oban(clock=virtual_clock)
    second = make_oban(clock=virtual_clock, name="Other", testing="inline")
    first.insert(mail.new({"to": "bob"}, schedule_in=60))
    assert second.insert(mail.new({"to": "cy"})).state == "completed"
    assert_enqueued(second, scheduled_in=60, delta=0)
    first.start()
    assert first.alive
    STARTED.append(first)

def test_what_was_started_is_stopped():
    assert [each.alive for each in STARTED] == [False]

def test_staging_in_virtual_time(make_oban, virtual_clock):
    oban = make_oban(testing="disabled", clock=virtual_clock, peer="isolated", notifier="isolated")
    job = oban.insert(mail.new({"to": "dee"}, schedule_in=60))
    with oban:
        from oban_actors import Stage
        oban.ask("stager", Stage(), timeout=30)
        assert oban.get_job(job.id).state == "scheduled"
        virtual_clock.advance(60)
        oban.ask("stager", Stage(), timeout=30)
        assert oban.get_job(job.id).state == "available"
"""


def run(folder: Path, suite: str, arguments: Sequence[str] = ()) -> str:
    """Run a suite as a user does, and give what pytest said."""
    (folder / "test_suite.py").write_text(suite, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "oban_actors.pytest_plugin"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-W", "error", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_the_fixtures_work_on_sqlite(tmp_path: Path) -> None:
    """Without any setting each test has a file of its own, and nothing is left open."""
    said = run(tmp_path, SUITE)

    assert "5 passed" in said, said


def test_the_fixtures_work_on_a_given_server(tmp_path: Path, pg_url: str, pg_conninfo: str) -> None:
    """With `oban_url` each test has a schema of its own there, and none is left."""
    said = run(tmp_path, SUITE, ["-o", f"oban_url={pg_url}"])

    assert "5 passed" in said, said
    with psycopg.connect(pg_conninfo) as connection:
        query = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'oban\\_test\\_%'"
        assert connection.execute(query).fetchone() == (0,)


def test_a_failure_shows_the_test_not_us(tmp_path: Path) -> None:
    """A failed assertion ends at the line of the test, with what there was instead."""
    suite = """
from oban_actors import Job
from oban_actors.testing import assert_enqueued

def test_it(oban):
    oban.insert(Job.new({"n": 1}, worker="Some"))
    assert_enqueued(oban, worker="Other")
"""
    said = run(tmp_path, suite)

    assert "1 failed" in said, said
    assert "there were:\nE           job 1, available: worker='Some'" in said, said
    assert "enqueued.py" not in said


def test_pytest_finds_the_plugin() -> None:
    """The package tells pytest of it."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    line = 'oban_actors = "oban_actors.pytest_plugin"'

    assert f"[project.entry-points.pytest11]\n{line}\n" in project
    entry = EntryPoint("oban_actors", "oban_actors.pytest_plugin", "pytest11")
    assert entry.load().__name__ == "oban_actors.pytest_plugin"


def test_the_fixtures_are_told(tmp_path: Path) -> None:
    """`pytest --fixtures` lists each with where it is from."""
    said = run(tmp_path, "", ["--fixtures"])

    for name in ("oban", "make_oban", "oban_url", "virtual_clock"):
        assert f"\n{name} -- " in said, said
