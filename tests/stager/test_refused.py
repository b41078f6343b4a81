"""Rows that the database refuses to stage: whatever they run into, and however many they are."""

import logging

import pytest

from oban_actors import Stage
from oban_actors.errors import TransientError
from oban_actors.messages import IsLeader
from oban_actors.passes import MOST_FAILING_ROWS, Passes
from tests.stager.passes import SLOW, of_stager, stage
from tests.support.events import Recorder
from tests.support.instances import Starter, scheduled
from tests.support.refusing import NO_TABLE, OF_THEIR_OWN, PLAIN, TOO_DEEP, refuse
from tests.support.waiting import wait_until


def refusing(start: Starter) -> str:
    """Give what refuses a row on either database."""
    return "SELECT RAISE(ABORT, 'not this one')" if start.database.kind == "sqlite" else PLAIN


def check_one_is_left_out(start: Starter, body: str, kind: str = "row") -> None:
    """One is refused: it is named and left out, and all others are staged and told."""
    oban = start.leading(stager=SLOW, insert_notify=False)
    heard = start.hear(oban, "insert")
    jobs = oban.insert_all([scheduled(-20 + n) for n in range(9)])
    refuse(start, body, f"NEW.id = {jobs[3].id}", kind)

    result = stage(oban)

    assert result.error is None
    assert result.refusal is not None
    assert result.set_aside == (jobs[3].id,)
    assert [job.id for job in result.staged] == [job.id for job in jobs if job is not jobs[3]]
    assert result.queues == ("alpha",)
    assert heard.wait_for("insert")[0] == {"queue": "alpha"}
    again = stage(oban)
    assert (again.staged, again.set_aside, again.error) == ((), (), None)
    assert oban.ask("peer", IsLeader())


@pytest.mark.parametrize(
    ("body", "kind"),
    [(OF_THEIR_OWN, "row"), (NO_TABLE, "row"), (TOO_DEEP, "row"), (PLAIN, "deferred")],
    ids=["a class of their own", "no table", "too deep", "at the commit"],
)
def test_whatever_a_trigger_runs_into(start_pg: Starter, body: str, kind: str) -> None:
    """What one row alone brings about stops no other, whatever its code and when it comes."""
    check_one_is_left_out(start_pg, body, kind)


@pytest.mark.parametrize(
    "body",
    [
        "SELECT RAISE(ABORT, 'no')",
        "SELECT RAISE(FAIL, 'no')",
        "SELECT RAISE(ROLLBACK, 'no')",
        "SELECT json_extract('{', '$.a')",
        "SELECT abs(-9223372036854775808)",
    ],
)
def test_whatever_a_trigger_of_sqlite_runs_into(start_sqlite: Starter, body: str) -> None:
    """Likewise, also where it undoes the transaction."""
    check_one_is_left_out(start_sqlite, body)


def test_with_an_isolated_notifier(start_pg: Starter) -> None:
    """Where a pass never is one message, what fails at its commit is found as well."""
    oban = start_pg.leading(stager=SLOW, notifier="isolated", insert_notify=False)
    bad, good = oban.insert_all([scheduled(-2), scheduled(-1)])
    refuse(start_pg, PLAIN, f"NEW.id = {bad.id}", "deferred")

    result = stage(oban)

    assert result.set_aside == (bad.id,)
    assert [job.id for job in result.staged] == [good.id]


def test_what_was_staged_before_a_failure_is_told(
    start_oban: Starter, events: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch is committed, whatever comes after it; the pass says so, and that it failed.

    Its queues are told all the same.
    """
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    jobs = oban.insert_all([scheduled(-9 + n) for n in range(9)])
    refuse(start_oban, refusing(start_oban), f"NEW.id = {jobs[3].id}")
    lost = TransientError("others were in the way")
    left, tell = [lost], Passes.tell

    def fail(passes: Passes) -> tuple[str, ...]:
        if left:
            raise left.pop()
        return tell(passes)

    monkeypatch.setattr(Passes, "tell", fail)
    heard = start_oban.hear(oban, "insert")
    events.clear()
    result = stage(oban)

    assert result.error is lost
    assert result.set_aside == (jobs[3].id,)
    assert [job.id for job in result.staged] == [job.id for job in jobs if job is not jobs[3]]
    (stop,) = events.all("oban.plugin.stop", of_stager)
    assert stop.metadata["staged_jobs"] == result.staged
    assert events.all("oban.engine.stage_jobs.stop")[-1].metadata["error"] is lost
    assert result.queues == ("alpha",)
    assert heard.wait_for("insert")[0] == {"queue": "alpha"}


def test_many_that_are_refused_stop_no_other(start_oban: Starter, events: Recorder) -> None:
    """Passes follow each other until all of them are found; what comes behind them is staged."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    count = 2 * MOST_FAILING_ROWS + 5
    oban.insert_all([scheduled(-9, queue="bad") for _ in range(count)])
    first, last = oban.insert_all([scheduled(-99), scheduled(-1)])
    refuse(start_oban, refusing(start_oban), "NEW.queue = 'bad'")
    events.clear()

    oban.tell("stager", Stage())

    wait_until(lambda: start_oban.tables.count("available") == 2)
    stops = events.wait_for_count(3, "oban.plugin.stop", of_stager)
    assert [job.id for job in stops[0].metadata["staged_jobs"]] == [first.id]
    assert [job.id for job in stops[2].metadata["staged_jobs"]] == [last.id]
    found = [len(stop.metadata["set_aside"]) for stop in stops]
    assert found == [MOST_FAILING_ROWS, MOST_FAILING_ROWS, 5]
    assert not any("error" in stop.metadata for stop in stops)


def test_what_fails_without_any_row_is_no_rows(start_oban: Starter) -> None:
    """Then nothing is left out: the pass failed, and is tried again."""
    oban = start_oban.leading(stager=SLOW, insert_notify=False)
    job = oban.insert(scheduled(-5))
    if start_oban.database.kind == "sqlite":
        refuse(start_oban, "INSERT INTO audit_of_nobody VALUES (1)")
    else:
        refuse(start_oban, PLAIN, kind="statement")

    for _ in range(2):
        result = stage(oban)
        assert (result.set_aside, result.staged) == ((), ())
        assert result.error is not None
    on = f" ON {start_oban.tables.jobs}" if start_oban.database.kind == "postgresql" else ""
    start_oban.tables.execute(f"DROP TRIGGER refuse{on}")

    assert [staged.id for staged in stage(oban).staged] == [job.id]


def test_where_nothing_can_be_staged_another_should_lead(
    start_pg: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that a trigger takes may be this node's own lack; of one row that is not believed."""
    oban = start_pg.leading(stager=SLOW, insert_notify=False)
    refuse(start_pg, NO_TABLE, "NEW.queue = 'bad'")

    with caplog.at_level(logging.WARNING, "oban_actors"):
        for _ in range(4):
            oban.insert_all([scheduled(-5, queue="bad"), scheduled(-5)])
            assert len(stage(oban).set_aside) == 1
        assert "should lead" not in caplog.text
        for _ in range(3):
            oban.insert(scheduled(-5, queue="bad"))
            assert len(stage(oban).set_aside) == 1

    assert "staging can't run on this node, so that another should lead" in caplog.text
