"""Thousands of jobs: what they cost, and who is told of them."""

from datetime import datetime
from types import MappingProxyType

import pytest
import sqlalchemy as sa

from oban_actors import Job, Notify, Oban
from oban_actors.errors import InvalidJob
from oban_actors.inserting import FEW
from tests.support.instances import Starter, available
from tests.support.waiting import wait_until

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
    """They cost as many statements as hundreds do, and only one of them inserts."""
    oban = start_oban.make()

    few = statements(oban, [*[available()] * 2 * FEW, Job.new(worker="w", schedule_in=60)])
    many = [available(f"q{n % 9}") for n in range(COUNT)]
    many[7] = Job.new(worker="w", schedule_in=60)
    said = statements(oban, many)

    assert len([one for one in said if "INSERT INTO" in one and "oban_jobs" in one]) == 1
    assert len(said) == len(few)
    assert start_oban.tables.count("available") == COUNT + 2 * FEW - 1


def test_one_that_is_there_already(start_oban: Starter) -> None:
    """A job that came from the table, with its state and its claim, is not inserted again."""
    oban = start_oban.make()
    job = oban.insert(available())
    refused = f"job {job.id} is in a table already: use retry_job, or build another by Job.new"
    with pytest.raises(InvalidJob, match=refused):
        oban.insert(job)
    with pytest.raises(InvalidJob, match=refused):
        oban.insert_all(iter([available(), job]))
    assert start_oban.tables.states() == {job.id: "available"}


def test_a_mapping_set_by_hand(start_oban: Starter) -> None:
    """What is no dict is stored as the object that it stands for."""
    oban = start_oban.make()
    job = available()
    job.args = {"deep": MappingProxyType({"a": 1})}
    job.meta = MappingProxyType({"b": 2})  # type: ignore[assignment]  # what it is about
    stored = oban.get_job(oban.insert(job).id or 0)
    assert stored is not None
    assert (stored.args, stored.meta) == ({"deep": {"a": 1}}, {"b": 2})


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


def test_nobody_is_told_where_nobody_is_to_be(start_oban: Starter) -> None:
    """Without `insert_notify` neither one job nor many, however they are sent, tell anybody."""
    oban = start_oban(stager=None, insert_notify=False)
    heard = start_oban.hear(oban, "insert", "actors")

    oban.insert(available())
    oban.insert_all([available("b"), Job.new(worker="w", tags=["a"], schedule_in=0.5)])

    oban.ask("notifier", Notify("insert", ({"queue": "marker"},)), timeout=30)
    assert heard.wait_for("insert") == [{"queue": "marker"}]
    assert [told for told in heard.payloads("actors") if "due" in told] == []


def test_the_leader_is_told_of_the_first_that_is_due(start_oban: Starter) -> None:
    """Of many that are due soon the first one counts; of later ones nobody is told."""
    oban = start_oban(stager=None)
    heard = start_oban.hear(oban, "actors")

    oban.insert(Job.new(worker="w", schedule_in=3600))
    jobs = oban.insert_all([Job.new(worker="w", schedule_in=n) for n in (0.9, 0.2, 3600, 0.5)])

    told = wait_until(lambda: [each for each in heard.payloads("actors") if "due" in each])
    assert jobs[1].scheduled_at is not None
    assert [datetime.fromisoformat(each["due"]) for each in told] == [jobs[1].scheduled_at]
