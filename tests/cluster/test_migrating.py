"""Processes that migrate one database at the same time, as a deployment of several nodes does."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from oban_actors import Oban
from oban_actors.repo import schema
from oban_actors.repo.migrator import OWN_VERSION
from tests.support.databases import Database
from tests.support.instances import scheduled

pytestmark = pytest.mark.slow

NEWEST = {"postgresql": "14", "sqlite": "1"}


@contextmanager
def ready(database: Database, count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Give processes that only wait for a word."""
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.cluster.migrating",
        database.url,
        database.prefix,
    ]
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_migrate_at_once(database: Database, count: int) -> None:
    """Each finds the tables at the newest version, made once; and they work."""
    with ready(database, count) as processes:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=90)[0].strip() for process in processes]
        assert [process.returncode for process in processes] == [0] * count
    assert said == [NEWEST[database.kind]] * count

    oban = Oban(database.url, prefix=database.prefix)
    facts = oban.repo.transaction(lambda c: schema.inspect(c, database.prefix), read_only=True)
    assert str(facts.version) == NEWEST[database.kind]
    assert facts.own_version == OWN_VERSION
    assert facts.staging_index is True
    job = oban.insert(scheduled(60))
    assert oban.get_job(job.id or 0) is not None
    oban.repo.close()
