"""Rows that the database refuses to change: they stop no other job, and somebody is told."""

import logging
from collections.abc import Iterable
from typing import Any

import pytest

from oban_actors.queues import producer
from tests.queues.work import Work, jobs, view
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}

POSTGRES = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE 'not this one'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON {jobs} FOR EACH ROW
WHEN (NEW.id IN ({ids}) AND cast(NEW.state AS text) = '{state}') EXECUTE FUNCTION {schema}.refuse()
"""
SQLITE = """
CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs WHEN NEW.id IN ({ids}) AND NEW.state = '{state}'
BEGIN SELECT RAISE(ABORT, 'not this one'); END
"""


def refuse(start: Starter, job_id: int | Iterable[int], state: str) -> None:
    """Let the database refuse to bring a job, or some, into a state."""
    ids = [job_id] if isinstance(job_id, int) else job_id
    postgres = start.database.kind == "postgresql"
    jobs, schema = start.tables.jobs, start.database.prefix
    statement = (POSTGRES if postgres else SQLITE).format(
        jobs=jobs, schema=schema, ids=", ".join(map(str, ids)), state=state
    )
    start.tables.execute(statement)


def relent(start: Starter) -> None:
    """Let it do so again."""
    where = f" ON {start.tables.jobs}" if start.database.kind == "postgresql" else ""
    start.tables.execute(f"DROP TRIGGER refuse{where}")


def wait_completed(start: Starter, count: int) -> None:
    """Wait until so many jobs are completed."""
    wait_until(lambda: start.tables.count("completed") == count, message=f"{count} completed")


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    """What was logged of it."""
    return [text for text in caplog.messages if words in text]


def test_an_end_that_is_refused_holds_up_no_other(
    start_oban: Starter,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All others are written; it is told once, tried again, and written when that works."""
    monkeypatch.setattr(producer, "REFUSED_DELAY", 0.05)
    oban = start_oban.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 20))
    guilty = made[7].id or 0
    refuse(start_oban, guilty, "completed")
    with caplog.at_level(logging.ERROR, "oban_actors"):
        oban.start()
        wait_until(lambda: start_oban.tables.count("completed") == 19)
        oban.insert_all(jobs("sync", 20))
        wait_until(lambda: start_oban.tables.count("completed") == 39)
        assert start_oban.tables.states()[guilty] == "executing"
        relent(start_oban)
        wait_until(lambda: start_oban.tables.count("completed") == 40)

    (told,) = said(caplog, "can't be written")
    assert f"job {guilty}" in told
    assert "not this one" in told
    assert len(work.ran) == len(set(work.ran)) == 40


@pytest.mark.parametrize("first", [True, False])
def test_many_ends_that_are_refused_hold_up_no_other(
    start_oban: Starter, work: Work, *, first: bool
) -> None:
    """More than one turn looks for, before all others or among them, also when tried again."""
    oban = start_oban.make(queues={"alpha": 40 if first else 5}, stager=None)
    made = [one.id or 0 for one in oban.insert_all(jobs("sync", 50))]
    bad = made[:25] if first else made[::2]
    refuse(start_oban, bad, "completed")
    oban.start()
    wait_completed(start_oban, 25)
    for done in (35, 45):
        oban.tell(("producer", "alpha"), producer._Unblock())
        oban.insert_all(jobs("sync", 10))
        wait_completed(start_oban, done)
    wait_until(lambda: view(oban).unwritten == 25)
    relent(start_oban)
    oban.tell(("producer", "alpha"), producer._Unblock())
    wait_completed(start_oban, 70)

    assert len(work.ran) == len(set(work.ran)) == 70


def test_what_can_not_be_claimed_is_told(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Those before it run, and the ends of jobs are written all the same."""
    oban = start_oban.make(**ALPHA)
    made = oban.insert_all(jobs("sync", 4))
    refuse(start_oban, made[2].id or 0, "executing")
    with caplog.at_level(logging.ERROR, "oban_actors"):
        oban.start()
        wait_until(lambda: start_oban.tables.count("completed") == 2)
        wait_until(lambda: said(caplog, "can't be claimed"))
        relent(start_oban)
        oban.insert_all(jobs("sync", 1))
        wait_until(lambda: start_oban.tables.count("completed") == 5)

    (told,) = said(caplog, "can't be claimed")
    assert "not this one" in told
