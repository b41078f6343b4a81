"""What each command does and says."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
import sqlalchemy as sa

from oban_actors import Beat, Job
from oban_actors.cli.app import app
from oban_actors.cli.job_view import FIELDS
from tests.cli.commands import SCRIPT, environment
from tests.cli.conftest import Cli
from tests.support.databases import Database
from tests.support.instances import Starter
from tests.support.waiting import wait_until

HOSTILE = "evil\x1b[31m\x07\r\u202e[bold red]w[/]:smile:"
"""What a terminal, a reader or a markup language might obey."""


@pytest.fixture
def tables(start_oban: Starter) -> Starter:
    """The tables are there, and an instance that inserts: `tables.make()`."""
    start_oban.make()
    return start_oban


def insert(start: Starter, count: int = 1, **options: Any) -> list[int]:
    """Insert jobs beside the command."""
    made = {"worker": "w", "queue": "alpha", **options}
    oban = start.make()
    return [job.id or 0 for job in oban.insert_all([Job.new(**made) for _ in range(count)])]


# enqueue


def test_enqueue_takes_what_a_job_can_be_told(cli: Cli, tables: Starter) -> None:
    """Every option reaches the row."""
    done = cli(
        *("enqueue", "shop.W", '{"a": [1]}', "--queue", "q", "--at", "2099-01-31T09:00:00+01:00"),
        *("--priority", "3", "--max-attempts", "7", "--tag", "A", "--tag", "b"),
        *("--meta", '{"m": 1}', "--json"),
    )

    assert done.code == 0
    job = tables.make().get_job(done.json["id"])
    assert job is not None
    assert (job.worker, job.args, job.queue, job.priority) == ("shop.W", {"a": [1]}, "q", 3)
    assert (job.max_attempts, job.tags, job.meta) == (7, ["a", "b"], {"m": 1})
    assert job.scheduled_at == datetime(2099, 1, 31, 8, tzinfo=UTC)
    assert tuple(done.json) == (*FIELDS, "conflict")


@pytest.mark.parametrize(
    ("given", "seconds"), [("90", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), ("-5s", -5)]
)
def test_enqueue_takes_times_with_units(
    cli: Cli, tables: Starter, given: str, seconds: float
) -> None:
    """The database's clock counts from the insert."""
    job = cli("enqueue", "w", f"--schedule-in={given}", "--json").json
    due, now = (datetime.fromisoformat(job[name]) for name in ("scheduled_at", "inserted_at"))

    assert abs(due - now - timedelta(seconds=seconds)) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("w", "{"), "error: args: no valid JSON: Expecting property name enclosed in"),
        (("w", "[1]"), "error: args: expected a JSON object, such as '{\"id\": 1}'; see"),
        (("w", "--priority", "10"), "error: invalid value for 'priority': expected an integer"),
        (("w", "--schedule-in", "soon"), "error: Invalid value for '--schedule-in': expected sec"),
        (("w", "--at", "2030-01-01"), "error: Invalid value for '--at': expected a moment with"),
        (("w", "--at", "never"), "error: Invalid value for '--at': expected a moment with its"),
        (("w" * 128,), "error: invalid value for 'worker': expected a non-blank string of at"),
        (("w", "--queue", "*"), "error: invalid value for 'queue': expected another name than '*'"),
        (("w", "--import", "no.such"), "error: imports: module 'no.such' can't be imported: (M"),
        ((), "error: Missing argument 'WORKER'"),
    ],
)
def test_enqueue_refuses_in_one_line(
    cli: Cli, tables: Starter, words: tuple[str, ...], message: str
) -> None:
    """Exit code 2, and nothing is inserted."""
    done = cli("enqueue", *words)

    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith(message)
    assert done.err.count("\n") == 1
    assert tables.tables.states() == {}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_args_that_are_no_text(tables: Starter, database: Database) -> None:
    """Bytes on stdin that its encoding has no characters for are a mistake of the caller's."""
    done = subprocess.run(
        [SCRIPT, "enqueue", "w", "-"],
        input=b'{"x": "\xff"}',
        capture_output=True,
        check=False,
        timeout=120,
        env=environment(database, {"PYTHONIOENCODING": "utf-8"}),
    )

    assert done.returncode == 2
    assert done.stderr.startswith(b"error: args: stdin is no utf-8")
    assert tables.tables.states() == {}


