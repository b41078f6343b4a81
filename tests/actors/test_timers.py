"""Messages for later: never early, never twice, never after a cancel."""

import math
import random
import threading
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oban_actors.actors import GenServer, Runtime, Timer, VirtualClock, timers
from oban_actors.actors.clock import SYSTEM_CLOCK
from tests.actors.conftest import StartLab, StartTree
from tests.actors.lab import Journal, Lab, Run, crash, gone, lab
from tests.support.waiting import wait_until


class Tally(GenServer):
    """Keeps what it is told, with the time."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[Any, float]] = []

    def handle_info(self, message: Any) -> None:
        """Keep it."""
        self.got.append((message, self.runtime.clock.monotonic()))

    def handle_call(self, message: Any, sender: Any) -> list[tuple[Any, float]]:
        """Give all."""
        return list(self.got)


def _all(ref: Any) -> list[tuple[Any, float]]:
    told: list[tuple[Any, float]] = ref.ask("all")
    return told


def _got(ref: Any) -> list[Any]:
    return [message for message, _ in _all(ref)]


def test_fires_when_due(clock: VirtualClock) -> None:
    """A timer fires at its time, not before, and once."""
    ref = Tally.start_link(runtime=Runtime(clock))
    timers = ref.proxy().runtime.get().timers
    timer = timers.send_after(ref, "tick", 10)
    clock.advance(9.999)
    assert _got(ref) == []
    assert timer.live
    clock.advance(0.001)
    assert _got(ref) == ["tick"]
    clock.advance(100)
    assert _got(ref) == ["tick"]
    assert timer.cancel() is False
    ref.stop()


@given(
    delays=st.lists(st.floats(0, 100), max_size=20),
    steps=st.lists(st.floats(0, 30), max_size=10),
)
def test_fires_in_order_of_time(delays: list[float], steps: list[float]) -> None:
    """However time moves, what is due has come, in its order, and nothing else has."""
    clock = VirtualClock()
    runtime, ref = Runtime(clock), Tally.start()
    for number, delay in enumerate(delays):
        runtime.timers.send_after(ref, number, delay)
    for step in steps:
        clock.advance(step)
    due = [
        (round(delay * 1e9), number)
        for number, delay in enumerate(delays)
        if round(delay * 1e9) <= clock.monotonic_ns()
    ]
    assert _got(ref) == ([number for _, number in sorted(due)] if steps else [])
    ref.stop()
    runtime.close()


def test_steps_add_up(clock: VirtualClock) -> None:
    """Tenths of a second make whole ones: what is due after 0.1 s comes at each such step."""
    runtime, ref = Runtime(clock), Tally.start()
    for step in range(100):
        runtime.timers.send_after(ref, step, 0.1)
        clock.advance(0.1)
        assert _got(ref) == list(range(step + 1))
    ref.stop()


def test_clock_shows_the_due_time(clock: VirtualClock) -> None:
    """Within one move of the clock each timer fires at its own time."""
    runtime = Runtime(clock)
    times: list[float] = []

    class Seen:
        def whereis(self, name: float) -> None:
            times.append(clock.monotonic())

    runtime.timers._registry = Seen()  # type: ignore[assignment]  # it is looked up as each fires
    for due in (3.01, 1.02, 2.03):
        runtime.timers.send_after(due, "tick", due)
    clock.advance(10)
    assert times == [1.02, 2.03, 3.01]
    assert clock.monotonic() == 10
    runtime.close()


def test_never_early_on_real_time() -> None:
    """On the system's clock a message comes after its delay, never before."""
    ref = Tally.start()
    runtime = ref.proxy().runtime.get()
    due = {}
    pick = random.Random(7)
    for number in range(300):
        delay = pick.random() * 0.2
        due[number] = SYSTEM_CLOCK.monotonic() + delay
        runtime.timers.send_after(ref, number, delay)
    wait_until(lambda: len(_got(ref)) == len(due))
    assert all(at >= due[number] for number, at in _all(ref))
    ref.stop()


def test_earlier_timer_is_not_kept_waiting() -> None:
    """A timer that is due before the one that is waited for fires first."""
    runtime, ref = Runtime(), Tally.start()
    late = runtime.timers.send_after(ref, "late", 3600)
    runtime.timers.send_after(ref, "now", 0)
    wait_until(lambda: _got(ref) == ["now"])  # what it waits for from here on is the late one
    runtime.timers.send_after(ref, "soon", 0.001)
    wait_until(lambda: _got(ref) == ["now", "soon"])
    assert late.cancel() is True
    ref.stop()
    runtime.close()


