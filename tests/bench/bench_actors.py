"""The actor layer: what messages, lives and timers cost, beside plain pykka in the same run."""

import logging
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pykka

from oban_actors.actors import GenServer, Runtime, Sender, ServerCrashed, Supervisor
from tests.bench.report import Report
from tests.support.waiting import wait_until

ROUNDS = 9
TELLS = 50_000
ASKS = 3_000
LIVES = 300
RESTARTS = 500
TIMERS = 2_000
SPREAD = 3.0
CHILDREN = 50

Figures = dict[str, list[float]]


class Echo(GenServer):
    """Ours: answers with the question, drops what it is told."""

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Answer, or crash."""
        if message is RuntimeError:
            raise message
        return message

    def handle_info(self, message: Any) -> None:
        """Do nothing."""


class Plain(pykka.ThreadingActor):
    """pykka's: the same."""

    use_daemon_thread = True

    def on_receive(self, message: Any) -> Any:
        """Answer."""
        return message


class Clocked(GenServer):
    """Notes how late each message is that says when it was due."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[float] = []

    def handle_info(self, message: float) -> None:
        """Note it, in milliseconds."""
        self.late.append((time.monotonic() - message) * 1e3)


def run(report: Report) -> None:
    """Measure all; each figure is the median of rounds in which both kinds take turns."""
    logging.disable(logging.CRITICAL)
    try:
        _compared(report)
        _by_name(report)
        _restarts(report)
        _spread_timers(report)
        _timers_at_once(report)
        with busy_threads(2):
            _loaded(report)
    finally:
        logging.disable(logging.NOTSET)


# Beside plain pykka


def _compared(report: Report) -> None:
    ours: Figures = {}
    theirs: Figures = {}
    for _ in range(ROUNDS):
        for cls, figures in ((Echo, ours), (Plain, theirs)):
            for name, value in _measure(cls):
                figures.setdefault(name, []).append(value)
    for name, goal, unit in (
        ("tell", "> 1", "1/s"),
        ("ask, p50", "< 1.2", "us"),
        ("ask, p99", "< 1.5", "us"),
        ("start", "> 0.7", "1/s"),
        ("stop", "> 0.8", "1/s"),
        (f"shutdown of {CHILDREN} idle", "< 1.5", "ms"),
    ):
        mine, plain = statistics.median(ours[name]), statistics.median(theirs[name])
        report.add(name, mine, unit)
        report.add(f"{name}, plain pykka", plain, unit)
        report.add(f"{name}, ratio", mine / plain, "ours / pykka", goal)


def _measure(cls: Any) -> Iterator[tuple[str, float]]:
    ref = cls.start()
    began = time.perf_counter()
    for number in range(TELLS):
        ref.tell(number)
    ref.ask(0, timeout=60)
    yield "tell", TELLS / (time.perf_counter() - began)
    ranked = sorted(times(lambda: ref.ask(1), ASKS, 1e6))
    yield "ask, p50", ranked[len(ranked) // 2]
    yield "ask, p99", ranked[len(ranked) * 99 // 100]
    ref.stop()
    began = time.perf_counter()
    refs = [cls.start() for _ in range(LIVES)]
    yield "start", LIVES / (time.perf_counter() - began)
    began = time.perf_counter()
    for ref in refs:
        ref.stop()
    yield "stop", LIVES / (time.perf_counter() - began)
    yield f"shutdown of {CHILDREN} idle", _shutdown(cls)


def _shutdown(cls: Any) -> float:
    if cls is Echo:
        root = Supervisor.start([Echo.child_spec(id=one) for one in range(CHILDREN)])
        began = time.perf_counter()
        root.stop()
    else:
        for _ in range(CHILDREN):
            cls.start()
        began = time.perf_counter()
        pykka.ActorRegistry.stop_all()
    return (time.perf_counter() - began) * 1e3


def times(do: Callable[[], object], count: int, scale: float) -> list[float]:
    """Do it so often, and give how long each time took, in seconds times `scale`."""
    samples = []
    for _ in range(count):
        began = time.perf_counter()
        do()
        samples.append((time.perf_counter() - began) * scale)
    return samples


# What plain pykka has not


def _by_name(report: Report) -> None:
    with Supervisor.start([Echo.child_spec(name="echo")]) as root:
        samples = times(lambda: root.ask("echo", 1), ASKS, 1e6)
    report.add_samples("ask by name", samples, "us", goal="< 571")


def _restarts(report: Report) -> None:
    report.add_samples("crash until the successor answers", restarts(RESTARTS), "ms", goal="< 15")


def restarts(count: int) -> list[float]:
    """Let an actor crash so often, and give the ms until its successor answers."""
    spec = Echo.child_spec(name="echo")
    samples = []
    with Supervisor.start([spec], max_restarts=10, max_seconds=1e-9) as root:
        for _ in range(count):
            before = root.whereis("echo")
            began = time.perf_counter()
            try:
                root.ask("echo", RuntimeError)
            except ServerCrashed:
                # No wait_until: its pauses are longer than what is measured.
                while root.whereis("echo") in (None, before):
                    time.sleep(0)
            root.ask("echo", 1)
            samples.append((time.perf_counter() - began) * 1e3)
    return samples


def _spread_timers(report: Report) -> None:
    delays = [SPREAD * number / TIMERS for number in range(TIMERS)]
    report.add_samples(
        f"lateness of {TIMERS} timers over {SPREAD:g} s", lateness(delays), "ms", goal="< 14.6"
    )
    late: list[float] = []
    threads = []
    for delay in delays[:: max(1, TIMERS // 500)]:
        due = time.monotonic() + delay
        note = threading.Timer(delay, lambda at=due: late.append((time.monotonic() - at) * 1e3))
        note.start()
        threads.append(note)
    for note in threads:
        note.join()
    report.add_samples("lateness of 500 threading.Timer", late, "ms")


def _timers_at_once(report: Report) -> None:
    report.add_samples(
        f"lateness of {TIMERS} timers at one instant", lateness([], at_once=True), "ms"
    )


def lateness(delays: list[float], *, at_once: bool = False) -> list[float]:
    """Set timers, and give how many ms late each message came."""
    runtime = Runtime()
    ref = Clocked.start_link(runtime=runtime)
    actor: Any = ref.proxy()
    instant = time.monotonic() + 0.5
    for number in range(TIMERS if at_once else len(delays)):
        now = time.monotonic()
        due = instant if at_once else now + delays[number]
        runtime.timers.send_after(ref, due, due - now)
    wait_until(lambda: len(actor.late.get()) == (TIMERS if at_once else len(delays)))
    late: list[float] = actor.late.get()
    ref.stop()
    runtime.close()
    return late


# With the interpreter's lock fought over


@contextmanager
def busy_threads(count: int) -> Iterator[Callable[[], int]]:
    """Let so many threads compute meanwhile, and give what tells how much they have."""
    over, done = threading.Event(), [0] * count

    def spin(number: int) -> None:
        while not over.is_set():
            sum(range(1_000))
            done[number] += 1

    threads = [threading.Thread(target=spin, args=(each,)) for each in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(done)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _loaded(report: Report) -> None:
    delays = [SPREAD * number / TIMERS for number in range(TIMERS)]
    report.add_samples("lateness of timers beside 2 busy threads", lateness(delays), "ms", "< 86")
    both = []
    for cls, name in ((Echo, "ask"), (Plain, "ask, plain pykka,")):
        ref: Any = cls.start()
        samples = times(lambda ref=ref: ref.ask(1), 200, 1e3)  # type: ignore[misc]  # as above
        ref.stop()
        report.add_samples(f"{name} beside 2 busy threads", samples, "ms")
        both.append(statistics.median(samples))
    report.add("ask beside 2 busy threads, ratio", both[0] / both[1], "ours / pykka", "< 1.2")
