"""The flag that signals set: whatever the thread that handles them was in the middle of."""

import logging
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oban_actors.signals import StopFlag, stopping

HAMMERED = """
import faulthandler, random, signal, sys
from oban_actors.signals import StopFlag, stopping

faulthandler.dump_traceback_later(60, exit=True)
rng = random.Random(int(sys.argv[1]))
for _ in range(3_000):
    over = StopFlag()
    with stopping("x", over, lambda: None):
        signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(20e-6, 400e-6))
        while not over.wait(0.00002):
            pass
"""


def test_a_signal_at_any_moment_of_a_wait() -> None:
    """Thousands of them, right when a wait begins or ends: none hangs."""
    seed = str(random.SystemRandom().randrange(2**31))
    done = subprocess.run(
        [sys.executable, "-c", HAMMERED, seed], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, ""), f"seed {seed}"


def test_who_waits_is_woken() -> None:
    """By any thread, before it waits or after."""
    flag = StopFlag()
    assert not flag.wait(0.001)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(flag.wait, 60)
        flag.set()
        assert waiting.result(30) is True
    assert flag.is_set()
    assert flag.wait(60)


def test_a_signal_together_with_a_hang_up(caplog: pytest.LogCaptureFixture) -> None:
    """A service manager may send both, in any order; only a further one is impatience."""
    caplog.set_level(logging.INFO, "oban_actors")
    for number in (signal.SIGHUP, signal.SIGTERM):
        flag, hurried = StopFlag(), threading.Event()
        with stopping("Oban", flag, hurried.set):
            os.kill(os.getpid(), number)
            assert flag.wait(30)
            os.kill(os.getpid(), signal.SIGTERM if number == signal.SIGHUP else signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGINT)
            assert hurried.wait(30)
    stopped = [f"Oban stops on {name}" for name in ("SIGHUP", "SIGTERM")]
    assert caplog.messages == [
        *(stopped[0], "Oban hurries on SIGINT", stopped[1], "Oban hurries on SIGINT")
    ]


def test_the_second_signal_hurries(caplog: pytest.LogCaptureFixture) -> None:
    """The first one stops, and the handlers of before are back at the end."""
    caplog.set_level(logging.INFO, "oban_actors")
    flag, hurried, before = StopFlag(), threading.Event(), signal.getsignal(signal.SIGTERM)
    with stopping("Oban", flag, hurried.set):
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.wait(30)
        assert not hurried.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert hurried.wait(30)

    assert signal.getsignal(signal.SIGTERM) == before
    assert caplog.messages == ["Oban stops on SIGTERM", "Oban hurries on SIGTERM"]
