"""Rescuing: what a Lifeline's actor does and remembers, from one look to the next."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from oban_actors.announcing import Announcer
from oban_actors.carrying import Carried, Work
from oban_actors.engines.rescue import ProducerReport, Rescued
from oban_actors.errors import (
    DatabaseError,
    DatabaseUnavailable,
    StatementTimeout,
)
from oban_actors.plugins.orphans import Orphans, beats_of, orphans_of
from oban_actors.plugins.plugin import PluginContext, PluginRun
from oban_actors.plugins.salvaging import Salvage
from oban_actors.plugins.watch import Sighting, Watch
from oban_actors.validation import shown

logger = logging.getLogger("oban_actors")

MOST_BATCHES = 50
"""Transactions that rescue in one run; the next one, at once, goes on."""

STATEMENT_TIME = 10.0
"""Seconds that a statement may take, so that a look is not kept from following in time."""

LOCK_TIME = 1.0
"""Seconds that a transaction waits for somebody's lock."""

IDLE_TIME = 5.0
"""Seconds that a transaction may leave the database waiting for its process."""

USED_UP = Orphans("nobody", ())
"""Stands for jobs that wait with no attempt left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How it is rescued; see `Lifeline`.

    Attributes:
        interval: seconds between two runs.
        rescue_after: seconds after which claims are given up whose claimants don't beat.
        limit: most jobs in one transaction.

    """

    interval: float
    rescue_after: float
    limit: int


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen.

    Attributes:
        first: whether who looked goes first.
        age: seconds after which claims were given up then whose claimants don't beat.
        report: who beats, and who has jobs.
        waiting: queues with jobs that can run, if who looked goes first.

    """

    first: bool
    age: float
    report: ProducerReport
    waiting: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one transaction came to, if it was committed."""

    done: Rescued = field(default_factory=Rescued)
    full: bool = False


