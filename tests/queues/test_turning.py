"""A producer's turns: one message where that is possible, and what happens where it goes wrong."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from oban_actors import Beat
from oban_actors.queues.turning import Turns
from tests.queues.work import Work, jobs, read, wait_state, without_beats
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}


@pytest.fixture
def database(pg: Database) -> Database:
    """Messages are PostgreSQL's alone."""
    return pg


def counting(patch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Note with how many acknowledgements a method of turns is called."""
    calls: list[int] = []
    method: Callable[..., Any] = getattr(Turns, name)

    def call(self: Turns, acks: Any, *given: Any, **options: Any) -> Any:
        calls.append(len(acks))
        return method(self, acks, *given, **options)

    patch.setattr(Turns, name, call)
    return calls


def test_a_turn_is_one_message(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has ended and the next claims go in it, and come back by it: in one transaction.

    Unless it has to give back first what may have been left, as the very first ones have.
    """
    oban = without_beats(start_oban(**ALPHA))
    message = oban.repo.message
    sent: list[tuple[set[int], int, set[int]]] = []

    def call(statements: Any, parameters: Any, **options: Any) -> Any:
        found = message(statements, parameters, **options)
        if "limit" not in parameters:
            # The insert's.
            return found
        (rows,) = found
        assert parameters["queue"] == "alpha"
        ended = {int(each) for each in parameters.get("ids", "{}")[1:-1].split(",") if each}
        # Without a claim the one row says only how many ends were written.
        assert rows[0][-2] == len(ended)
        claimed = {row[0] for row in rows if len(row) > 2 and row[0] is not None}
        sent.append((ended, parameters["limit"], claimed))
        return found

    monkeypatch.setattr(oban.repo, "message", call)
    judged = counting(monkeypatch, "_judged")
    made = oban.insert_all(jobs("sync", 30))

    for one in made:
        wait_state(oban, one, "completed")
    fused = [(ended, claimed) for ended, limit, claimed in list(sent) if ended and limit > 0]
    assert any(claimed for _, claimed in fused)
    assert all(ended.isdisjoint(claimed) for ended, claimed in fused)
    assert judged == []
    same = "SELECT count(*) FROM {jobs} AS a JOIN {jobs} AS b ON a.completed_at = b.attempted_at"
    assert start_oban.tables.execute(same)[0][0] > 0


@pytest.mark.parametrize("way", ["message", "steps"])
def test_a_row_that_is_locked_keeps_no_other_waiting(
    start_oban: Starter,
    work: Work,
    pg_conninfo: str,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """The first try gives up on it; the next leaves it out, and it is written once it is free."""
    if way == "steps":
        monkeypatch.setattr(Turns, "_in_one_message", lambda *_: None)
    oban = start_oban(**ALPHA)
    locked, free = oban.insert_all(jobs("sync", 2, "wait"))
    work.wait_inside(2)
    with psycopg.connect(pg_conninfo) as other:
        row = f"SELECT 1 FROM {start_oban.tables.jobs} WHERE id = %s FOR UPDATE"
        other.execute(row.encode(), [locked.id])
        work.open()
        wait_state(oban, free, "completed")
        assert read(oban, locked).state == "executing"

    wait_state(oban, locked, "completed")
    assert sorted(work.ran) == [locked.id, free.id]


def test_a_job_cancelled_by_hand_is_told_as_stale(
    start_oban: Starter, work: Work, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all acknowledgements of a message were written: each is looked at, none is lost."""
    judged = counting(monkeypatch, "_judged")
    oban = start_oban(**ALPHA)
    gone, good = oban.insert_all(jobs("sync", 2, "wait"))
    work.wait_inside(2)
    # None of its own comes before the run has ended, which it would tell to.
    oban.ask("pulse", Beat(), timeout=30)
    start_oban.tables.execute("UPDATE {jobs} SET state = 'cancelled' WHERE id = :id", id=gone.id)
    work.open()

    wait_state(oban, good, "completed")
    assert told.wait_for("oban.job.stale").metadata["id"] == gone.id
    assert told.wait_for("oban.job.stop").metadata["id"] == good.id
    assert read(oban, gone).state == "cancelled"
    assert sum(judged) in (1, 2)
