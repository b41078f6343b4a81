"""What actors die of, and who is told of it, may raise anything: their trees go on all the same."""

import contextlib
import logging
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from oban_actors.actors import NoProcess, Reason, ServerCrashed, StartFailed, Supervisor
from tests.actors.conftest import StartTree
from tests.actors.lab import Gate, Hooks, Journal, Lab, crash, lab
from tests.support.waiting import wait_until


class Unspeakable(Exception):
    """An error that can't be written."""

    def __repr__(self) -> str:
        """Raise."""
        raise LookupError("no repr")

    __str__ = __repr__


def test_an_error_that_can_not_be_shown() -> None:
    """Its kind is told instead."""
    said = "<Unspeakable, its repr raised LookupError>"
    assert str(Reason.crash(Unspeakable())) == f"crashed: {said}"
    assert said in str(StartFailed("child", Unspeakable()))
    assert said in str(ServerCrashed("child", "message", Reason.crash(Unspeakable())))


@pytest.mark.parametrize("asked", [True, False])
def test_an_actor_that_dies_of_it(tree: StartTree, journal: Journal, *, asked: bool) -> None:
    """It is restarted like any other, and who has asked hears of it at once."""
    root = tree([lab("a", journal), lab("b", journal)])
    first = root.whereis("a")
    if asked:
        with pytest.raises(ServerCrashed):
            root.ask("a", crash(Unspeakable()), timeout=30)
    else:
        root.tell("a", crash(Unspeakable()))
    wait_until(lambda: (ref := root.whereis("a")) and ref is not first)

    assert root.ask("a", "there?") == "there?"
    assert root.alive
    crashes = [each.last_crash for each in root.tree().walk() if each.last_crash]
    assert ["its repr raised" in said for said in crashes] == [True]


def test_a_restart_that_fails_of_it(tree: StartTree, journal: Journal) -> None:
    """The supervisor says so, and tries again."""
    left = [Unspeakable(), Unspeakable()]

    def init(_: Lab) -> None:
        if started and left:
            raise left.pop()

    started: list[int] = []
    root = tree([lab("a", journal, hooks=Hooks(init=init))])
    started.append(1)
    root.tell("a", crash())
    wait_until(lambda: not left)

    def answers() -> bool:
        # While a start fails, the name stands for a moment.
        with contextlib.suppress(NoProcess, ServerCrashed):
            return bool(root.ask("a", "there?") == "there?")
        return False

    wait_until(answers)


class Refusing(logging.Filter):
    """A filter that only works where its host is."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Raise."""
        raise RuntimeError("working outside of request context")


@pytest.fixture
def refusing() -> Iterator[None]:
    """Have a host whose filter for our log raises."""
    logger, filtered = logging.getLogger("oban_actors.actors"), Refusing()
    logger.addFilter(filtered)
    yield
    logger.removeFilter(filtered)


@pytest.mark.usefixtures("refusing")
def test_a_filter_of_the_hosts_that_raises(
    tree: StartTree, journal: Journal, capfd: pytest.CaptureFixture[str]
) -> None:
    """Crashes are told to a log that can't be written, and nobody dies of that or hangs."""
    below = Supervisor.child_spec([lab("c", journal)], id="below", name="below")
    root = tree([lab("a", journal), below])
    for name in ("a", "c"):
        first = root.whereis(name)
        root.tell(name, crash())
        wait_until(lambda n=name, f=first: (ref := root.whereis(n)) and ref is not f)  # type: ignore[misc]  # mypy infers no such lambda

    assert root.ask("a", "there?") == root.ask("c", "there?") == "there?"
    root.stop(30)
    assert "working outside of request context" in capfd.readouterr().err


def test_whatever_escapes_an_actor_is_its_end(
    tree: StartTree, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in its own machinery: its supervisor hears of it, as of any other."""
    gate, clean_up = Gate(), Lab._clean_up
    root = tree([lab("a", journal)])
    first = root.whereis("a")

    def broken(self: Lab, reason: Reason) -> Reason:
        if self.actor_ref is first:
            gate.reached.set()
            raise SystemExit("put in")  # which no thread reports
        return clean_up(self, reason)

    monkeypatch.setattr(Lab, "_clean_up", broken)
    root.tell("a", crash())
    assert gate.reached.wait(30)
    wait_until(lambda: (ref := root.whereis("a")) and ref is not first)

    assert root.ask("a", "there?") == "there?"


UNHELD = """
import time
from oban_actors.actors import GenServer, Supervisor

class Slow(GenServer):
    def terminate(self, reason):
        print("terminated in order", flush=True)

def main():
    Supervisor.start([Slow.child_spec(id="slow")])

main()
"""


def test_a_tree_whose_handle_nobody_kept() -> None:
    """It ends in order with the interpreter all the same."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(UNHELD)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "terminated in order\n")
