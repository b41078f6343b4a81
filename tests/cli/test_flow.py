"""A day with the command line, as a user has it: the installed script, on each database."""

from typing import Any

import pytest

from oban_actors import __version__
from tests.cli.commands import WORKERS, Done, command
from tests.support.databases import Database
from tests.support.instances import Tables

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_a_day(database: Database) -> None:
    """Tables are made, jobs inserted, looked at, changed and deleted, and the tables dropped."""

    def run(*words: str, **terms: Any) -> Done:
        return command(*words, database=database, **terms)

    newest = 14 if database.kind == "postgresql" else 1
    assert run("migrate", "--json").json == {"before": 0, "version": newest}
    assert run("migrate").out == f"the tables have version {newest}\n"

    first = run("enqueue", "tests.cli.tell", '{"to": "ann"}', "--import", WORKERS, "--json").json
    assert (first["queue"], first["max_attempts"], first["tags"]) == ("alpha", 5, ["told"])
    later = run(
        *("enqueue", "other.Worker", "-", "--queue", "beta", "--schedule-in", "5m", "--tag", "x"),
        text='{"n": 1}',
    )
    assert later.out.startswith(f"job {first['id'] + 1} is scheduled in queue beta, due 20")

    listed = run("jobs", "list", "--json").json["jobs"]
    assert [job["args"] for job in listed] == [{"n": 1}, {"to": "ann"}]
    assert "other.Worker" in run("jobs", "list", "--queue", "beta").out
    shown = run("--json", "jobs", "show", str(first["id"])).json
    assert shown == {name: value for name, value in first.items() if name != "conflict"}

    queues = {each["queue"]: each for each in run("queues", "--json").json["queues"]}
    assert queues["alpha"]["states"]["available"] == 1
    assert queues["alpha"]["oldest_available_seconds"] > 0
    assert queues["beta"]["oldest_available_seconds"] is None

    assert run("jobs", "cancel", "--tag", "x", "--yes").out == "1 of 1 jobs cancelled\n"
    assert run("jobs", "retry", str(first["id"] + 1)).code == 0
    assert run("jobs", "delete", "--all", "--yes", "--json").json == {
        "action": "delete",
        "chosen": 2,
        "changed": 2,
        "unchanged": [],
    }
    assert Tables(database).states() == {}

    assert run("rollback").code == 2
    assert run("rollback", "--yes").out == "the tables are gone\n"
    again = run("jobs", "list")
    assert again.code == 4
    assert again.err.endswith(" (oban-actors migrate makes the tables)\n")
    assert again.err.count("\n") == 1


def test_help_teaches_and_the_version_is_told() -> None:
    """Also as `python -m oban_actors`; every command has an example."""
    assert command("--version").out == f"oban-actors, version {__version__}\n"
    told = command("--help")
    assert told.code == 0
    assert "First steps:" in told.out
    assert "oban-actors migrate" in told.out
