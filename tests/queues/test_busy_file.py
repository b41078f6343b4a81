"""An SQLite file that another program writes to for longer than anybody waits."""

import logging

import pytest

from oban_actors.queues import turning
from tests.queues.work import Work, crashes, jobs, read, wait_state
from tests.support.events import Recorder
from tests.support.instances import Starter
from tests.support.waiting import wait_until


def test_ends_are_written_once_the_file_is_free(
    start_sqlite: Starter,
    work: Work,
    told: Recorder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tried in vain while it is locked, no end is lost, and no job runs again for it."""
    monkeypatch.setattr(turning, "TURN_TIME", 1.0)
    oban = start_sqlite(queues={"alpha": 5}, stager=None)
    made = oban.insert_all([*jobs("sync", 2, "wait"), *jobs("async", 1, "wait")])
    work.wait_inside(3)
    with start_sqlite.tables.engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING, "oban_actors"):
            work.open()
            work.wait_inside(0)
            wait_until(lambda: "queue alpha can't reach the database" in caplog.text)
        assert set(start_sqlite.tables.states().values()) == {"executing"}
        other.exec_driver_sql("ROLLBACK")

    for one in made:
        wait_state(oban, one, "completed")
    assert [(read(oban, one).attempt, read(oban, one).errors) for one in made] == [(1, [])] * 3
    assert sorted(work.ran) == [one.id for one in made]
    assert len(told.wait_for_count(3, "oban.job.stop")) == 3
    assert crashes(oban) == []
