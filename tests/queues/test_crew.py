"""Threads that run claims: as many as there is work for, and none for longer than needed."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from oban_actors.claim import Claim
from oban_actors.queues.crew import ThreadCrew
from tests.queues.claims import claim, ended
from tests.support.waiting import wait_until

CREW = "crew-test"


def _has(finished: list[Claim], count: int) -> bool:
    return len(finished) == count


class Work:
    """Runs claims; those with an even id hold their thread until they are let."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun: list[Claim] = []
        self.finished: list[Claim] = []

    def block(self, one: Claim) -> None:
        """Run one that waits."""
        self.begun.append(one)
        self.gate.wait(60)
        ended(one)

    def short(self, one: Claim) -> None:
        """Run one that does not."""
        self.begun.append(one)
        ended(one)


@pytest.fixture
def work() -> Iterator[Work]:
    """Work that is let go at the end."""
    one = Work()
    yield one
    one.gate.set()


def threads() -> list[threading.Thread]:
    """The crew's living threads."""
    return [each for each in threading.enumerate() if each.name.startswith(f"oban-{CREW}")]


@pytest.fixture
def make(work: Work) -> Iterator[Any]:
    """Makes crews, and ends them after the test."""
    made: list[ThreadCrew] = []

    def crew(most: int, perform: Any = None) -> ThreadCrew:
        made.append(ThreadCrew(CREW, lambda: most, perform or work.block, work.finished.append))
        return made[-1]

    yield crew
    work.gate.set()
    for each in made:
        each.close(30)


def test_jobs_that_block_each_have_a_thread(make: Any, work: Work) -> None:
    """As many run at once as there may be threads, and the others after them."""
    crew = make(5)
    claims = [claim(n) for n in range(8)]
    crew.add(claims)
    wait_until(lambda: len(work.begun) == 5)
    assert len(threads()) == 5

    work.gate.set()

    wait_until(lambda: len(work.finished) == 8)
    assert set(work.finished) == set(claims)


def test_jobs_run_in_order(make: Any, work: Work) -> None:
    """One thread runs them one after the other, as they were given."""
    crew = make(1, work.short)
    claims = [claim(n) for n in range(100)]
    for one in claims:
        crew.add([one])

    wait_until(lambda: len(work.finished) == 100)
    assert work.begun == claims


def test_an_idle_thread_is_used_again(make: Any, work: Work) -> None:
    """A second job needs no second thread."""
    crew = make(4, work.short)
    for n in range(20):
        crew.add([claim(n)])
        wait_until(partial(_has, work.finished, n + 1))

    assert len(threads()) <= 2


def test_each_of_many_jobs_runs_once(make: Any, work: Work) -> None:
    """Four threads that add and eight that run lose none and double none."""
    crew = make(8, work.short)
    claims = [claim(n) for n in range(20_000)]

    def add(part: list[Claim]) -> None:
        for start in range(0, len(part), 7):
            crew.add(part[start : start + 7])

    adders = [threading.Thread(target=add, args=(claims[n::4],)) for n in range(4)]
    for thread in adders:
        thread.start()
    for thread in adders:
        thread.join(60)

    wait_until(lambda: len(work.finished) == 20_000)
    assert len(set(work.finished)) == 20_000


def test_who_comes_while_the_line_moves_quickly_stands_by(
    make: Any, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short jobs are left to the thread that is at them; one that blocks sets another one free."""
    # Time stands still, so that any line that moves does so quickly.
    monkeypatch.setattr("oban_actors.queues.crew.real_monotonic", lambda: 0.0)
    blocking = {30_000, 30_001}

    def perform(one: Claim) -> None:
        (work.block if one.id in blocking else work.short)(one)

    crew = make(500, perform)
    crew.add([claim(n) for n in range(30_000)])
    wait_until(lambda: len(work.finished) == 30_000)
    few = len(threads())
    crew.add([claim(n) for n in range(30_000, 30_100)])
    wait_until(lambda: len(work.finished) == 30_098)

    assert few <= 20
    assert {one.id for one in work.begun} == set(range(30_100))


def test_what_has_not_begun_can_be_taken_back(make: Any, work: Work) -> None:
    """Those in line come back and never run."""
    crew = make(2)
    claims = [claim(n) for n in range(6)]
    crew.add(claims)
    wait_until(lambda: len(work.begun) == 2)

    back = crew.take_back()

    assert set(back) == set(claims) - set(work.begun)
    work.gate.set()
    wait_until(lambda: len(work.finished) == 2)


def test_closing_ends_idle_threads_and_leaves_busy_ones(make: Any, work: Work) -> None:
    """A thread that is at a job ends after it; adding after that opens the crew again."""
    crew = make(2)
    crew.add([claim(1)])
    wait_until(lambda: len(work.begun) == 1)
    crew.close(0.0)
    assert len(threads()) == 1
    work.gate.set()
    wait_until(lambda: not threads())

    crew.add([claim(2)])

    wait_until(lambda: len(work.finished) == 2)


def test_more_threads_come_when_the_bound_rises(work: Work) -> None:
    """The bound is asked each time: a queue that is scaled up gets its threads."""
    most = 1
    crew = ThreadCrew(CREW, lambda: most, work.block, work.finished.append)
    crew.add([claim(n) for n in range(3)])
    wait_until(lambda: len(work.begun) == 1)
    most = 3
    crew.wake()

    wait_until(lambda: len(work.begun) == 3)
    work.gate.set()
    crew.close(30)


def test_a_thread_that_is_refused(
    make: Any, work: Work, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What waits for it is known to, until the next wake finds one."""
    crew = make(1, work.short)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        crew.add([claim(1)])
    assert crew.starved
    assert "no thread could be started for" in caplog.text
    crew.wake()

    wait_until(lambda: len(work.finished) == 1)
    assert not crew.starved


def no_thread(_: threading.Thread) -> None:
    """Be a system that has no more threads."""
    raise RuntimeError("can't start new thread")


def test_a_run_that_raises_all_the_same_gives_its_claim_back(
    make: Any, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong below, a claim never stays with a dead thread."""
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append(args.exc_value))

    def perform(one: Claim) -> None:
        if one.id == 1:
            raise MemoryError
        work.short(one)

    crew = make(1, perform)
    crew.add([claim(1), claim(2)])

    wait_until(lambda: len(work.finished) == 2)
    # The thread tells of its own end last, after another has taken its place.
    wait_until(lambda: bool(seen))
    assert isinstance(seen[0], MemoryError)
