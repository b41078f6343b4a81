"""Rows that no writer of ours makes, each column at its extremes: all others go on beside them."""

import logging
import re
from collections.abc import Mapping

import pytest

from oban_actors import InvalidJob, Oban, Prune, Rescue
from oban_actors.metrics.ages import find_ages
from oban_actors.plugins import Lifeline, Pruner
from tests.queues.work import Work, claims, crashes, jobs
from tests.support.instances import Starter
from tests.support.waiting import wait_until

MOMENTS = (
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "discarded_at",
    "cancelled_at",
)
STATES = ("available", "scheduled", "executing", "completed", "cancelled", "discarded")

POSTGRES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        MOMENTS,
        ("'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999'", "'0001-01-01 BC'"),
    ),
    "queue": ("''", "repeat('q', 9000)", "E'a\\x01\\n''\"\\\\'", "'*'", "NULL"),
    "attempt": ("-2147483648", "-1", "2147483647", "NULL"),
    "max_attempts": ("-2147483648", "0", "2147483647", "NULL"),
    "attempt, max_attempts": ("5, 3", "2147483647, 2147483647", "2147483646, 2147483647"),
    "priority": ("-2147483648", "2147483647", "NULL"),
    "worker": ("''", "repeat('w', 9000)", "E'\\x01\\n'", "NULL"),
    "args": ("NULL", "'[]'", "'null'"),
    "meta": ("NULL", "'[]'"),
    "tags": ("NULL", "ARRAY[NULL]::text[]", "'[5:6]={a,b}'"),
    "errors": ("NULL", "ARRAY[NULL]::jsonb[]", "array_fill('{}'::jsonb, ARRAY[2, 2])"),
    "attempted_by": ("NULL", "ARRAY[NULL]::text[]", "ARRAY['a', E'\\n''\"']", "'[5:6]={a,b}'"),
    "id": ("-9223372036854775808", "9223372036854775807"),
}
NO_TEXT = "cast(x'ff' AS TEXT)"
ODD = ("''", "x'ff'", NO_TEXT, "1e999", "'x'")
SQLITE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        MOMENTS,
        (
            *ODD,
            "'-0001-01-01T00:00:00Z'",
            "'0001-01-01T00:00:00+02:00'",
            "'294276-12-31'",
            "-1e999",
        ),
    ),
    "queue": (*ODD, "printf('%.*c', 9000, 'q')", "char(1, 10) || '''\"'", "'*'", "'a' || char(0)"),
    "attempt": (*ODD, "-9223372036854775808", "-1", "9223372036854775807"),
    "max_attempts": (*ODD, "-9223372036854775808", "0", "9223372036854775807"),
    "attempt, max_attempts": ("5, 3", "9223372036854775807, 9223372036854775807", "'z', 'zz'"),
    "priority": (*ODD, "-9223372036854775808", "9223372036854775807"),
    "worker": (*ODD, "char(1, 10)", "'a' || char(0)"),
    **dict.fromkeys(
        ("args", "meta", "tags", "errors", "attempted_by"),
        (*ODD, "'null'", "'{'", "'[1, {}]'", '\'["a", "\\ud800"]\''),
    ),
    # After the largest one SQLite has no other.
    "id": ("-9223372036854775808", "0"),
}
CHECKS = (
    "attempt_range",
    "positive_max_attempts",
    "queue_length",
    "worker_length",
    "non_negative_priority",
)
NOT_NULL = (
    "queue",
    "worker",
    "args",
    "errors",
    "attempt",
    "max_attempts",
    "priority",
)


@pytest.fixture
def hostile(start_oban: Starter, work: Work) -> Starter:
    """A table without checks, in which every column has had every value in every state."""
    start_oban.make()
    postgres = start_oban.database.kind == "postgresql"
    old, by = "'2020-01-01T00:00:00Z'", '\'["n", "u"]\''
    if postgres:
        old, by = "'2020-01-01'", "ARRAY['n', 'u']"
        dropped = [f"DROP CONSTRAINT {check}" for check in CHECKS]
        dropped += [f"ALTER {column} DROP NOT NULL" for column in NOT_NULL]
        start_oban.tables.execute(f"ALTER TABLE {{jobs}} {', '.join(dropped)}")
    usual = dict.fromkeys(("inserted_at", "scheduled_at", "attempted_at"), old)
    usual |= {"worker": "'w'", "queue": "'alpha'", "attempt": "0", "max_attempts": "1"}
    usual |= {"attempted_by": by}
    with start_oban.tables.engine.begin() as connection:
        for columns, all_values in (POSTGRES if postgres else SQLITE).items():
            for values in all_values:
                for state in STATES if columns != "id" else STATES[:1]:
                    plain = {k: v for k, v in usual.items() if k not in columns.split(", ")}
                    names = ", ".join(["state", columns, *plain])
                    held = ", ".join([f"'{state}'", values, *plain.values()])
                    statement = f"INSERT INTO {start_oban.tables.jobs} ({names}) VALUES ({held})"
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return start_oban


