"""What makes a Producer look for jobs: each by itself, with no beat that would make up for it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from oban_actors import DatabaseUnavailable, Listen, Oban
from oban_actors.actors import RestartChild, Timer, VirtualClock
from oban_actors.messages import Dispatch, Reconnected, Refresh
from oban_actors.queues import producer
from oban_actors.queues.producer import Producer
from oban_actors.queues.turning import Turns
from oban_actors.queues.workforce import Post
from tests.queues.test_crew import no_thread
from tests.queues.work import Work, crashes, job, jobs, view, wait_state, without_beats
from tests.support.instances import Starter
from tests.support.waiting import wait_until

PROMPT: dict[str, Any] = {"limit": 2, "dispatch_cooldown": 0}
SILENT: dict[str, Any] = {"stager": None, "insert_notify": False}


WAYS: dict[str, Callable[[Oban], object]] = {
    "dispatch": lambda oban: oban.tell(("producer", "alpha"), Dispatch()),
    "refresh": lambda oban: oban.tell(("producer", "alpha"), Refresh()),
    "reconnected": lambda oban: oban.tell(("producer", "alpha"), Reconnected()),
    "resume": lambda oban: oban.resume_queue("alpha"),
    "scale": lambda oban: oban.scale_queue("alpha", 3),
    "beat": lambda oban: oban.ask("oban", RestartChild("pulse"), timeout=30),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_looks_when_told_to(start_oban: Starter, work: Work, way: str) -> None:
    """A job of which nobody told it waits until then, also where the last look found less."""
    oban = without_beats(start_oban(queues={"alpha": PROMPT, "beta": 1}, **SILENT))
    silent, other = oban.insert_all([job("sync", "return"), job("sync", "return", queue="beta")])
    oban.tell(("producer", "beta"), Dispatch())
    wait_state(oban, other, "completed")
    WAYS[way](oban)

    wait_state(oban, silent, "completed")


def test_it_looks_when_jobs_are_inserted(start_oban: Starter, work: Work) -> None:
    """The notification of the insert is enough, and that of another queue is not its own."""
    oban = without_beats(start_oban(queues={"alpha": 2}, stager=None))
    for _ in range(3):
        wait_state(oban, oban.insert(job("sync", "return")), "completed")
    assert len(work.ran) == 3


def test_it_looks_when_a_run_is_stuck(start_oban: Starter, work: Work) -> None:
    """The slot that opens in its place is filled at once."""
    oban = without_beats(start_oban(queues={"alpha": 1}, **SILENT))
    stuck = job("sync", "wait")
    stuck.args["timeout"] = 0.05
    _, other = oban.insert_all([stuck, job("sync", "return")])
    oban.tell(("producer", "alpha"), Dispatch())

    wait_state(oban, other, "completed")
    assert len(view(oban).stuck) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_it_looks_when_a_job_ends(start_oban: Starter, work: Work, kind: str) -> None:
    """Whoever writes its end takes the next one, of which nobody told it."""
    oban = without_beats(start_oban(queues={"alpha": 2}, **SILENT))
    first, second = oban.insert(job(kind, "wait")), job(kind, "return")
    oban.tell(("producer", "alpha"), Dispatch())
    work.wait_inside(1)
    second = oban.insert(second)
    work.open()

    wait_state(oban, second, "completed")
    assert work.ran == [first.id, second.id]


def test_it_looks_again_at_once_after_a_full_fetch(start_oban: Starter, work: Work) -> None:
    """Told once of many jobs, it fetches all that there is room for."""
    oban = without_beats(start_oban(queues={"alpha": 600}, **SILENT))
    oban.insert_all(jobs("async", 600, "wait"))
    oban.tell(("producer", "alpha"), Dispatch())

    work.wait_inside(600)


def test_it_tries_again_ever_later_while_the_database_is_away(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever tells it meanwhile, it waits for its time; what is there then runs."""
    clock = VirtualClock()
    oban = start_oban(clock=clock, queues={"alpha": 1}, stager=None)
    view(oban)
    tries: list[int] = []

    def failing(*_: Any) -> Any:
        tries.append(1)
        raise DatabaseUnavailable("put in")

    def told() -> int:
        for message in (Dispatch(), Refresh(), Dispatch()):
            oban.ask(("producer", "alpha"), message, timeout=30)
            view(oban)
        return len(tries)

    with monkeypatch.context() as patch:
        patch.setattr(Turns, "take", failing)
        assert told() == 1
        clock.advance(0.11)
        assert told() == 2
        clock.advance(0.11)
        assert told() == 2
        clock.advance(0.11)
        assert told() == 3
    one = oban.insert(job("sync", "return"))
    assert told() == 3
    clock.advance(5)

    wait_state(oban, one, "completed")


