"""In which order a tree ends, and what it leaves to the host."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oban_actors.actors import Down, GenServer, Ref
from tests.support.instances import Starter
from tests.support.waiting import wait_until

IN_ORDER = ["notifier", "queues", "peer", "pulse", "stager", "plugins"]


class _Own(GenServer):
    """An actor of the host's in the tree."""


class _Watcher(GenServer):
    """Notes who ends, in the order in which they do."""

    def __init__(self, refs: dict[str, Ref]) -> None:
        super().__init__()
        self.refs = refs
        self.ended: list[str] = []

    def init(self) -> None:
        for ref in self.refs.values():
            self.monitor(ref)

    def handle_info(self, message: Any) -> None:
        if isinstance(message, Down):
            self.ended += [name for name, ref in self.refs.items() if ref is message.ref]


def test_it_ends_in_order(start_oban: Starter) -> None:
    """Nothing new is staged, then leadership is given back, then queues drain; beats outlast them.

    The Notifier, which all of them need, goes last, but for the root.
    """
    oban = start_oban.leading(plugins=[_Own], queues={"alpha": 1}, stager={"interval": 0.2})
    assert [node.id for node in oban.tree().children] == IN_ORDER
    producer = oban.whereis(("producer", "alpha"))
    refs = {name: oban.whereis(name) for name in ("oban", "notifier", "peer", "pulse", "stager")}
    watcher = _Watcher.start(refs | {"producer": producer})
    ended: list[str] = watcher.proxy().ended.get()

    oban.stop()

    wait_until(lambda: len(ended) == 6)
    watcher.stop()
    assert ended == ["stager", "peer", "producer", "pulse", "notifier", "oban"]


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
