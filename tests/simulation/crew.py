"""Who runs jobs here: a run is a beginning and an end, and what the job's args say between."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from oban_actors import worker
from oban_actors.claim import Claim
from oban_actors.config import Config, QueueOptions
from oban_actors.job import Job
from oban_actors.performing import NeverBegun, Performer
from oban_actors.queues.roster import Roster
from oban_actors.queues.workforce import Post, Workforce
from oban_actors.results import Snooze
from tests.simulation.machine import Machine


@worker(name="sim.plain", queue="alpha", backoff=1.5)
def plain(job: Job) -> None:
    """Run as its args say; see `SimCrew`."""


@worker(name="sim.timed", queue="alpha", backoff=1.5, timeout=2.0)
def timed(job: Job) -> None:
    """Run as its args say, but not for longer than two seconds."""


@worker(name="sim.cron", queue="alpha", backoff=1.5)
def scheduled(job: Job) -> None:
    """Run at once."""


class Observer(Protocol):
    """Told of runs."""

    def began(self, machine: Machine, claim: Claim) -> None:
        """A run has begun."""

    def ended(self, machine: Machine, claim: Claim) -> None:
        """A run has ended."""


class SimCrew:
    """Runs claims, each after the other as there is room; see `Crew`.

    A job's args say how: `seconds` that it takes, `heeds` whether it ends when told to, `fails`
    in how many attempts it raises, `snoozes` how often it comes back later.

    Args:
        machine: where.
        roster: whose `threads` say how many run at once.
        performer: what begins and ends runs.
        observer: told of them.

    """

    refuses = False

    def __init__(
        self, machine: Machine, roster: Roster, performer: Performer, observer: Observer
    ) -> None:
        self._machine = machine
        self._roster = roster
        self._performer = performer
        self._observer = observer
        self._line: deque[Claim] = deque()
        self._runs: dict[Claim, bool] = {}

    def add(self, claims: Iterable[Claim]) -> None:
        """See `Crew`."""
        self._line.extend(claims)
        self.wake()

    def interrupt(self, claim: Claim) -> None:
        """See `Crew`; one that heeds its flag ends soon."""
        if self._runs.get(claim) and claim.job.args.get("heeds", True):
            self._machine.soon(0.05, self._end, claim)

    def abort(self, claim: Claim) -> bool:
        """See `Crew`."""
        return False

    def waits_in(self, claim: Claim) -> str | None:
        """See `Crew`."""
        return None

    def wake(self) -> None:
        """See `Crew`."""
        while self._line and len(self._runs) < max(self._roster.threads, 1):
            claim = self._line.popleft()
            self._runs[claim] = False
            self._machine.soon(self._machine.hub.lag(), self._begin, claim)

    def take_back(self) -> list[Claim]:
        """See `Crew`."""
        back = list(self._line)
        self._line.clear()
        return back

    @property
    def starved(self) -> bool:
        """See `Crew`."""
        return False

    def close(self, seconds: float) -> None:
        """See `Crew`."""

    def _begin(self, claim: Claim) -> None:
        try:
            self._performer.begin(claim)
        except NeverBegun as error:
            self._performer.raised(claim, error)
            self._over(claim)
            return
        self._runs[claim] = True
        self._observer.began(self._machine, claim)
        self._machine.soon(claim.job.args.get("seconds", 0.01), self._end, claim)

    def _end(self, claim: Claim) -> None:
        if claim not in self._runs:
            return
        args, attempt = claim.job.args, claim.job.attempt
        if attempt <= args.get("fails", 0):
            self._performer.raised(claim, RuntimeError("as its args say"))
        elif claim.job.meta.get("snoozed", 0) < args.get("snoozes", 0):
            self._performer.returned(claim, Snooze(1.0))
        else:
            self._performer.returned(claim, None)
        self._observer.ended(self._machine, claim)
        self._over(claim)

    def _over(self, claim: Claim) -> None:
        del self._runs[claim]
        self._roster.finish(claim)
        self.wake()


class SimWorkforce(Workforce):
    """The real one, but for its crews."""

    def __init__(
        self, config: Config, performer: Performer, machine: Machine, observer: Observer
    ) -> None:
        super().__init__(config, performer)
        self._machine = machine
        self._observer = observer

    def _make(self, queue: str, options: QueueOptions) -> Post:
        post = super()._make(queue, options)
        for crew in ("sync", "tasks"):
            made = SimCrew(self._machine, post.roster, self.performer, self._observer)
            setattr(post, crew, made)
        return post