# jobs


def test_list_filters(cli: Cli, tables: Starter) -> None:
    """By state, queue, worker and tags, each of them with several; the newest first."""
    first, second = insert(tables, 2, tags=["a", "b"])
    (third,) = insert(tables, queue="beta", tags=["a"])
    (fourth,) = insert(tables, worker="other", schedule_in=60)

    def ids(*words: str) -> list[int]:
        return [job["id"] for job in cli("jobs", "list", "--json", *words).json["jobs"]]

    assert ids() == [fourth, third, second, first]
    assert ids("--state", "scheduled", "--state", "executing") == [fourth]
    assert ids("--queue", "beta") == [third]
    assert ids("--queue", "beta", "--queue", "alpha", "--worker", "w") == [third, second, first]
    assert ids("--tag", "a", "--tag", "b") == [second, first]
    assert ids("--limit", "1") == [fourth]
    assert "there may be more" in cli("jobs", "list", "--limit", "1").err
    wrong = cli("jobs", "list", "--state", "done")
    assert wrong.code == 2
    assert "'done' is not one of 'available'" in wrong.err


def test_show_names_its_errors(cli: Cli, tables: Starter) -> None:
    """All of them, with their lines; a job that is not there is exit code 1."""
    (job_id,) = insert(tables)
    errors = [{"at": "2030", "attempt": 1, "error": "** (ValueError) no\n  f.py:1: in x"}]
    oban = tables.make()
    with oban.repo.engine.begin() as connection:
        values = {"errors": errors, "state": "retryable"}
        connection.execute(sa.update(oban.jobs).where(oban.jobs.c.id == job_id).values(values))
    shown = cli("jobs", "show", str(job_id)).out

    assert "attempt 1 at 2030:\n  ** (ValueError) no\n    f.py:1: in x\n" in shown
    assert cli("jobs", "show", str(job_id), "--json").json["errors"] == errors
    gone = cli("jobs", "show", "999")
    assert (gone.code, gone.err) == (
        1,
        "error: there is no job 999\n",
    )


def test_named_jobs_are_changed_at_once(cli: Cli, tables: Starter) -> None:
    """Those that can't be are named, and the exit code says so."""
    first, second = insert(tables, 2)

    assert cli("jobs", "cancel", str(first)).out == "1 of 1 jobs cancelled\n"
    again = cli("jobs", "cancel", str(first), str(second), "--json")
    assert again.code == 1
    assert again.json == {"action": "cancel", "chosen": 2, "changed": 1, "unchanged": [first]}
    assert again.err == f"job {first} was not cancelled: not there, or not in a state for it\n"
    assert cli("jobs", "retry", str(first)).code == 0
    assert cli("jobs", "delete", str(first), str(second)).code == 0
    assert tables.tables.states() == {}


def test_many_jobs_are_changed_in_steps(cli: Cli, tables: Starter) -> None:
    """More than one transaction takes; those that were not chosen stay."""
    insert(tables, 2_500)
    (other,) = insert(tables, queue="beta")
    done = cli("jobs", "delete", "--queue", "alpha", "--yes", "--json")

    assert done.json == {"action": "delete", "chosen": 2500, "changed": 2500, "unchanged": []}
    assert tables.tables.states() == {other: "available"}


