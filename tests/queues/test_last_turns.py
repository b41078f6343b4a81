"""The last turns of queues: what has ended is tried once more, all at once, and for so long."""

import threading
from typing import Any

import pytest

from oban_actors import DatabaseUnavailable, Oban
from oban_actors.claim import Ack
from oban_actors.engines import Turn
from oban_actors.queues import rhythm
from oban_actors.queues.producer import LAST_TIME, Producer
from oban_actors.queues.turning import TURN_TIME, Turns
from tests.queues.test_shutdown import beat, producers
from tests.queues.work import Work, jobs, read, view, wait_state, without_beats
from tests.support.instances import Starter
from tests.support.waiting import wait_until

ALPHA: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None, "shutdown_grace_period": 0.1}


class Outage:
    """A database that is away while turns that write something are taken.

    Attributes:
        over: set when it is back.
        times: how many seconds each of these turns was given.

    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.over = threading.Event()
        self.times: list[float] = []
        take = Turns.take

        def taking(turns: Turns, acks: list[Ack], limit: int) -> Turn:
            if acks:
                self.times.append(turns.seconds)
                if not self.over.is_set():
                    raise DatabaseUnavailable("put in")
            return take(turns, acks, limit)

        patch.setattr(Turns, "take", taking)
        # No other try comes before the end.
        patch.setattr(rhythm, "FAILED_DELAY", 600.0)
        patch.setattr(rhythm, "FAILED_MOST", 600.0)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    """Let the database be away."""
    return Outage(monkeypatch)


def forgetting(oban: Oban, patch: pytest.MonkeyPatch) -> list[str]:
    """Note which producers' rows are removed."""
    forgotten: list[str] = []
    forget = oban._parts.engine.forget_producer

    def noting(connection: Any, claimant: Any) -> None:
        forgotten.append(claimant.uuid)
        forget(connection, claimant)

    patch.setattr(oban._parts.engine, "forget_producer", noting)
    return forgotten


@pytest.mark.parametrize("back", [True, False])
def test_the_last_ends_are_tried_though_the_turn_before_failed(
    start_oban: Starter, work: Work, outage: Outage, monkeypatch: pytest.MonkeyPatch, *, back: bool
) -> None:
    """Once: a database that is back meanwhile takes them, and one that isn't is asked no more."""
    oban = start_oban(**ALPHA)
    forgotten = forgetting(oban, monkeypatch)
    beat(oban)
    one = oban.insert(jobs("sync", 1, "wait")[0])
    work.wait_inside(1)
    work.open()
    wait_until(lambda: outage.times)
    if back:
        outage.over.set()
    oban.stop()

    assert read(oban, one).state == ("completed" if back else "executing")
    assert outage.times == [TURN_TIME, LAST_TIME]
    assert len(forgotten) == back


def test_a_queue_with_nothing_to_write_takes_no_last_turn(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only removes its producer's row."""
    oban = start_oban(**ALPHA)
    beat(oban)
    without_beats(oban)
    wait_state(oban, oban.insert(jobs("sync", 1)[0]), "completed")
    wait_until(lambda: view(oban).unwritten == 0)
    turn, last = Producer._turn, []

    def turning(producer: Producer, limit: int) -> bool:
        if producer.roster.shutdown_at is not None:
            last.append(limit)
        return turn(producer, limit)

    monkeypatch.setattr(Producer, "_turn", turning)
    oban.stop()

    assert last == []
    assert producers(start_oban) == 0


def test_queues_write_their_last_ends_at_the_same_time(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent database holds up each for seconds, but not one after the other."""
    names = ("alpha", "beta", "gamma")
    oban = start_oban(queues=dict.fromkeys(names, 1), stager=None)
    meeting, met, finish = threading.Barrier(3), [], Producer._finish

    def finishing(producer: Producer) -> None:
        meeting.wait(10)
        met.append(producer.queue)
        finish(producer)

    monkeypatch.setattr(Producer, "_finish", finishing)
    oban.stop()

    assert sorted(met) == sorted(names)
