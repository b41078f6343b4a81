"""Thousands of jobs: what they cost, and who is told of them."""

import sqlalchemy as sa

from oban_actors import Job, Notify, Oban
from tests.support.instances import Starter, available

COUNT = 3_000


def statements(oban: Oban, jobs: list[Job]) -> list[str]:
    """Insert jobs, and give the statements that did."""
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    sa.event.listen(oban.repo.engine, "before_cursor_execute", note)
    try:
        assert len(oban.insert_all(jobs)) == len(jobs)
    finally:
        sa.event.remove(oban.repo.engine, "before_cursor_execute", note)
    return said


def test_one_statement_for_thousands(start_oban: Starter) -> None:
    """They cost as many statements as two do, and only one of them inserts."""
    oban = start_oban.make()

    few = statements(oban, [available(), Job.new(worker="w", schedule_in=60)])
    many = [available(f"q{n % 9}") for n in range(COUNT)]
    many[7] = Job.new(worker="w", schedule_in=60)
    said = statements(oban, many)

    assert len([one for one in said if "INSERT INTO" in one and "oban_jobs" in one]) == 1
    assert len(said) == len(few)
    assert start_oban.tables.count("available") == COUNT


def test_each_queue_is_told_once(start_oban: Starter) -> None:
    """Of jobs that can run; of others nobody is told who could not run them yet."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "insert")

    oban.insert_all(
        [available("ab"[n % 2]) for n in range(COUNT)]
        + [Job.new(worker="w", queue="later", schedule_in=60)]
        + [Job.new(worker="w", queue="ended", state="completed")]
    )

    # Whatever had been sent would be heard before this.
    oban.ask("notifier", Notify("insert", ({"queue": "marker"},)), timeout=30)
    found = [payload["queue"] for payload in heard.wait_for("insert", 3)]
    assert found == ["a", "b", "marker"]