def test_a_limit_takes_the_oldest(cli: Cli, tables: Starter) -> None:
    """So many at most, by their ids."""
    first, second, third = insert(tables, 3)
    done = cli("jobs", "cancel", "--state", "available", "--limit", "2", "--yes")

    assert done.out == "2 of 2 jobs cancelled\n"
    expected = {first: "cancelled", second: "cancelled", third: "available"}
    assert tables.tables.states() == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--queue", "alpha"), "this needs --yes where nobody can be asked"),
        ((), "say which jobs: ids, filters, or --all"),
        (("1", "--queue", "alpha"), "give either ids or filters"),
        (("1", "--all"), "give either ids or filters"),
        (("x",), "Invalid value for '[ID]...': 'x' is not a valid integer"),
    ],
)
def test_what_is_not_clear_changes_nothing(
    cli: Cli, tables: Starter, words: tuple[str, ...], message: str
) -> None:
    """Exit code 2."""
    (job_id,) = insert(tables)
    done = cli("jobs", "delete", *words)

    assert (done.code, done.err) == (2, f"error: {message}; see oban-actors jobs delete --help\n")
    assert tables.tables.states() == {job_id: "available"}


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 1, 2), ("", 130, 2)])
def test_many_jobs_are_changed_after_a_question(
    cli: Cli, tables: Starter, shell: pytest.MonkeyPatch, answer: str, code: int, left: int
) -> None:
    """Who is asked sees how many; whatever is not yes is no."""
    insert(tables, 2)
    shell.setattr("oban_actors.cli.tables._can_ask", lambda: True)
    done = cli("jobs", "delete", "--queue", "alpha", text=answer)

    assert "Delete 2 jobs (queue alpha)? [y/N]" in done.err
    assert done.code == code
    assert len(tables.tables.states()) == left


@pytest.mark.db
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_locked_jobs_are_told(cli: Cli, tables: Starter, shell: pytest.MonkeyPatch) -> None:
    """All others are changed; the exit code says that some were not."""
    first, second = insert(tables, 2)
    shell.setenv("OBAN_LOCK_TIMEOUT", "0.1")
    with tables.tables.engine.begin() as connection:
        tables.tables.on(connection, "SELECT id FROM {jobs} WHERE id = :id FOR UPDATE", id=first)
        chosen = cli("jobs", "cancel", "--queue", "alpha", "--yes", "--json")
        named = cli("jobs", "cancel", str(first), "--json")

    assert (chosen.code, named.code) == (1, 1)
    assert chosen.json == {"action": "cancel", "chosen": 2, "changed": 1, "unchanged": [first]}
    assert "locked by another transaction" in named.err
    assert tables.tables.states() == {first: "available", second: "cancelled"}


# queues


