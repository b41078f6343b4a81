"""Switching: what the interpreter's switch interval does to actors beside threads that compute."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench.bench_actors import Echo, busy_threads, lateness, restarts, times
from tests.bench.report import Report


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        intervals: in seconds; 0.005 is Python's own.
        threads: that compute, in turn.
        tells: messages told at once.
        asks: questions, one after the other.
        restarts: crashes, one after the other.
        timers: set within `spread` seconds.
        spread: see `timers`.
        alone: seconds that the threads compute with nothing beside.

    """

    intervals: tuple[float, ...] = (0.0002, 0.0005, 0.001, 0.005, 0.02)
    threads: tuple[int, ...] = (0, 2)
    tells: int = 20_000
    asks: int = 300
    restarts: int = 50
    timers: int = 500
    spread: float = 3.0
    alone: float = 1.0


def run(report: Report, size: Size = Size()) -> None:
    """Measure each interval with nothing beside, and beside threads that compute."""
    logging.disable(logging.CRITICAL)
    try:
        for threads in size.threads:
            for interval in size.intervals:
                with _switching(interval), busy_threads(threads) as computed:
                    name = f"{interval * 1e3:g} ms, {threads} busy threads"
                    _measure(report, size, name)
                    if threads:
                        report.add(f"{name}: they compute", _rate(size, computed), "rounds a CPU s")
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _switching(interval: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _measure(report: Report, size: Size, name: str) -> None:
    ref: Any = Echo.start()
    began = time.perf_counter()
    for number in range(size.tells):
        ref.tell(number)
    ref.ask(0, timeout=60)
    report.add(f"{name}: tell", size.tells / (time.perf_counter() - began), "1/s")
    report.add_samples(f"{name}: ask", times(lambda: ref.ask(1), size.asks, 1e3), "ms")
    ref.stop()
    report.add_samples(f"{name}: restart", restarts(size.restarts), "ms")
    delays = [size.spread * number / size.timers for number in range(size.timers)]
    report.add_samples(f"{name}: timers", lateness(delays), "ms")


def _rate(size: Size, computed: Callable[[], int]) -> float:
    """How much they compute with no actor beside: what the switches themselves cost."""
    pause = threading.Event()
    before, began = computed(), time.process_time()
    pause.wait(size.alone)
    return (computed() - before) / (time.process_time() - began)
