"""In which order a tree ends, and what it leaves to the host."""

import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from oban_actors import Oban, Reason
from oban_actors.actors import GenServer, Name
from oban_actors.actors.process import process_of
from tests.support.instances import Starter

IN_ORDER = ["notifier", "queues", "peer", "pulse", "stager", "plugins"]


class _Own(GenServer):
    """An actor of the host's in the tree."""


def note_ends(oban: Oban, names: Sequence[Name]) -> list[Name]:
    """Note who has ended by `terminate`, in the order in which they do."""
    ended: list[Name] = []

    def watch(name: Name) -> None:
        actor = process_of(oban.whereis(name)).actor
        terminate: Callable[[Reason], None] = actor.terminate

        def noted(reason: Reason) -> None:
            terminate(reason)
            ended.append(name)

        actor.terminate = noted  # type: ignore[method-assign]  # what is noted is when it returns

    for name in names:
        watch(name)
    return ended


def test_it_ends_in_order(start_oban: Starter) -> None:
    """Nothing new is staged, then leadership is given back, then queues drain; beats outlast them.

    The Notifier, which all of them need, goes last, but for the root.
    """
    oban = start_oban.leading(plugins=[_Own], queues={"alpha": 1}, stager={"interval": 0.2})
    assert [node.id for node in oban.tree().children] == IN_ORDER
    producer = ("producer", "alpha")
    ended = note_ends(oban, ["oban", "notifier", producer, "peer", "pulse", "stager"])

    oban.stop()

    assert ended == ["stager", "peer", producer, "pulse", "notifier", "oban"]


def test_signals_are_the_hosts(start_oban: Starter) -> None:
    """Only `run` installs handlers: a tree that runs otherwise leaves them as they are."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    with start_oban.make():
        assert [signal.getsignal(number) for number in numbers] == before


def test_run_is_for_the_main_thread(start_oban: Starter) -> None:
    """Elsewhere no handler can be installed: that is said, and nothing is started."""
    oban = start_oban.make()
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="main thread"):
        threads.submit(oban.run).result(60)

    assert not oban.alive
