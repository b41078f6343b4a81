"""A drain shows that it lives while its jobs run, and hears of those that were taken from it."""

import logging
import threading
from typing import Any

import pytest

from oban_actors import DatabaseError, DatabaseUnavailable, Job, Oban
from oban_actors.queues import drainer
from oban_actors.queues.drainer import Drainer
from oban_actors.testing import DrainCounts
from tests.support.instances import Starter
from tests.support.waiting import wait_until
from tests.testing import work
from tests.testing.work import read


def test_a_drain_leaves_no_producer_behind(oban: Oban, start_oban: Starter) -> None:
    """It shows that it lives while it runs, and is gone afterwards, after an error too."""
    table = start_oban.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    seen: list[int] = []

    def look(_args: Any) -> None:
        seen.append(len(start_oban.tables.execute(f"SELECT uuid FROM {table}")))
        raise ValueError("boom")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "end_as", look)
        oban.insert(work.note.new())
        with pytest.raises(ValueError, match="boom"):
            oban.drain_queue("alpha", with_safety=False)
        assert start_oban.tables.execute(f"SELECT uuid FROM {table}") == []
        oban.insert(work.note.new())
        oban.drain_queue("alpha")

    assert seen == [1, 1]
    assert start_oban.tables.execute(f"SELECT uuid FROM {table}") == []


def test_a_drain_beats_while_its_job_runs(start_oban: Starter) -> None:
    """However long a job takes, nobody may take its drain for dead."""
    oban = start_oban.make(testing="manual", pulse={"interval": 0.05})
    table = start_oban.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    beats: set[object] = set()

    def wait(_args: Any) -> None:
        def beaten() -> bool:
            beats.update(
                row[0] for row in start_oban.tables.execute(f"SELECT beat_at FROM {table}")
            )
            return len(beats) > 2

        wait_until(beaten)

    job = oban.insert(work.note.new())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "end_as", wait)
        assert oban.drain_queue("alpha") == DrainCounts(success=1)

    assert read(oban, job).state == "completed"
    assert "oban-drain-heart" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_job_that_was_taken_is_told_to_end(start_oban: Starter, kind: str) -> None:
    """It is noticed at the next beat, and its row is left as it is."""
    oban = start_oban.make(testing="manual", pulse={"interval": 0.05})
    work.RAN.clear()
    job = oban.insert(work.heed.new() if kind == "sync" else work.aheed.new())

    def take() -> None:
        wait_until(lambda: work.RAN == ["heed"])
        start_oban.tables.execute("UPDATE {jobs} SET state = 'available'")

    taker = threading.Thread(target=take)
    taker.start()
    assert oban.drain_queue("alpha") == DrainCounts()
    taker.join(60)

    assert work.RAN == ["heed", "told"]
    assert read(oban, job).state == "available"


def test_a_job_that_completed_itself_is_not_told_to_end(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is no claim any more, and a beat that sees it finds nothing wrong."""
    oban = start_oban.make(testing="manual", pulse={"interval": 0.05})
    engine, beats, told = oban._parts.engine, [], []

    def beat(*args: Any) -> Any:
        report = type(engine).beat(engine, *args)
        beats.append([claim.job_id for claim in report.claims])
        return report

    def complete(job: Job) -> None:
        with start_oban.tables.engine.begin() as connection:
            job.complete(connection=connection)
        wait_until(lambda: beats[-2:] == [[], []])
        told.append(job.cancelled)

    monkeypatch.setattr(engine, "beat", beat)
    monkeypatch.setattr(work, "act", complete)
    oban.insert(work.acts.new())

    assert oban.drain_queue("alpha") == DrainCounts(success=1)
    assert told == [False]


def test_a_beat_that_fails_ends_no_drain(
    oban: Oban, start_oban: Starter, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It is logged, and tried again; a drain's end waits for no beat."""
    oban = start_oban.make(testing="manual", pulse={"interval": 0.05})
    job = oban.insert(work.note.new())
    engine, beats = oban._parts.engine, []

    def beat(*args: Any) -> Any:
        beats.append(threading.current_thread().name)
        if len(beats) == 2:
            raise DatabaseError("away")
        return type(engine).beat(engine, *args)

    monkeypatch.setattr(engine, "beat", beat)
    monkeypatch.setattr(work, "end_as", lambda _args: wait_until(lambda: len(beats) > 2))
    with caplog.at_level(logging.WARNING, "oban_actors"):
        assert oban.drain_queue("alpha") == DrainCounts(success=1)

    assert "a drain's beat failed and will be tried again: away" in caplog.text
    assert read(oban, job).state == "completed"


def test_a_drain_that_can_not_beat_tells_its_job_to_end(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others may take it for dead soon, and run its jobs; what came to no end is given back."""
    beat = Drainer._beat

    def fail(one: Drainer, connection: Any) -> Any:
        if threading.current_thread().name == "oban-drain-heart":
            raise DatabaseUnavailable("away")
        return beat(one, connection)

    monkeypatch.setattr(Drainer, "_beat", fail)
    monkeypatch.setattr(drainer, "LOST_AFTER", 0.1)
    monkeypatch.setattr(drainer, "WATCH", 0.05)
    job = oban.insert(work.forever.new({}))

    assert oban.drain_queue("alpha") == DrainCounts()
    assert (read(oban, job).state, read(oban, job).attempt) == ("available", 0)
    assert f"job {job.id} is told to end" in caplog.text


def test_a_job_that_keeps_its_file_to_itself(
    start_sqlite: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can beat then, and nobody rescue: it is left in peace."""
    oban = start_sqlite.make()
    monkeypatch.setattr(drainer, "LOST_AFTER", 0.1)
    monkeypatch.setattr(drainer, "WATCH", 0.05)
    monkeypatch.setattr(drainer, "BEAT_TIME", 0.1)
    job = oban.insert(work.early.new({}))

    def hold(_job: Job) -> None:
        with start_sqlite.tables.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            wait_until(lambda: caplog.text.count("beat failed") >= 3)
            connection.rollback()

    monkeypatch.setattr(work, "act", hold)
    assert oban.drain_queue("alpha") == DrainCounts(success=1)
    assert read(oban, job).state == "completed"
    assert "is told to end" not in caplog.text
