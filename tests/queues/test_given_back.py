"""Claims in the table that nobody holds: whatever a queue is at, they are for others at once."""

import threading
from typing import Any

import pytest

from oban_actors import Beat, Job, Oban
from oban_actors.actors.requests import WhichChildren
from oban_actors.sifting import MOST_REFUSED
from tests.queues.test_refused import refuse, relent
from tests.queues.work import Work, jobs, read, view, wait_state
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}


def test_claims_that_nobody_holds_are_given_back(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that is executing for our producer, and that it never heard of, runs after a beat."""
    oban = start_oban(node="web.1", **ALPHA)
    held = oban.insert(jobs("sync", 1, "heed")[0])
    work.wait_inside(1)
    uuid = view(oban).uuid
    lost = oban.insert(jobs("sync", 1, state="scheduled")[0])
    claim_by_hand(start_oban, lost.id or 0, ["web.1", uuid])
    foreign = oban.insert(jobs("sync", 1, state="scheduled")[0])
    claim_by_hand(start_oban, foreign.id or 0, ["web.2", "c2a8a5f4-0000-4000-8000-000000000000"])
    oban.ask("pulse", Beat(), timeout=30)

    after = wait_state(oban, lost, "completed")
    assert after.attempt == 1
    assert read(oban, foreign).state == "executing"
    assert read(oban, held).state == "executing"
    assert work.ran == [held.id, lost.id]
    said = f"gave back jobs of queue alpha that a lost answer had left claimed: [{lost.id}]"
    assert said in caplog.messages


def claim_by_hand(start: Starter, job_id: int, by: list[str]) -> None:
    """Make a row look claimed."""
    array = (
        "ARRAY[:node, :uuid]" if start.database.kind == "postgresql" else "json_array(:node, :uuid)"
    )
    start.tables.execute(
        "UPDATE {jobs} SET state = 'executing', attempt = 1, attempted_at = inserted_at, "
        f"attempted_by = {array} WHERE id = :id",
        id=job_id,
        node=by[0],
        uuid=by[1],
    )


def lose(start: Starter, oban: Oban, **options: Any) -> Job:
    """Claim a job for a queue's producer, which does not hear of it."""
    lost = oban.insert(jobs("sync", 1, state="scheduled", **options)[0])
    claim_by_hand(start, lost.id or 0, ["web.1", view(oban).uuid])
    return lost


def lose_refused(start: Starter, oban: Oban, count: int = 1) -> list[Job]:
    """Likewise some that the database refuses to have given back."""
    lost = oban.insert_all(jobs("sync", count, state="scheduled"))
    refuse(start, [one.id or 0 for one in lost], "available")
    for one in lost:
        claim_by_hand(start, one.id or 0, ["web.1", view(oban).uuid])
    return lost


@pytest.mark.parametrize("how", ["paused", "full"])
def test_a_queue_that_fetches_nothing_gives_back_too(
    start_oban: Starter, work: Work, how: str
) -> None:
    """Other nodes could run them: that needs no room here."""
    oban = start_oban(node="web.1", **ALPHA)
    if how == "paused":
        oban.pause_queue("alpha")
        wait_until(lambda: view(oban).paused)
    else:
        oban.insert_all(jobs("sync", 5, "wait"))
        work.wait_inside(5)
    lost = lose(start_oban, oban)
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, lost, "available").attempt == 0


def test_a_row_that_can_not_be_claimed_keeps_nothing(start_oban: Starter, work: Work) -> None:
    """What goes wrong with what is fetched does not undo what was given back."""
    oban = start_oban(node="web.1", **ALPHA)
    (bad,) = oban.insert_all(jobs("sync", 1, state="scheduled"))
    refuse(start_oban, bad.id or 0, "executing")
    start_oban.tables.execute("UPDATE {jobs} SET state = 'available'")
    lost = lose(start_oban, oban, priority=9)
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, lost, "available").attempt == 0
    assert work.ran == []