def refuse_threads(patch: pytest.MonkeyPatch, named: str, *, times: int) -> list[int]:
    """Have a system that does not start threads of a name so often; gives what is still to come."""
    refused, start = list(range(times)), threading.Thread.start

    def starting(self: threading.Thread) -> None:
        if named in self.name and refused:
            refused.pop()
            no_thread(self)
        start(self)

    patch.setattr(threading.Thread, "start", starting)
    return refused


def test_a_system_without_threads_is_asked_again(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only job that there is room for does not wait for another that would ask."""
    monkeypatch.setattr(producer, "STARVED_DELAY", 0.01)
    oban = without_beats(start_oban(queues={"alpha": 1}, stager=None))
    refused = refuse_threads(monkeypatch, "oban-alpha-", times=3)
    one = oban.insert(job("sync", "return"))

    assert wait_state(oban, one, "completed").attempt == 1
    assert refused == []


def test_a_system_without_a_thread_for_the_loop_is_asked_again(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Async jobs wait for it, and nobody crashes over it."""
    monkeypatch.setattr(producer, "STARVED_DELAY", 0.01)
    oban = without_beats(start_oban(queues={"alpha": 2}, stager=None))
    refused = refuse_threads(monkeypatch, "-loop", times=3)
    one = oban.insert(job("async", "return"))

    assert wait_state(oban, one, "completed").attempt == 1
    assert refused == []
    assert crashes(oban) == []


def test_a_thread_that_was_refused_beside_a_busy_one_is_asked_for_again(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that waits for it may not wait for the other one to end."""
    monkeypatch.setattr(producer, "STARVED_DELAY", 0.01)
    oban = without_beats(start_oban(queues={"alpha": 2}, stager=None))
    oban.insert(job("sync", "wait"))
    work.wait_inside(1)
    refused = refuse_threads(monkeypatch, "oban-alpha-", times=1)
    one = oban.insert(job("sync", "return"))

    wait_state(oban, one, "completed")
    assert refused == []


def test_however_often_there_is_reason_it_tries_again_by_one_timer(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers that each arm the next would be more with each turn, and never fewer."""
    monkeypatch.setattr(producer, "STARVED_DELAY", 600.0)
    oban = without_beats(start_oban(queues={"alpha": 2}, stager=None))
    made: list[Timer] = []
    send_after = Producer.send_after

    def sending(self: Producer, message: Any, seconds: float) -> Timer:
        made.append(timer := send_after(self, message, seconds))
        return timer

    monkeypatch.setattr(Producer, "send_after", sending)
    monkeypatch.setattr(Post, "starved", property(lambda _: True))
    for one in oban.insert_all(jobs("sync", 8)):
        wait_state(oban, one, "completed")
        oban.ask(("producer", "alpha"), Dispatch(), timeout=30)
        view(oban)

    again = [each for each in made if isinstance(each.message, producer._Unblock)]
    assert sum(each.live for each in again) == 1


def test_it_listens_before_it_looks(
    start_oban: Starter, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is inserted right behind its first look is heard, or it would be missed for long."""
    done: list[str] = []
    ask, take = Producer.ask, Turns.take

    def asking(self: Producer, name: Any, message: Any, **how: Any) -> Any:
        answer = ask(self, name, message, **how)
        if isinstance(message, Listen):
            done.append("listen")
        return answer

    def taking(*given: Any) -> Any:
        done.append("look")
        return take(*given)

    monkeypatch.setattr(Producer, "ask", asking)
    monkeypatch.setattr(Turns, "take", taking)
    monkeypatch.setattr(producer, "LISTEN_TIME", 30.0)
    start_oban(queues={"alpha": 2}, **SILENT)
    wait_until(lambda: "look" in done)

    assert done[:2] == ["listen", "look"]


def test_the_cooldown_of_a_queue_is_its_own(start_oban: Starter, work: Work) -> None:
    """Told again within it, a queue with a long one waits; another one does not."""
    slow = {"limit": 2, "dispatch_cooldown": 600}
    oban = without_beats(start_oban(queues={"alpha": slow, "beta": 2}, stager=None))
    wait_until(lambda: view(oban).queue == "alpha")
    late = oban.insert(job("sync", "return"))
    for _ in range(2):
        wait_state(oban, oban.insert(job("sync", "return", queue="beta")), "completed")

    assert late.id not in work.ran