@dataclass(slots=True)
class Rescuer:
    """Watches the producers and rescues what dead ones have left.

    It is as old as its actor: one that starts anew has seen nothing yet.

    Attributes:
        terms: how.
        watch: over the producers.
        looked: whether it has, or has tried to.
        more: whether there is more to do at once.
        first: whether it goes first, and others wait for an interval more.
        carried: a look that the Pulse has made for the next run.

    """

    terms: Terms
    watch: Watch
    looked: bool = False
    more: bool = False
    first: bool = True
    carried: Carried | None = None
    _mark: str = field(default_factory=lambda: f"lifeline:{uuid4().hex}")
    _salvage: Salvage = field(default_factory=Salvage)
    _tried: dict[Orphans, int] = field(default_factory=dict)
    _failing: set[Orphans] = field(default_factory=set)
    _halved: int = 0

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Look, and rescue.

        Returns:
            see `Lifeline.perform`.

        Raises:
            DatabaseError: the look failed.

        """
        # Whatever ends the run early, the next one comes after the interval.
        self.more, self.looked = False, True
        self._salvage.unfit.clear()
        began = _now(run)
        try:
            look = self._look(run)
        except DatabaseError:
            self.watch = self.watch.broken()
            raise
        groups = orphans_of(look.report, self.watch, self._tried, age=look.age, lag=self.lag)
        done = self._rescue_all(run, groups, began)
        if look.first and look.waiting and self.watch.fresh(_now(run)):
            done += self._discard_used_up(run, look.waiting)
        told = {
            "rescued_count": len(done.rescued),
            "rescued_jobs": done.rescued,
            "discarded_count": len(done.discarded),
            "discarded_jobs": done.discarded,
        }
        failed = tuple(each.uuid for each in groups if each in self._failing)
        more = {"failed": failed, "set_aside": tuple(self._salvage.unfit)}
        return told | {name: value for name, value in more.items() if value}

    # Looking

    @property
    def lag(self) -> float:
        """Seconds that it waits more than who goes first."""
        return 0.0 if self.first else self.terms.interval

    def looking(self, context: PluginContext) -> Work:
        """Give what is done to look, in whoever's transaction."""
        first, age = self.first, self.terms.rescue_after + self.lag
        engine, repo = context.engine, context.repo

        def look(connection: sa.Connection, written: bool) -> _Look:  # noqa: FBT001 (a `Work`)
            mark = None if written else self._mark
            report = engine.report_producers(connection, mark, age, repo.now())
            return _Look(first, age, report, engine.check_available(connection) if first else ())

        return look

    def _look(self, run: PluginRun) -> _Look:
        carried, self.carried = self.carried, None
        if carried is None:
            work, began = self.looking(run.context), _now(run)
            look = run.transaction(lambda c: work(c, False), **self._terms(run))
            carried = Carried(work, began, _now(run), look)
        found: _Look = carried.unpack()
        seen = found.report
        self.watch = self.watch.looked(
            Sighting(carried.began, carried.ended, seen.server, beats_of(seen))
        )
        return found

    # Rescuing

    def _rescue_all(self, run: PluginRun, groups: list[Orphans], began: float) -> Rescued:
        done, batches = Rescued(), 0
        last = max(self._tried.values(), default=-1)
        self._tried = {each: self._tried[each] for each in groups if each in self._tried}
        self._failing.intersection_update([*groups, USED_UP])
        for place, orphans in enumerate(groups, 1):
            self._tried[orphans] = last + place
            full = True
            while full:
                if batches and self._spent(run, batches, began):
                    # Without anything done there is nothing to hurry for.
                    self.more = len(done) > 0
                    return done
                batch = self._rescue(run, orphans)
                if batch is None:
                    return done
                batches += 1
                done += batch.done
                full = batch.full and len(batch.done) > 0
        return done

    def _spent(self, run: PluginRun, batches: int, began: float) -> bool:
        # The watch needs its next look in time.
        return batches >= MOST_BATCHES or _now(run) - began > self.terms.interval / 2

    def _rescue(self, run: PluginRun, orphans: Orphans) -> _Batch | None:
        """Rescue some of a claimant's jobs; None if this run can do nothing more."""
        if not self.watch.fresh(_now(run)):
            return None
        batch = self._attempt(run, orphans, lambda c: self._settle(c, run, orphans))
        if batch is not None and batch.done:
            logger.warning(
                "%s is gone: %d of its jobs are available again, %d are discarded",
                _named(orphans),
                len(batch.done.rescued),
                len(batch.done.discarded),
            )
        return batch

    def _settle(self, connection: sa.Connection, run: PluginRun, orphans: Orphans) -> _Batch:
        engine, now, producer = run.context.engine, run.now(), orphans.producer
        if producer and not engine.hold_producer(connection, producer, orphans.beat):
            return _Batch()
        # Held from here on, so that what was decided still stands, unless this process slept.
        if not self.watch.fresh(_now(run)):
            raise DatabaseUnavailable("the watch was interrupted, and begins anew")
        done, full, error = Rescued(), False, self._error(orphans)
        for queue in orphans.queues:
            room = self._limit - len(done)
            if room <= 0:
                full = True
                break
            aside = self._salvage.aside(run)
            ids = engine.find_orphans(
                connection, orphans.uuid, queue, room, aside, age=orphans.age, now=now
            )
            done += self._salvage.change(connection, run, ids, "executing", error)
            full = full or len(ids) >= room
        if producer:
            engine.settle_producer(connection, producer, orphans.beat, orphans.queues)
        announcer = Announcer(run.context.config, run.context.publisher)
        announcer.wake(connection, (job.queue for job in done.rescued))
        return _Batch(done, full)

    def _discard_used_up(self, run: PluginRun, queues: Sequence[str]) -> Rescued:
        engine = run.context.engine
        error = "** (PerformError) no attempt is left, so that it could not run"

        def work(connection: sa.Connection) -> _Batch:
            done, full = Rescued(), False
            for queue in queues:
                aside = self._salvage.aside(run)
                ids = engine.find_used_up(connection, queue, self._limit, aside)
                done += self._salvage.change(connection, run, ids, "available", error)
                # Those behind them are next now.
                full = full or len(ids) * 2 >= self._limit
            return _Batch(done, full)

        batch = self._attempt(run, USED_UP, work) or _Batch()
        self.more = self.more or (batch.full and len(batch.done) > 0)
        if batch.done:
            logger.warning("discarded %d jobs that had no attempt left", len(batch.done))
        return batch.done

    @property
    def _limit(self) -> int:
        return max(1, self.terms.limit >> self._halved)

    def _attempt(
        self, run: PluginRun, orphans: Orphans, work: Callable[[sa.Connection], _Batch]
    ) -> _Batch | None:
        """Do one transaction; None if the database is away. What fails stops no other one."""
        try:
            batch = run.told(
                "oban.engine.rescue_jobs",
                work,
                jobs=lambda batch: batch.done.rescued + batch.done.discarded,
                **self._terms(run),
            )
        except DatabaseError as error:
            if orphans not in self._failing:
                logger.warning("jobs of %s can't be rescued yet: %s", _named(orphans), error)
            self._failing.add(orphans)
            if isinstance(error, StatementTimeout):
                self._halved = min(self._halved + 1, self.terms.limit.bit_length())
            if not isinstance(error, DatabaseUnavailable):
                return _Batch()
            self.watch = self.watch.broken()
            return None
        self._failing.discard(orphans)
        if batch.full:
            self._halved = max(0, self._halved - 1)
        return batch

    def _terms(self, run: PluginRun) -> dict[str, Any]:
        config = run.context.config
        return {
            # Once: a connection that broke is a contact that broke.
            "attempts": 1,
            "statement_timeout": min(STATEMENT_TIME, config.statement_timeout),
            "lock_timeout": min(LOCK_TIME, config.lock_timeout),
            "idle_timeout": IDLE_TIME,
            "lenient": True,
        }

    def _error(self, orphans: Orphans) -> str:
        if orphans.age is None:
            why = f"the node that ran it showed no sign of life for {self.watch.time:g} s"
        else:
            why = f"it was executing for more than {self.terms.rescue_after:g} s"
        return f"** (ProcessDied) {why}, and no attempt is left"


def _named(orphans: Orphans) -> str:
    # Another program may have written anything there, a line of the log too.
    return "a node that does not beat" if orphans.uuid is None else shown(orphans.uuid)


def _now(run: PluginRun) -> float:
    return run.context.config.clock.boottime()