def ids_of(start: Starter) -> list[int]:
    """All ids that are there."""
    return [row[0] for row in start.tables.execute("SELECT id FROM {jobs}")]


def read_each(oban: Oban, ids: list[int]) -> set[int]:
    """Read jobs one by one, and give the ids of those that can't be; each error names its row."""
    unreadable = set()
    for job_id in ids:
        try:
            found = oban.get_job(job_id)
        except InvalidJob as error:
            named = re.match(r"job (-?\d+) can't be read: ", str(error))
            unreadable.add(int(named[1]) if named else 0)
        else:
            assert found is not None
            assert found.id == job_id
    assert unreadable <= set(ids)
    return unreadable


def test_all_others_run(hostile: Starter, caplog: pytest.LogCaptureFixture) -> None:
    """What can't run is discarded with the reason or passed over, and no actor crashes."""
    with caplog.at_level(logging.WARNING, "oban_actors"):
        plugins = [Pruner(max_age=60), Lifeline()]
        grace = {"shutdown_grace_period": 0.2}
        oban = hostile.leading(queues={"alpha": 20}, plugins=plugins, **grace)
        made = oban.insert_all(jobs("sync", 20, priority=9))

        def done() -> bool:
            rows = hostile.tables.execute(
                "SELECT count(*) FROM {jobs} WHERE state = 'completed' AND worker = :worker",
                worker=made[0].worker,
            )
            return bool(rows[0][0] == len(made))

        wait_until(done, 120, "all others are completed")
        for name, message in (("pruner", Prune()), ("lifeline", Rescue())):
            result = oban.ask(("plugin", name), message, timeout=120)
            assert result.error is None, name
        wait_until(
            lambda: all(node.state == "idle" for node in oban.tree().walk()), message="all at rest"
        )
        assert crashes(oban) == []
    assert "can't be read, so it can't run" in caplog.text


def test_each_can_be_read_or_is_named(hostile: Starter) -> None:
    """Whoever reads one, or all of them, is told which can't be; all others are given."""
    oban = hostile.make()
    ids = ids_of(hostile)
    unreadable = read_each(oban, ids)

    assert 0 < len(unreadable) < len(ids)
    with pytest.raises(InvalidJob, match=r"^job -?\d+ can't be read: "):
        oban.all_jobs()
    there = {job.id for job in oban.all_jobs(skip_unreadable=True)}
    assert there == set(ids) - unreadable
    ages = oban.repo.transaction(
        lambda connection: find_ages(connection, oban.repo), read_only=True, lenient=True
    )
    assert "alpha" in ages
    assert all(isinstance(queue, str) for queue in ages)


def test_all_can_be_changed(hostile: Starter) -> None:
    """Calls for many jobs change those in their states, and fail at none."""
    oban = hostile.make()
    assert oban.cancel_all_jobs(everything=True) > 0
    assert oban.retry_all_jobs(everything=True) > 0
    assert set(hostile.tables.states().values()) == {"available"}
    assert oban.delete_all_jobs(everything=True) > 0
    assert ids_of(hostile) == []


def test_an_end_is_settled_beside_an_error_that_is_no_text(
    start_sqlite: Starter, work: Work
) -> None:
    """What somebody wrote into a row of ours while it ran keeps no other end from being written."""
    oban = start_sqlite(queues={"alpha": 2}, stager=None)
    oban.insert(jobs("sync", 1, "wait")[0])
    wait_until(lambda: work.inside == 1)
    start_sqlite.tables.execute(
        f"UPDATE {{jobs}} SET state = 'cancelled', errors = replace('[\"!\"]', '!', {NO_TEXT})"
    )
    work.open()
    wait_until(lambda: claims(oban) == {})
    oban.insert(jobs("sync", 1)[0])

    wait_until(lambda: sorted(start_sqlite.tables.states().values()) == ["cancelled", "completed"])
