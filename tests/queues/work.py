"""Workers that do what their job's args say, and what a test sees of their runs."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from oban_actors import Cancel, Job, Listen, Oban, Snooze, worker
from oban_actors.actors import TerminateChild
from oban_actors.claim import Claim
from oban_actors.messages import QueueView
from tests.support.waiting import wait_until

PATIENCE = 60.0
"""Seconds after which a run that nobody lets go ends by itself."""


class Work:
    """What runs of one test did, and the gate that holds those that wait.

    Attributes:
        ran: ids of the jobs that began, in their order.
        inside: how many run now.
        most: how many ever ran at once.
        told: why runs were told to end, by the job's id.

    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.gate: Future[None] = Future()
        self.ran: list[int] = []
        self.inside = 0
        self.most = 0
        self.told: dict[int, str | None] = {}
        self.full = threading.Barrier(5)
        self.afull = asyncio.Barrier(5)

    def begin(self, job: Job) -> None:
        """A run begins."""
        with self._lock:
            self.ran.append(job.id or 0)
            self.inside += 1
            self.most = max(self.most, self.inside)

    def end(self, job: Job) -> None:
        """A run ends."""
        with self._lock:
            if job.running is not None and job.running.cancelled:
                self.told[job.id or 0] = job.running.reason
            self.inside -= 1

    def open(self) -> None:
        """Let all go that wait."""
        if not self.gate.done():
            self.gate.set_result(None)

    def wait_inside(self, count: int) -> None:
        """Wait until so many run at once."""
        wait_until(lambda: self.inside == count, message=f"{count} inside, now {self.inside}")

    @property
    def again(self) -> dict[int, int]:
        """Jobs that ran more than once, and how often."""
        return {job_id: count for job_id, count in Counter(self.ran).items() if count > 1}


_current = Work()


def renew() -> Work:
    """Begin another test's work."""
    global _current  # noqa: PLW0603 (workers are the program's, and so is what they see)
    _current = Work()
    return _current


def _raise(error: BaseException) -> Any:
    raise error


@dataclass(frozen=True)
class Frozen(Exception):
    """An error of which nothing can be set."""

    code: int = 7


class Hostile:
    """What can't even be asked for its class."""

    @property  # type: ignore[misc]  # a class is not to be like that
    def __class__(self) -> Any:
        """Raise."""
        raise ZeroDivisionError


SIMPLE: dict[str, Callable[[], Any]] = {
    "return": lambda: 7,
    "nothing": lambda: None,
    "raise": lambda: _raise(ValueError("kaboom")),
    "exit": lambda: _raise(SystemExit(3)),
    "raise-frozen": lambda: _raise(Frozen()),
    "hostile": Hostile,
    "cancel": lambda: Cancel("no more"),
    "raise-cancel": lambda: _raise(Cancel("no more")),
    "snooze": lambda: Snooze(60),
    "raise-snooze": lambda: _raise(Snooze(60)),
    "snooze-none": lambda: Snooze(0),
}


def _timeout(job: Job) -> float | None:
    seconds = job.args.get("timeout")
    return seconds if isinstance(seconds, float) else None


def _obey(work: Work, job: Job) -> Any:
    match job.args.get("do", "return"):
        case "wait":
            work.gate.result(PATIENCE)
        case "wait-cancel":
            work.gate.result(PATIENCE)
            return SIMPLE["cancel"]()
        case "heed":
            wait_until(lambda: job.cancelled or work.gate.done(), PATIENCE)
        case "meet":
            work.full.wait(PATIENCE)
        case "loop":
            return asyncio.run(_own_loop())
        case what:
            return SIMPLE[what]()
    return None


async def _own_loop() -> int:
    await asyncio.gather(*(asyncio.to_thread(lambda: None) for _ in range(3)))
    return 7


async def _aobey(work: Work, job: Job) -> Any:
    match job.args.get("do", "return"):
        case "wait" | "heed":
            await asyncio.shield(asyncio.wrap_future(work.gate))
        case "block":
            work.gate.result(PATIENCE)
        case "forever":
            await asyncio.Event().wait()
        case "refuse":
            await _refuse(work)
        case "meet":
            await work.afull.wait()
        case what:
            return SIMPLE[what]()
    return None


async def _refuse(work: Work) -> None:
    while not work.gate.done():
        try:
            await asyncio.shield(asyncio.wrap_future(work.gate))
        except asyncio.CancelledError:
            continue


@worker(name="tests.obey", queue="alpha", timeout=_timeout)
def obey(job: Job) -> Any:
    """Do what the job says, in a thread."""
    work = _current
    work.begin(job)
    try:
        return _obey(work, job)
    finally:
        work.end(job)


@worker(name="tests.aobey", queue="alpha", timeout=_timeout)
async def aobey(job: Job) -> Any:
    """Do what the job says, on the event loop."""
    work = _current
    work.begin(job)
    try:
        return await _aobey(work, job)
    finally:
        work.end(job)


OBEY = {"sync": obey, "async": aobey}


def jobs(kind: str, count: int, what: str = "return", **options: Any) -> list[Job]:
    """Make so many jobs that do the same."""
    return [OBEY[kind].new({"do": what}, **options) for _ in range(count)]


def read(oban: Oban, job: Job) -> Job:
    """Read a job that is there."""
    found = oban.get_job(job.id or 0)
    assert found is not None
    return found


def wait_state(oban: Oban, job: Job, state: str) -> Job:
    """Wait until a job is in a state, and give it."""
    wait_until(lambda: read(oban, job).state == state, message=f"{job} {state}")
    return read(oban, job)


def view(oban: Oban, queue: str = "alpha") -> QueueView:
    """Look at a queue that is there."""
    found = oban.check_queue(queue)
    assert found is not None
    return found


def without_beats(oban: Oban) -> Oban:
    """Wait until the first look is over, and let it beat no more: no beat makes up for anything."""
    oban.ask("oban", TerminateChild("pulse"), timeout=30)
    # What comes with the first listening is a reason to look as well.
    producer = oban.whereis(("producer", "alpha"))
    oban.ask("notifier", Listen(("insert", "signal"), producer), timeout=30)
    view(oban)
    return oban


def claims(oban: Oban, queue: str = "alpha") -> dict[int, Claim]:
    """What a node has of a queue, by the jobs' ids."""
    rosters = [each for each in oban._parts.workforce.rosters() if each.queue == queue]
    return {claim.id: claim for roster in rosters for claim in roster.held()}


def crashes(oban: Oban) -> list[str]:
    """What any actor of the tree died of."""
    return [node.last_crash for node in oban.tree().walk() if node.last_crash]


def job(kind: str, what: str, **options: Any) -> Job:
    """Make one job that does this."""
    (one,) = jobs(kind, 1, what, **options)
    return one
