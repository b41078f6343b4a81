"""Who waits for whom, so that a wait that could never end is refused instead."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from oban_actors.actors.errors import Deadlock
from oban_actors.actors.process import CURRENT, Process


class Awaited(Protocol):
    """What an actor waits for: an answer, or another actor's start or end."""

    @property
    def target(self) -> Process | None:
        """Who has to act."""

    def over(self) -> bool:
        """Whether it has come to pass, though the waiting thread may not have noticed."""

    def fail(self, error: BaseException) -> bool:
        """Raise an error where it is waited for; False where that can't be done."""


class Milestone:
    """Another actor's start or end, as something to wait for."""

    __slots__ = ("_event", "target")

    def __init__(self, target: Process, event: threading.Event) -> None:
        self.target = target
        self._event = event

    def over(self) -> bool:
        """Whether it has started, or ended."""
        return self._event.is_set()

    def fail(self, error: BaseException) -> bool:
        """Do nothing: a supervisor's wait for its child can't be broken off."""
        return False


@contextmanager
def waiting_for(awaited: Awaited) -> Iterator[None]:
    """Mark the running actor as waiting for an answer.

    Raises:
        Deadlock: who should answer waits, at last, for the running one.

    """
    me = CURRENT.process
    if me is None:
        yield
        return
    before, me.waiting = me.waiting, awaited
    try:
        if cycle := _cycle(me):
            raise _deadlock(cycle)
        yield
    finally:
        me.waiting = before


@contextmanager
def waiting_for_child(child: Process, event: threading.Event) -> Iterator[None]:
    """Mark the running actor as waiting for one that it starts or ends.

    In a cycle this wait stands, and a call that is part of it fails: the last one.
    """
    me = CURRENT.process
    if me is None:
        yield
        return
    before, me.waiting = me.waiting, Milestone(child, event)
    try:
        cycle = _cycle(me)
        for last in reversed(range(len(cycle))):
            if cycle[last][1].fail(_deadlock(cycle[last:] + cycle[:last])):
                break
        yield
    finally:
        me.waiting = before


def refuse_below(root: Process) -> None:
    """Refuse a wait for the end of a tree to those in it, who would have to end first.

    Raises:
        Deadlock: the running actor belongs to the tree, or the calling thread does what one of
            its actors waits for.

    """
    path = []
    step = CURRENT.process
    while step is not None:
        path.append(step.label)
        if step is root:
            raise Deadlock([*path, path[0]])
        step = step.parent
    if down := _work_below(root):
        raise Deadlock([*down, down[0]])


def _work_below(process: Process) -> list[str]:
    """Give the way down to what the calling thread does for an actor, if it does anything."""
    work = process.work_here() if process.work_here else None
    if work is not None:
        return [process.label, work]
    for child in process.children() if process.children else ():
        if child.process is not None and (way := _work_below(child.process)):
            return [process.label, *way]
    return []


def _cycle(me: Process) -> list[tuple[Process, Awaited]]:
    """Walk along who waits for what; give the way, if it leads back to where it began."""
    way: list[tuple[Process, Awaited]] = []
    step = me
    while (awaited := step.waiting) is not None and not awaited.over():
        way.append((step, awaited))
        target = awaited.target
        if target is None or not target.alive:
            return []
        if target is me:
            # It is a cycle only if all these waits were there at one time.
            whole = all(process.waiting is wait and not wait.over() for process, wait in way)
            return way if whole else []
        if any(process is target for process, _ in way):
            return []
        step = target
    return []


def _deadlock(cycle: list[tuple[Process, Awaited]]) -> Deadlock:
    labels = [process.label for process, _ in cycle]
    return Deadlock([*labels, labels[0]])
