"""Other ways to run the tests: each alone, and with threads held up."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import jitter
from tests.support.postgres import GIVEN

ROOT = Path(__file__).resolve().parents[1]
TESTS = """
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

SEEN = []


@contextmanager
def cleaned():
    try:
        yield
    finally:
        Path(__file__).with_name("cleaned").touch()


@pytest.mark.timeout(1)
def test_too_long():
    with cleaned():
        threading.Event().wait(60)


def test_that_ends_its_process():
    os._exit(0)


def test_skipped():
    pytest.skip("not here")


@pytest.mark.parametrize("n", [1, 2])
def test_that_leaves_something(n):
    assert SEEN == []
    SEEN.append(n)


def test_that_fails():
    assert 1 == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_each_alone(tmp_path: Path, workers: str) -> None:
    """What fails, ends or takes too long is told, cleans up, and harms no other one."""
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.alone",
        "-n",
        workers,
        "-o",
        "faulthandler_timeout=50",
    ]
    done = subprocess.run(
        [*command, "-p", "no:randomly", "-rA", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {GIVEN: "postgresql://nobody@127.0.0.1:1/none"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "3 failed, 2 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    for told in ("Timeout", "its process ended without a report", "assert 1 == 2"):
        assert told in done.stdout
    assert (tmp_path / "cleaned").exists()


def test_who_is_held_up_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held up gives and raises what it would, and no thread is held up for ever."""
    waited: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda _, seconds: waited.append(seconds))

    class Held:
        def divide(self, by: int) -> float:
            return 1 / by

    jitter.wrap(Held, "divide", before=True, after=True)
    assert {Held().divide(2) for _ in range(5_000)} == {0.5}
    with pytest.raises(ZeroDivisionError):
        Held().divide(0)
    assert 1 < sum(waited) < 10
