"""An inbox that waits for messages, a descriptor and a moment at once."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pykka._envelope import Envelope

from oban_actors.actors.clock import real_monotonic
from oban_actors.notifiers.select_mailbox import READABLE, TICK, SelectMailbox
from tests.support.waiting import wait_until


@pytest.fixture
def inbox() -> Iterator[SelectMailbox]:
    """An inbox, closed at the end."""
    inbox = SelectMailbox()
    yield inbox
    inbox.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Something to watch, and how to make it readable."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def open_descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_messages_come_in_their_order(inbox: SelectMailbox) -> None:
    """Whoever puts them."""
    for n in range(100):
        inbox.put(Envelope(n))

    assert [inbox.get().message for _ in range(100)] == list(range(100))
    assert inbox.empty()


def test_a_put_wakes_the_sleeping_owner(inbox: SelectMailbox) -> None:
    """From several threads at once, and none is lost."""
    count, writers = 2_000, 4
    heard: list[tuple[int, int]] = []

    def read() -> None:
        heard.extend(inbox.get().message for _ in range(count * writers))

    def write(writer: int) -> None:
        for n in range(count):
            inbox.put(Envelope((writer, n)))

    threads = [threading.Thread(target=read)]
    threads += [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(heard) == count * writers
    for writer in range(writers):
        assert [n for who, n in heard if who == writer] == list(range(count))


def test_a_descriptor_and_messages_take_turns(inbox: SelectMailbox, pipe: tuple[int, int]) -> None:
    """A flood of one does not hold up the other."""
    inbox.watch(pipe[0])
    os.write(pipe[1], b"x")
    for n in range(3):
        inbox.put(Envelope(n))

    assert [inbox.get().message for _ in range(6)] == [READABLE, 0, READABLE, 1, READABLE, 2]


def test_a_descriptor_given_up_is_not_watched(inbox: SelectMailbox, pipe: tuple[int, int]) -> None:
    """Even if it has something to read."""
    inbox.watch(pipe[0])
    os.write(pipe[1], b"x")
    inbox.watch(None)
    inbox.put(Envelope("message"))

    assert inbox.get().message == "message"


def test_a_signal_is_readable_once(inbox: SelectMailbox, pipe: tuple[int, int]) -> None:
    """For what the owner has read, but not handled."""
    inbox.watch(pipe[0])
    inbox.signal()
    inbox.put(Envelope("message"))

    assert [inbox.get().message, inbox.get().message] == [READABLE, "message"]


def test_a_tick_is_never_early(inbox: SelectMailbox) -> None:
    """And comes once, before messages that never end."""
    due = real_monotonic() + 0.02
    inbox.wake_at(due)

    assert inbox.get().message is TICK
    assert real_monotonic() >= due
    inbox.wake_at(real_monotonic())
    inbox.put(Envelope("message"))
    assert [inbox.get().message, inbox.get().message] == [TICK, "message"]


def test_a_moment_taken_back(inbox: SelectMailbox) -> None:
    """There is no tick then."""
    inbox.wake_at(real_monotonic())
    inbox.wake_at(None)
    inbox.put(Envelope("message"))

    assert inbox.get().message == "message"


def test_closed_while_others_put(inbox: SelectMailbox) -> None:
    """They write to no descriptor that is somebody else's by now."""
    inbox.put(Envelope(0))
    inbox.get()
    reader = threading.Thread(target=inbox.get)
    reader.start()
    wait_until(lambda: inbox._asleep)
    inbox.put(Envelope(1))
    reader.join(30)
    inbox.close()
    read, write = os.pipe()
    os.set_blocking(read, False)
    inbox._asleep = True

    inbox.put(Envelope(2))

    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    assert inbox.empty()
    os.close(read)
    os.close(write)


def test_never_used_it_opens_nothing() -> None:
    """An actor that does not start leaves no descriptor behind."""
    before = open_descriptors()

    inbox = SelectMailbox()
    inbox.put(Envelope(1))
    inbox.close()

    assert open_descriptors() == before