def test_cancel(clock: VirtualClock) -> None:
    """A cancelled timer never fires; a second cancel says that there is nothing to cancel."""
    runtime, ref = Runtime(clock), Tally.start()
    timer = runtime.timers.send_after(ref, "tick", 1)
    assert timer.cancel() is True
    assert timer.cancel() is False
    clock.advance(2)
    assert _got(ref) == []
    ref.stop()


def _near(timer: Timer, pick: random.Random) -> bool:
    return not timer.live or pick.random() < 0.5


def test_cancelled_as_it_fires() -> None:
    """Cancelled or delivered, never both and never neither, however close the race."""
    runtime, ref = Runtime(), Tally.start()
    cancelled: list[int] = []
    pick = random.Random(11)

    def race(numbers: range) -> None:
        for number in numbers:
            timer = runtime.timers.send_after(ref, number, pick.random() * 0.0004)
            if pick.random() < 0.5:
                wait_until(partial(_near, timer, pick))
            if timer.cancel():
                cancelled.append(number)

    threads = [
        threading.Thread(target=race, args=(range(first, first + 1_000),))
        for first in range(0, 4_000, 1_000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(_got(ref)) + len(cancelled) == 4_000)
    assert sorted(_got(ref) + cancelled) == list(range(4_000))
    assert cancelled
    assert _got(ref)
    ref.stop()
    runtime.close()


def test_cancelled_while_it_is_sent(start: StartLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel that comes when the message is on its way into the inbox is too late."""
    runtime, ref = Runtime(), start()
    put, answers, threads = ref.actor_inbox.put, list[bool](), list[threading.Thread]()

    def cancel() -> None:
        answers.append(timer.cancel())

    def slow(envelope: Any) -> None:
        threads.append(threading.Thread(target=cancel))
        threads[0].start()
        threads[0].join(0.05)  # it waits for the timers' lock, or has its answer by then
        put(envelope)

    monkeypatch.setattr(ref.actor_inbox, "put", slow)
    armed = threading.Event()
    timer = runtime.timers.send_after(ref, Run(lambda _: armed.set()), 0.001)
    assert armed.wait(30)
    threads[0].join(30)
    assert answers == [False]
    monkeypatch.undo()
    runtime.close()


def test_many_cancelled_take_no_room(clock: VirtualClock) -> None:
    """Timers that are set and cancelled all the time don't pile up until they would be due."""
    runtime, ref = Runtime(clock), Tally.start()
    for _ in range(10_000):
        assert runtime.timers.send_after(ref, "never", 3600).cancel()
    assert len(runtime.timers._heap) < 1_000
    ref.stop()


def test_dies_with_its_actor(
    tree: StartTree, clock: VirtualClock, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    """A timer set for a reference ends with it, quietly: no tick of an earlier life comes."""
    root = tree([lab("a", journal)], clock=clock)
    root.ask("a", Run(lambda me: me.send_after("stale", 1).due))
    old = root.whereis("a")
    root.tell("a", crash())
    gone(old)
    wait_until(lambda: root.whereis("a"))
    clock.advance(2)
    root.ask("a", "sync")
    assert journal.about("info") == []
    assert "was lost" not in caplog.text


def test_name_is_looked_up_when_due(tree: StartTree, clock: VirtualClock, journal: Journal) -> None:
    """A timer set for a name reaches who has it then, and nobody if it is vacant."""
    root = tree([lab("a", journal)], clock=clock)
    old = root.whereis("a")
    root.runtime.timers.send_after("a", "tick", 1)
    root.runtime.timers.send_after("nobody", "tick", 1)
    root.tell("a", crash())
    gone(old)
    wait_until(lambda: root.whereis("a"))
    clock.advance(1)
    root.ask("a", "sync")
    assert journal.about("info") == [("info", "a", "tick")]


def test_rearmed_at_the_end_does_not_pile_up(
    tree: StartTree, clock: VirtualClock, journal: Journal
) -> None:
    """A handler that re-arms its timer at its end has one message at a time, however slow it is."""

    def tick(me: Lab) -> None:
        me.journal("tick", me.runtime.clock.monotonic())
        me.send_after(Run(tick), 1)

    root = tree([lab("a", journal)], clock=clock)
    root.ask("a", Run(tick))
    clock.advance(60)
    root.ask("a", "sync")
    assert journal.about("tick") == [("tick", 0.0), ("tick", 60.0)]


def test_negative_delay_is_none(clock: VirtualClock) -> None:
    """A time in the past is now."""
    runtime, ref = Runtime(clock), Tally.start()
    runtime.timers.send_after(ref, "tick", -5)
    clock.advance(0)
    assert _got(ref) == ["tick"]
    ref.stop()


@pytest.mark.parametrize("virtual", [True, False])
def test_a_moment_does_not_move(virtual: bool) -> None:  # noqa: FBT001 (a parameter)
    """What is due at a moment comes then, however late somebody asks for it, and once."""
    runtime, ref = Runtime(VirtualClock() if virtual else SYSTEM_CLOCK), Tally.start()
    past = runtime.timers.send_at(ref, "past", runtime.clock.monotonic() - 5)
    wait_until(lambda: _got(ref)[:1] == ["past"])
    now = runtime.clock.monotonic()
    later = runtime.timers.send_at(ref, "later", now + 0.02)
    never = runtime.timers.send_at(ref, "never", math.inf)
    assert (past.live, past.cancel()) == (False, False)
    if isinstance(runtime.clock, VirtualClock):
        assert later.live
        runtime.clock.advance(0.02)
        # Past by now, although nobody advances the clock any more.
        runtime.timers.send_at(ref, "missed", now + 0.01)
    else:
        runtime.timers.send_at(ref, "missed", now + 0.03)
    wait_until(lambda: _got(ref) == ["past", "later", "missed"])
    assert never.cancel() is True
    with pytest.raises(ValueError, match="NaN"):
        runtime.timers.send_at(ref, "tick", math.nan)
    ref.stop()
    runtime.close()


@pytest.mark.parametrize("virtual", [True, False])
def test_endless_delay(virtual: bool) -> None:  # noqa: FBT001 (a parameter)
    """Infinity is as good as never, and stops no other timer; what is no time is refused."""
    runtime, ref = Runtime(VirtualClock() if virtual else SYSTEM_CLOCK), Tally.start()
    never = runtime.timers.send_after(ref, "never", math.inf)
    runtime.timers.send_after(ref, "tick", 0.001)
    if isinstance(runtime.clock, VirtualClock):
        runtime.clock.advance(3600)
    wait_until(lambda: _got(ref) == ["tick"])
    assert never.cancel() is True
    with pytest.raises(ValueError, match="NaN"):
        runtime.timers.send_after(ref, "tick", math.nan)
    ref.stop()
    runtime.close()


def test_faulty_inbox_stops_no_other_timer(
    start: StartLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An inbox that fails loses its message, with a log line; the others get theirs."""

    def fail(_: object) -> None:
        raise OSError("closed")

    runtime, bad, good = Runtime(), start("bad"), Tally.start()
    monkeypatch.setattr(bad.actor_inbox, "put", fail)
    runtime.timers.send_after(bad, "tick", 0)
    runtime.timers.send_after(good, "tick", 0.001)
    wait_until(lambda: _got(good) == ["tick"])
    assert "a timer's message to" in caplog.text
    monkeypatch.undo()
    good.stop()
    runtime.close()
    with pytest.raises(TypeError, match="unhashable"):
        runtime.timers.send_after([], "tick", 0)  # type: ignore[arg-type]  # the fault to be found


def test_thread_ends_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread starts with the first timer, ends some time after the last, and starts again."""
    monkeypatch.setattr(timers, "_LINGER", 0.001)
    runtime, ref = Runtime(), Tally.start()
    assert runtime.timers._thread is None
    for number in range(3):
        runtime.timers.send_after(ref, number, 0)
        wait_until(lambda: runtime.timers._thread is None)
    assert _got(ref) == [0, 1, 2]
    ref.stop()


@pytest.mark.parametrize("virtual", [True, False])
def test_close_and_reopen(virtual: bool) -> None:  # noqa: FBT001 (a parameter)
    """Closed timers send nothing more and take nothing; reopened ones serve again."""
    clock = VirtualClock()
    runtime, ref = Runtime(clock if virtual else SYSTEM_CLOCK), Tally.start()
    runtime.timers.send_after(ref, "lost", 0.01 if virtual else 3600)
    runtime.close()
    runtime.close()
    clock.advance(1)
    assert runtime.timers.send_after(ref, "lost", 0).live is False
    for _ in range(2):
        runtime.timers.reopen()
    runtime.timers.send_after(ref, "tick", 0)
    clock.advance(0)
    wait_until(lambda: _got(ref) == ["tick"])
    ref.stop()
    runtime.close()
