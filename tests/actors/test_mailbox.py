"""Inboxes that close: whatever the timing, no question is left without an answer."""

import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope

from oban_actors.actors import Exit, Mailbox, NoProcess, Root, ServerCrashed
from oban_actors.actors.reply import Reply
from tests.actors.conftest import StartTree
from tests.actors.lab import Journal, crash, lab
from tests.support.waiting import wait_until

ASKS = 100_000
ASKERS = 4


@pytest.fixture
def _hasty() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(10e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_put_after_close_is_refused() -> None:
    """What comes to a closed inbox is refused at once."""
    inbox, reply = Mailbox(), Reply()
    inbox.close()
    inbox.put(Envelope("late", reply))
    with pytest.raises(NoProcess):
        reply.get(timeout=0)
    assert inbox.empty()


def test_close_refuses_what_waits() -> None:
    """What waits in an inbox that closes is refused, in its order; told messages are dropped."""
    inbox, replies = Mailbox(), [Reply() for _ in range(3)]
    inbox.put(Envelope("told"))
    for reply in replies:
        inbox.put(Envelope("asked", reply))
    assert len(inbox) == 4
    inbox.close()
    for reply in replies:
        with pytest.raises(NoProcess):
            reply.get(timeout=0)
    assert len(inbox) == 0


class _Racing:
    """A queue that lets something happen just before each put, or just after it was empty."""

    def __init__(
        self, before_put: Callable[[], None] | None = None, when_empty: Any = None
    ) -> None:
        self._queue = SimpleQueue[Any]()
        self._before_put = before_put
        self._when_empty = when_empty

    def put(self, envelope: Any) -> None:
        """Let it happen, and then put."""
        if self._before_put is not None:
            self._before_put()
        self._queue.put(envelope)

    def get_nowait(self) -> Any:
        """Let it happen, once, if there is nothing."""
        try:
            return self._queue.get_nowait()
        except Empty:
            then, self._when_empty = self._when_empty, None
            if then is not None:
                then()
            raise


def test_close_in_the_midst_of_a_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inbox that closes when a put has begun, and is drained before it ends, keeps nothing."""
    inbox, reply = Mailbox(), Reply()
    monkeypatch.setattr(inbox, "_queue", _Racing(before_put=inbox.close))
    inbox.put(Envelope("late", reply))
    with pytest.raises(NoProcess):
        reply.get(timeout=0)


def test_put_in_the_midst_of_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that comes when a closing inbox has found nothing more is refused all the same."""
    inbox, reply = Mailbox(), Reply()
    late = _Racing(when_empty=lambda: inbox.put(Envelope("late", reply)))
    monkeypatch.setattr(inbox, "_queue", late)
    inbox.close()
    with pytest.raises(NoProcess):
        reply.get(timeout=0)


def test_foreign_future_is_refused_too() -> None:
    """A future that is pykka's own, put in by hand, is answered as well."""
    inbox, future = Mailbox(), pykka.ThreadingFuture[object]()
    inbox.close()
    inbox.put(Envelope("late", future))
    with pytest.raises(NoProcess):
        future.get(timeout=0)


def test_age_of_the_oldest() -> None:
    """An inbox knows how long its oldest message has waited."""
    inbox = Mailbox()
    assert inbox.oldest() is None
    inbox.put(Envelope(1))
    inbox.put(Envelope(2))
    wait_until(lambda: (inbox.oldest() or 0) > 0)
    inbox.get()
    inbox.get()
    assert inbox.oldest() is None


@pytest.mark.slow
@pytest.mark.usefixtures("_hasty", "_quiet")
def test_no_ask_hangs_around_crashes(tree: StartTree) -> None:
    """100,000 asks to an actor that keeps crashing and stopping: each ends, none by time-out."""
    root = tree([lab("echo", _Deaf())], max_restarts=10**9, max_seconds=0.001)
    with ThreadPoolExecutor(ASKERS) as pool:
        runs = [pool.submit(_ask_many, root, ASKS // ASKERS, seed) for seed in range(ASKERS)]
    ends = sum((run.result() for run in runs), Counter[str]())
    assert ends.total() == ASKS
    assert set(ends) == {"answered", "not handled", "crashed"}
    assert ends["answered"] > ends["not handled"]


class _Deaf(Journal):
    """Many thousand lives leave no line."""

    def __call__(self, *line: object) -> None:
        """Write nothing."""


def _ask_many(root: Root, asks: int, seed: int) -> Counter[str]:
    pick, ends = random.Random(seed), Counter[str]()
    ref = _find(root)
    for number in range(asks):
        fate = pick.random()
        if fate < 0.002:
            ref.actor_inbox.put(Envelope(crash()))
        elif fate < 0.004:
            ref.actor_inbox.put(Envelope(Exit()))
        elif fate < 0.006:
            ref.stop(block=False)
        fatal = 0.01 < fate < 0.015
        try:
            answer = ref.ask(crash() if fatal else number, timeout=60)
        except NoProcess:
            ends["not handled"] += 1
            ref = _find(root)
        except ServerCrashed:
            assert fatal
            ends["crashed"] += 1
            ref = _find(root)
        else:
            assert answer == number
            ends["answered"] += 1
    return ends


def _find(root: Root) -> Any:
    return wait_until(lambda: root.whereis("echo"))
