"""Fixtures of the workers' tests."""

from collections.abc import Iterator

import pytest

from oban_actors import SystemClock
from oban_actors.queues.process_slot import ProcessSlot
from oban_actors.worker import registered
from oban_actors.worker_registry import forget
from tests.workers.running import performer
from tests.workers.slots import is_there


@pytest.fixture
def registry() -> Iterator[None]:
    """Forget what a test registered."""
    before = set(registered())
    yield
    for name in set(registered()) - before:
        forget(name)


@pytest.fixture
def slot() -> Iterator[ProcessSlot]:
    """A slot, closed after the test; its process is gone then."""
    one = ProcessSlot(performer(clock=SystemClock()))
    yield one
    pid = one.pid
    one.close()
    assert one.pid is None
    assert pid is None or not is_there(pid)
