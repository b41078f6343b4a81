"""Drains by several nodes, each a process of its own."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from oban_actors import Job, Oban
from tests.bench.backlog import Store, fill, unfinished
from tests.bench.program import Program
from tests.support.waiting import wait_until

WAIT = 900.0
"""Seconds that a drain may take."""


@dataclass(frozen=True)
class Drain:
    """What a drain came to.

    Attributes:
        rate: jobs per second, from the start of the first until the table shows none unfinished.
        said: what each node said.

    """

    rate: float
    said: tuple[dict[str, Any], ...]


def drain_by(
    nodes: int, store: Store, count: int, limit: int, kind: str, *, acks: bool = False
) -> Drain:
    """Let nodes that run already do so many jobs, of which they are told at once."""
    more = ("acks",) if acks else ()
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program(sys.executable, "ours", store.url, limit, 0, *more))
            for _ in range(nodes)
        ]
        for program in programs:
            program.wait_for("started")
        fill(store, count - 1, f"bench.{kind}")
        told(store, kind)
        with unfinished(store) as any_left:
            wait_until(lambda: not any_left(), WAIT, "no job is left")
        over = time.time()
        # One of them may have come too late for a single job.
        said = tuple(program.end() for program in programs)
    first = min(each["first"] for each in said if "first" in each)
    return Drain(count / (over - first), said)


def told(store: Store, kind: str) -> None:
    """Insert one more job, and tell the queue."""
    oban = Oban(store.url)
    oban.insert(Job.new({}, worker=f"bench.{kind}", queue="bench"))
    oban.repo.close()
