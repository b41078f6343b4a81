"""What a thousand lives leave behind: nothing."""

import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pykka
import pytest

from oban_actors.actors import Root, ServerCrashed, StartFailed, Supervisor
from oban_actors.actors.process import _LIVE
from tests.actors.conftest import StartTree
from tests.actors.lab import Boom, Hooks, Journal, Lab, Run, crash, lab
from tests.support.waiting import wait_until

CYCLES = 1_000
MIB = 1 << 20


@pytest.fixture
def _quiet() -> Iterator[None]:
    # A log record keeps its traceback, and pytest keeps the record.
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


class _Deaf(Journal):
    """Writes nothing: a journal would grow."""

    def __call__(self, *line: object) -> None:
        """Write nothing."""


def _use(me: Lab) -> None:
    """Leave in an actor's care all that its end must clear away."""
    me.runtime.registry.subscribe("news", me.actor_ref)
    me.send_after("never", 3600).cancel()
    me.send_after("soon", 0)
    if me.tag == "a":
        other = me.whereis("b")
        assert other is not None
        me.monitor(other)


def _cycle(root: Root) -> None:
    before = root.whereis("a")
    assert before is not None
    before.ask(Run(_use))
    pending = before.ask(Run(lambda _: None), block=False)
    with pytest.raises(ServerCrashed):
        before.ask(crash())
    pending.get()
    wait_until(lambda: root.whereis("a") not in (None, before))
    root.ask("a", "sync")


def _resident() -> int:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * 4096 if pages.exists() else 0


def _objects() -> int:
    while gc.collect():
        pass
    return len(gc.get_objects())


def _entries() -> int:
    # Others' tests may have left instances in modules, which is nobody's leak.
    _objects()
    return len(_LIVE)


@pytest.mark.slow
@pytest.mark.usefixtures("_quiet")
def test_crash_and_restart_cycles(tree: StartTree) -> None:
    """1,000 crashes and restarts leak no thread, no object, no byte and no entry anywhere."""
    entries = _entries()
    deaf = _Deaf()
    root = tree([lab("b", deaf), lab("a", deaf)], max_restarts=5, max_seconds=1e-9)
    for _ in range(100):
        _cycle(root)
    threads, objects, resident = threading.active_count(), _objects(), _resident()
    for _ in range(CYCLES):
        _cycle(root)
    wait_until(lambda: threading.active_count() <= threads)
    assert root.tree().children[1].restarts == CYCLES + 100
    wait_until(lambda: _objects() - objects < 100, message="objects pile up")
    assert _resident() - resident < 8 * MIB
    assert _entries() - entries < 20
    assert pykka.ActorRegistry.get_all() == [root.ref]
    assert set(root.runtime.registry.names()) == {"a", "b"}
    assert root.runtime.registry._listeners == {}


@pytest.mark.slow
@pytest.mark.usefixtures("_quiet")
def test_whole_trees() -> None:
    """Trees that come and go, some of them failing to start, leave nothing either."""
    entries = _entries()
    deaf = _Deaf()

    def fail(_: Lab) -> None:
        raise Boom

    def life() -> None:
        with Supervisor.start([lab("b", deaf), lab("a", deaf)]) as root:
            root.ask("a", Run(_use))
        with pytest.raises(StartFailed):
            Supervisor.start([lab("a", deaf), lab("b", deaf, hooks=Hooks(init=fail))])

    for _ in range(50):
        life()
    objects, resident = _objects(), _resident()
    for _ in range(300):
        life()
    wait_until(lambda: _objects() - objects < 100, message="objects pile up")
    assert _resident() - resident < 8 * MIB
    assert _entries() - entries < 20
