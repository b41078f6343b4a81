"""Roster: which jobs of a queue this node has, whatever becomes of the actors around it."""

import threading
import uuid
from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from oban_actors import job_events
from oban_actors.actors.clock import real_monotonic
from oban_actors.claim import Claim, Claimant
from oban_actors.config import Config
from oban_actors.engines import ProducerBeat

MOST_ACKS = 1_000
"""Acknowledgements written at once; more make a transaction long and save nothing."""

LEAST_BACKLOG = 200
"""Unwritten acknowledgements that stop fetching, where the limit is smaller."""

_VERSION = 8


def producer_uuid() -> str:
    """Make an identity of a producer: of version 8, so that a claim tells that it is ours."""
    bits = uuid.uuid4().int & ~(0xF << 76) | (_VERSION << 76)
    return str(uuid.UUID(int=bits))


def is_ours(text: str) -> bool:
    """Whether an identity in `attempted_by` was made by `producer_uuid`."""
    try:
        return uuid.UUID(text).version == _VERSION
    except ValueError:
        return False


class Roster:
    """The claims of one queue, from fetch to acknowledgement.

    It is what an ETS table is in Erlang: handed to the actors of a queue, safe for all threads,
    and older than any of them. A thread that runs a job lives on when an actor crashes, so what
    is known of its job has to.

    Args:
        config: the instance's options.
        queue: the queue's name.
        limit: most jobs that run at once.
        paused: whether it begins without fetching.

    Attributes:
        claimant: who claims, as it stands in the rows.
        limit: as given, or as scaled since.
        paused: as given, or as told since.
        started_at: when the queue was started.
        updated_at: when it was told something last.
        shutdown_at: monotonic seconds at which it began to end, None while it doesn't.
        shutdown_started_at: the same as a time.
        drained_at: monotonic seconds at which it had nothing more to wait for then, None before.
        hurried: whether nobody waits for its jobs to end by themselves.
        active: whether there is a producer for it.
        unsure: whether it ended with claims in the table that it may not know of.
        interrupted: ids of jobs whose runs ended without an end to write, and that were not given
            back yet.
        unreleased: ids of claims that nobody holds and that could not be given back, refused or
            locked, those that were tried last at the end.
        named: those of them that the log has named as refused.
        ended: called when the first of several jobs has ended; set by who acknowledges.

    """

    def __init__(self, config: Config, queue: str, limit: int, *, paused: bool = False) -> None:
        self.config = config
        self.queue = queue
        self.claimant = Claimant(config.node, producer_uuid())
        self.limit = limit
        self.paused = paused
        self.started_at: datetime = config.clock.now()
        self.updated_at = self.started_at
        self.shutdown_at: float | None = None
        self.shutdown_started_at: datetime | None = None
        self.drained_at: float | None = None
        self.hurried = False
        self.active = False
        self.unsure = False
        self.interrupted: set[int] = set()
        self.unreleased: list[int] = []
        self.named: set[int] = set()
        self.ended: Callable[[], object] | None = None
        self._lock = threading.Lock()
        self._drained = threading.Condition(self._lock)
        self._held: set[Claim] = set()
        self._stuck: set[Claim] = set()
        self._done: list[Claim] = []
        self._taken: list[Claim] = []
        self._blocked: list[Claim] = []
        self._running = 0
        self._told = False

    # Claims come

    def hold(self, claims: Iterable[Claim]) -> None:
        """Take up claims that a fetch has brought; they count as running from here on."""
        with self._lock:
            before = len(self._held)
            self._held.update(claims)
            self._running += len(self._held) - before

    def finish(self, claim: Claim) -> None:
        """Note that a run is over; its acknowledgement waits to be written."""
        with self._lock:
            self._running -= 1
            self._stuck.discard(claim)
            if claim.ack is None:
                # Nothing to write: it stays executing, for whoever rescues it.
                self._held.discard(claim)
                self.interrupted.add(claim.id)
                self.unsure = True
            else:
                # Let go of at once, most jobs are never looked at by the garbage collector.
                if claim.verdict == "success" and not job_events.heard():
                    claim.forget()
                self._done.append(claim)
            # Where there is nothing to take, nobody takes it, and the next end is to be told of.
            told, self._told = self._told, self._told or claim.ack is not None
            self._notify_drained()
            ended = self.ended
        if not told and ended is not None:
            ended()

    def mark_stuck(self, claim: Claim) -> bool:
        """Note that a run is out of time and goes on; False if it is over by now."""
        with self._lock:
            if claim not in self._held or claim.ack is not None:
                return False
            claim.stuck = True
            self._stuck.add(claim)
            return True

    def drop(self, claims: Collection[Claim]) -> None:
        """Forget claims that have never begun to run, and that were given back."""
        with self._lock:
            for claim in claims:
                if claim in self._held:
                    self._held.discard(claim)
                    self._running -= 1
            self._notify_drained()

    # Acknowledgements go

    def take(self) -> list[Claim]:
        """Take what has ended, the oldest first, to be written; `settle` or `restore` follows.

        Of a job that was taken from this node and came back to it, one end at a time.
        """
        with self._lock:
            self._told = False
            taken, rest = self._done[:MOST_ACKS], self._done[MOST_ACKS:]
            if len({claim.id for claim in taken}) < len(taken):
                firsts = {claim.id: claim for claim in reversed(taken)}
                rest = [claim for claim in taken if firsts[claim.id] is not claim] + rest
                taken = [claim for claim in taken if firsts[claim.id] is claim]
            self._taken, self._done = taken, rest
            return taken

    def settle(self, blocked: Collection[int] = (), left: Collection[int] = ()) -> list[Claim]:
        """Note that what was taken is written.

        Args:
            blocked: but for these, whose row somebody has locked, or the database refuses.
            left: and these, to be taken next, as they were not tried.

        Returns:
            the claims that are over.

        """
        with self._lock:
            over = self._taken
            if blocked or left:
                over = [c for c in self._taken if c.id not in blocked and c.id not in left]
                self._blocked += [claim for claim in self._taken if claim.id in blocked]
                self._done = [claim for claim in self._taken if claim.id in left] + self._done
            self._taken = []
            self._held.difference_update(over)
            self._notify_drained()
            return over

    def restore(self) -> None:
        """Put back what was taken and may not have been written; writing it twice does no harm."""
        with self._lock:
            self._done = self._taken + self._done + self._blocked
            self._taken = []
            self._blocked = []

    def unblock(self) -> None:
        """Let what was locked or refused be tried again, behind all that was not."""
        with self._lock:
            self._done += self._blocked
            self._blocked = []

    # What there is

    @property
    def demand(self) -> int:
        """How many jobs may be fetched; a stuck thread's slot is given again, up to the limit."""
        with self._lock:
            if self._waiting() > max(self.limit, LEAST_BACKLOG):
                return 0
            again = min(len(self._stuck), self.limit)
            return max(0, self.limit + again - self._running)

    @property
    def unwritten(self) -> int:
        """How many acknowledgements can be written now."""
        with self._lock:
            return len(self._done) + len(self._taken)

    @property
    def waiting(self) -> int:
        """How many acknowledgements wait, those included whose row is locked or refused."""
        with self._lock:
            return self._waiting()

    @property
    def left_over(self) -> bool:
        """Whether its queue has ended without having written all that there is to write."""
        return not self.active and (self.unsure or self.waiting > 0)

    @property
    def threads(self) -> int:
        """How many threads may run its jobs, the stuck ones included."""
        return self.limit + min(len(self._stuck), self.limit)

    def held(self) -> list[Claim]:
        """List all claims that are not settled."""
        with self._lock:
            return list(self._held)

    def running(self) -> list[Claim]:
        """List the claims whose run is not over."""
        with self._lock:
            return [claim for claim in self._held if claim.ack is None]

    def stuck(self) -> list[Claim]:
        """List the claims whose run is out of time and goes on."""
        with self._lock:
            return list(self._stuck)

    def summary(self) -> str:
        """Say how many run and are stuck, for the tree."""
        with self._lock:
            running, stuck = self._running, len(self._stuck)
        return f"{running} running" + (f", {stuck} stuck" if stuck else "")

    def find(self, job_id: int) -> list[Claim]:
        """Find the claims of a job whose run is not over; two, where it was taken and came back."""
        return [claim for claim in self.running() if claim.id == job_id]

    def beat(self) -> ProducerBeat:
        """Describe the producer as it shows itself to others."""
        with self._lock:
            running = self._running
        return ProducerBeat(
            claimant=self.claimant,
            identity=self.config.identity,
            name=self.config.name,
            queue=self.queue,
            limit=self.limit,
            paused=self.paused,
            running=running,
        )

    # Ending

    def begin_shutdown(self) -> float:
        """Fetch nothing more; returns the monotonic time at which that was asked first."""
        with self._lock:
            self.paused = True
            if self.shutdown_at is None:
                self.shutdown_started_at = self.config.clock.now()
                self.shutdown_at, self.drained_at = real_monotonic(), None
                self._notify_drained()
            return self.shutdown_at

    def hurry(self) -> None:
        """Let nobody wait for its jobs to end by themselves."""
        with self._lock:
            self.hurried = True
            self._drained.notify_all()

    def wait_drained(self, until: float, *, patient: bool = True) -> bool:
        """Wait until nothing runs and nothing waits to be written.

        Args:
            until: monotonic seconds after which it is given up.
            patient: whether it waits on when it is told to hurry, default True.

        """
        with self._lock:
            while not self._is_drained():
                if self.hurried and not patient:
                    return False
                left = until - real_monotonic()
                if left <= 0 or not self._drained.wait(min(left, threading.TIMEOUT_MAX)):
                    return self._is_drained()
            return True

    def _waiting(self) -> int:
        return len(self._done) + len(self._taken) + len(self._blocked)

    def _is_drained(self) -> bool:
        return not self._held

    def _notify_drained(self) -> None:
        if self._held:
            return
        if self.shutdown_at is not None and self.drained_at is None:
            self.drained_at = real_monotonic()
        self._drained.notify_all()