def test_queues_show_who_runs_them(cli: Cli, tables: Starter) -> None:
    """Producers that live, with what they have; one that said nothing for a minute is dead."""
    (job_id,) = insert(tables, queue="lonely")
    oban = tables(queues={"alpha": 7}, node="web1", stager=None)
    oban.ask("pulse", Beat(), timeout=30)
    tables.tables.execute("UPDATE {jobs} SET state = 'completed' WHERE id = :id", id=job_id)

    def queue(name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = cli("queues", "--json").json["queues"]
        return next(each for each in found if each["queue"] == name)

    assert queue("lonely")["states"]["completed"] == 1
    assert queue("lonely")["producers"] == []
    (producer,) = queue("alpha")["producers"]
    assert (producer["node"], producer["limit"], producer["paused"]) == ("web1", 7, False)
    assert producer["living"] is True
    old = (
        "timestamp '2000-01-01'"
        if tables.database.kind == "postgresql"
        else "'2000-01-01T00:00:00Z'"
    )
    table = tables.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    oban.stop()
    insert_dead = (
        f"INSERT INTO {table} (uuid, identity, name, node, queue, queue_limit, beat_at) "
        f"VALUES ('u', 'i', 'Oban', 'web0', 'alpha', 3, {old})"
    )
    tables.tables.execute(insert_dead)
    (dead,) = queue("alpha")["producers"]
    assert (dead["node"], dead["living"]) == ("web0", False)
    assert cli("queues").code == 0


def test_queues_whose_names_are_no_text_are_left_out(bare: Cli, start_sqlite: Starter) -> None:
    """Columns of a file hold anything; all others are shown."""
    oban = start_sqlite(queues={"alpha": 7}, stager=None)
    oban.ask("pulse", Beat(), timeout=30)
    table = start_sqlite.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    for name in ("x'ff'", "cast(x'ff' AS TEXT)"):
        (job_id,) = insert(start_sqlite, queue="beta")
        start_sqlite.tables.execute(f"UPDATE {{jobs}} SET queue = {name} WHERE id = :id", id=job_id)
        start_sqlite.tables.execute(
            f"INSERT INTO {table} (uuid, identity, name, node, queue, queue_limit, started_at) "
            f"VALUES (:uuid, {name}, {name}, {name}, {name}, 3, {name})",
            uuid=name,
        )
    insert(start_sqlite, queue="gamma")
    given = ("--database-url", start_sqlite.database.url)
    found = bare("queues", *given, "--json")

    assert [each["queue"] for each in found.json["queues"]] == ["alpha", "gamma"]
    assert bare("queues", *given).code == 0
    assert bare("jobs", "list", *given).code == 0
    assert bare("doctor", *given, "--json").json is not None


def test_queues_are_steered(cli: Cli, tables: Starter) -> None:
    """Every node that runs one follows, or the one that is named; who was told is said."""
    oban = tables(queues={"alpha": 7}, node="web1", stager=None)
    oban.ask("pulse", Beat(), timeout=30)

    def view() -> tuple[bool, int]:
        found = oban.check_queue("alpha")
        assert found is not None
        return found.paused, found.limit

    told = cli("queue", "pause", "alpha", "--json").json
    assert told == {"action": "pause", "queue": "alpha", "node": None, "nodes": ["web1"]}
    wait_until(lambda: view() == (True, 7))
    cli("queue", "resume", "*", "--node", "web1")
    wait_until(lambda: view() == (False, 7))
    cli("queue", "scale", "alpha", "9")
    wait_until(lambda: view() == (False, 9))
    nobody = cli("queue", "pause", "alpha", "--node", "web2")
    assert nobody.out == "pause alpha: told nobody: no living node is known to run it\n"
    wrong = cli("queue", "scale", "alpha", "0")
    assert wrong.code == 2
    assert wrong.err == "error: invalid value for 'limit': expected a positive integer, got: 0\n"
    assert view() == (False, 9)


# doctor


def test_doctor_names_faults_and_what_mends_them(
    cli: Cli, tables: Starter, shell: pytest.MonkeyPatch
) -> None:
    """A healthy database is exit code 0, a fault 1, one that is away 3."""
    healthy = cli("doctor")
    assert (healthy.code, healthy.out) == (0, "No faults were found.\n"), healthy
    schema = f'"{tables.database.prefix}".' if tables.database.kind == "postgresql" else ""
    tables.tables.execute(f"DROP INDEX {schema}oban_actors_staging_index")
    broken = cli("doctor", "--json")
    (finding,) = broken.json["findings"]

    assert broken.code == 1
    assert sorted(finding) == ["code", "fix", "severity", "what"]
    assert "oban_actors_staging_index" in finding["what"]
    assert f"{finding['severity'].upper()} {finding['code']}: " in cli("doctor").out
    away = cli("doctor", "--database-url", "postgresql://u@127.0.0.1:1/x")
    assert away.code == 3


# Hostile data


def test_data_forges_nothing(cli: Cli, tables: Starter) -> None:
    """What a terminal would obey is written out; JSON has it as it is."""
    (job_id,) = insert(tables, worker=HOSTILE, queue=HOSTILE, tags=[HOSTILE], args={"a": HOSTILE})
    errors = [{"at": HOSTILE, "attempt": HOSTILE, "error": f"x\n{HOSTILE}"}]
    oban = tables.make()
    with oban.repo.engine.begin() as connection:
        connection.execute(sa.update(oban.jobs).values({"errors": errors}))

    for words in (("jobs", "list"), ("jobs", "show", str(job_id)), ("queues",)):
        said = cli(*words)
        assert said.code == 0
        assert not {c for c in said.out + said.err if not c.isprintable()} - {"\n"}
        assert "evil\\x1b[31m\\x07\\r\\u202e[bold red]w[/]:smile:" in said.out
        raw = cli(*words, "--json").out
        assert raw.isascii()
        assert json.loads(raw)
    assert cli("jobs", "show", str(job_id), "--json").json["worker"] == HOSTILE
    told = cli("queue", "pause", HOSTILE)
    assert "\x1b" not in told.out


# All of them


def test_every_command_has_an_example() -> None:
    """`--help` teaches."""

    def commands(group: click.Group) -> list[click.Command]:
        found: list[click.Command] = []
        for each in group.commands.values():
            found += commands(each) if isinstance(each, click.Group) else [each]
        return found

    for each in commands(app):
        assert each.epilog is not None, each.name
        assert "oban-actors" in each.epilog, each.name
        assert each.help, each.name