def test_what_can_not_be_given_back_keeps_nothing(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, the others are given back, jobs run, and their ends are written."""
    oban = start_oban(node="web.1", **ALPHA)
    held = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    lost = oban.insert_all(jobs("sync", 4, state="scheduled"))
    bad = lost[1]
    refuse(start_oban, bad.id or 0, "available")
    for one in lost:
        claim_by_hand(start_oban, one.id or 0, ["web.1", view(oban).uuid])
    for _ in range(2):
        oban.ask("pulse", Beat(), timeout=30)
        new = oban.insert(jobs("sync", 1)[0])
        for one in (new, *(each for each in lost if each is not bad)):
            assert wait_state(oban, one, "completed").attempt == 1
    assert read(oban, bad).state == read(oban, held).state == "executing"
    work.open()
    wait_state(oban, held, "completed")
    (told,) = [text for text in caplog.messages if "can't be given back" in text]
    assert f"job {bad.id}, " in told
    relent(start_oban)
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, bad, "completed").attempt == 1
    assert work.again == {}


def test_many_that_can_not_be_given_back(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn looks for some of them, and each has its turn: told once, and given back at last."""
    oban = start_oban(node="web.1", **ALPHA)
    held = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    lost = lose_refused(start_oban, oban, 2 * MOST_REFUSED + 5)

    def told() -> list[str]:
        return [text for text in caplog.messages if "can't be given back" in text]

    for _ in range(2):
        oban.ask("pulse", Beat(), timeout=30)
        wait_until(lambda: len(told()) >= len(lost))
        wait_state(oban, oban.insert(jobs("sync", 1)[0]), "completed")
    assert len(told()) == len(lost)
    relent(start_oban)
    oban.ask("pulse", Beat(), timeout=30)
    for one in lost:
        wait_state(oban, one, "completed")
    work.open()
    wait_state(oban, held, "completed")
    assert work.again == {}


def test_what_can_not_be_given_back_keeps_no_last_end(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """As its queue ends, what has ended is written all the same, and the claim is left over."""
    oban = start_oban(node="web.1", shutdown_grace_period=60.0, **ALPHA)
    held = oban.insert(jobs("async", 1, "wait")[0])
    work.wait_inside(1)
    (lost,) = lose_refused(start_oban, oban)
    oban.ask("pulse", Beat(), timeout=30)
    oban.stop_queue("alpha")
    wait_until(lambda: oban._parts.workforce.is_ending("alpha"))
    work.open()
    wait_until(lambda: oban.check_queue("alpha") is None)
    assert read(oban, held).state == "completed"
    for _ in range(3):
        assert read(oban, lost).state == "executing"
        oban.ask("pulse", Beat(), timeout=30)
        # It has begun anew for this, and ended.
        oban.ask("queues", WhichChildren(), timeout=30)
        wait_until(lambda: oban.check_queue("alpha") is None)
    assert len([text for text in caplog.messages if "can't be given back" in text]) == 1
    relent(start_oban)
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, lost, "available").attempt == 0


def test_one_that_is_locked_as_its_queue_ends(
    start_pg: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left over, too, and given back at a beat once it is free."""
    oban = start_pg(node="web.1", shutdown_grace_period=0.1, **ALPHA)
    (lost,) = lose_refused(start_pg, oban)
    oban.ask("pulse", Beat(), timeout=30)
    wait_until(lambda: "can't be given back" in caplog.text)
    with start_pg.tables.engine.connect() as other:
        start_pg.tables.on(other, "SELECT FROM {jobs} WHERE id = :id FOR UPDATE", id=lost.id)
        oban.stop_queue("alpha")
        wait_until(lambda: oban.check_queue("alpha") is None)
    relent(start_pg)
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, lost, "available").attempt == 0


def test_what_was_interrupted_is_named_so_whenever_it_is_given_back(
    start_oban: Starter, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the database refused that at first."""
    caplog.set_level("INFO", "oban_actors")
    oban = start_oban(node="web.1", shutdown_grace_period=0.1, **ALPHA)
    (cut,) = oban.insert_all(jobs("async", 1, "forever"))
    work.wait_inside(1)
    refuse(start_oban, cut.id or 0, "available")
    oban.stop_queue("alpha")
    wait_until(lambda: oban.check_queue("alpha") is None)
    assert read(oban, cut).state == "executing"
    relent(start_oban)
    oban.ask("pulse", Beat(), timeout=30)

    assert wait_state(oban, cut, "available").attempt == 0
    said = f"queue alpha gave back jobs that it had to interrupt: [{cut.id}]"
    wait_until(lambda: said in caplog.messages)
    assert "lost answer" not in caplog.text


def test_what_nobody_has_begun_is_given_back_at_once(start_oban: Starter, work: Work) -> None:
    """A queue that ends does not keep it until the last of its jobs has ended."""
    oban = start_oban(shutdown_grace_period=600, **ALPHA)
    busy = oban.insert(jobs("async", 1, "block")[0])
    work.wait_inside(1)
    oban.insert_all(jobs("async", 3))
    wait_until(lambda: len(view(oban).running) == 4)
    stopper = threading.Thread(target=oban.stop)
    stopper.start()

    wait_until(lambda: start_oban.tables.count("available") == 3)
    work.open()
    stopper.join(30)
    assert not stopper.is_alive()
    assert work.ran == [busy.id]
