"""Rescuing: what a Lifeline's actor does and remembers, from one run to the next."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from oban_actors.engines.rescue import ProducerReport, Rescued, RescueState
from oban_actors.errors import DatabaseError, DatabaseUnavailable, UndefinedTable
from oban_actors.peers.identity import owner
from oban_actors.peers.statements import LeaseTable
from oban_actors.plugins.plugin import PluginRun
from oban_actors.plugins.watch import Sighting, Watch
from oban_actors.queues.roster import is_ours
from oban_actors.staging import SetAside, is_of_a_row

logger = logging.getLogger("oban_actors")

MOST_BATCHES = 50
"""Transactions that rescue in one run; the next one, at once, goes on."""

MOST_FAILING_ROWS = 20
"""Rows found unfit in one transaction at most; another one goes on."""

IDLE_TIME = 5.0
"""Seconds that a transaction may leave the database waiting for its process."""


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
class Orphans:
    """Jobs that one claimant has left.

    Attributes:
        uuid: the claimant's; None where rows name none.
        queues: where they are.
        beat: the last one that was seen, None for none; of producers that beat.
        age: seconds for which they have been claimed; None for those of producers that beat.

    """

    uuid: str | None
    queues: tuple[str, ...]
    beat: str | None = None
    age: float | None = None


USED_UP = Orphans("nobody", ())
"""Stands for jobs that wait with no attempt left."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one transaction came to: None of it counts unless it was committed."""

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
        lag: seconds that it waits more than who goes first.

    """

    terms: Terms
    watch: Watch
    looked: bool = False
    more: bool = False
    lag: float = 0.0
    _mark: str = field(default_factory=lambda: f"lifeline:{uuid4().hex}")
    _aside: SetAside = field(default_factory=SetAside)
    _tried: dict[Orphans, int] = field(default_factory=dict)
    _failing: set[Orphans] = field(default_factory=set)
    _unfit: list[int] = field(default_factory=list)

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Look, and rescue.

        Returns:
            see `Lifeline.perform`.

        Raises:
            DatabaseError: the look failed.

        """
        # Whatever ends the run early, the next one comes after the interval.
        self.more, self.looked = False, True
        self._unfit.clear()
        began = _now(run)
        try:
            first = run.leader or not self._python_leads(run)
            self.lag = 0.0 if first else self.terms.interval
            report = self._look(run)
        except DatabaseError:
            self.watch = self.watch.broken()
            raise
        groups = self._orphans(report)
        done = self._rescue_all(run, groups, began)
        if first and self.watch.fresh(_now(run)):
            done += self._discard_used_up(run)
        failed = tuple(each.uuid for each in groups if each in self._failing)
        told = {
            "rescued_count": len(done.rescued),
            "rescued_jobs": done.rescued,
            "discarded_count": len(done.discarded),
            "discarded_jobs": done.discarded,
        }
        more = {"failed": failed, "set_aside": tuple(self._unfit)}
        return told | {name: value for name, value in more.items() if value}

    # Looking

    def _python_leads(self, run: PluginRun) -> bool:
        # Who leads goes first, if it is one of ours: an Elixir leader knows of no beats.
        context, peer = run.context, run.context.config.peer
        if peer is None or peer.kind != "database":
            return False
        lease = LeaseTable(context.config, context.repo.dialect)
        try:
            row = run.transaction(lambda c: lease.look(c, run.now()), read_only=True, attempts=1)
        except UndefinedTable:
            return False
        return row is not None and row.left > 0 and owner(row.node) is not None

    def _look(self, run: PluginRun) -> ProducerReport:
        engine, age = run.context.engine, self.terms.rescue_after + self.lag
        began = _now(run)
        report = run.transaction(
            lambda c: engine.report_producers(c, self._mark, age, run.now()),
            attempts=1,
            idle_timeout=IDLE_TIME,
        )
        beats: dict[str, str | None] = dict(report.beats)
        beats |= dict.fromkeys(_absent(report))
        self.watch = self.watch.looked(Sighting(began, _now(run), report.server, beats))
        return report

    def _orphans(self, report: ProducerReport) -> list[Orphans]:
        queues: dict[str, list[str]] = {}
        aged: list[Orphans] = []
        for group in report.claims:
            if group.uuid is not None and group.uuid in self.watch.suspects:
                queues.setdefault(group.uuid, []).append(group.queue)
            elif group.aged:
                age = self.terms.rescue_after + self.lag
                aged.append(Orphans(group.uuid, (group.queue,), age=age))
        dead = [
            Orphans(uuid, tuple(queues.get(uuid, ())), self.watch.suspects[uuid].beat)
            for uuid in self.watch.dead(self.lag)
        ]
        # The longest dead first; but whoever was tried and could not be settled stands back.
        return sorted([*dead, *aged], key=lambda each: self._tried.get(each, -1))

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
                orphans.uuid or "a node that does not beat",
                len(batch.done.rescued),
                len(batch.done.discarded),
            )
        return batch

    def _settle(self, connection: sa.Connection, run: PluginRun, orphans: Orphans) -> _Batch:
        engine, now = run.context.engine, run.now()
        beats = orphans.uuid is not None and orphans.age is None
        if beats and not engine.hold_producer(connection, orphans.uuid or "", orphans.beat):
            return _Batch()
        # Held from here on, so that what was decided still stands, unless this process slept.
        if not self.watch.fresh(_now(run)):
            raise DatabaseUnavailable("the watch was interrupted, and begins anew")
        done, full = Rescued(), False
        error = self._error(orphans)
        for queue in orphans.queues:
            room = self.terms.limit - len(done)
            if room <= 0:
                full = True
                break
            aside = self._aside.ids(_now(run))
            ids = engine.find_orphans(
                connection, orphans.uuid, queue, room, aside, age=orphans.age, now=now
            )
            done += self._change(connection, run, ids, "executing", error)
            full = full or len(ids) >= room
        if beats:
            engine.settle_producer(connection, orphans.uuid or "", orphans.beat, orphans.queues)
        queues = dict.fromkeys(job.queue for job in done.rescued)
        if queues:
            payloads = [{"queue": queue} for queue in queues]
            run.context.publisher.publish(connection, "insert", payloads)
        return _Batch(done, full)

    def _discard_used_up(self, run: PluginRun) -> Rescued:
        engine, limit = run.context.engine, self.terms.limit
        error = "** (PerformError) no attempt is left, so that it could not run"

        def work(connection: sa.Connection) -> _Batch:
            done, full = Rescued(), False
            for queue in engine.check_available(connection):
                aside = self._aside.ids(_now(run))
                ids = engine.find_used_up(connection, queue, limit, aside)
                done += self._change(connection, run, ids, "available", error)
                # Those behind them are next now.
                full = full or len(ids) * 2 >= limit
            return _Batch(done, full)

        batch = self._attempt(run, USED_UP, work) or _Batch()
        self.more = self.more or (batch.full and len(batch.done) > 0)
        if batch.done:
            logger.warning("discarded %d jobs that had no attempt left", len(batch.done))
        return batch.done

    def _attempt(
        self, run: PluginRun, orphans: Orphans, work: Callable[[sa.Connection], _Batch]
    ) -> _Batch | None:
        """Do one transaction; None if the database is away. What fails stops no other one."""
        try:
            batch = run.transaction(work, attempts=1, idle_timeout=IDLE_TIME)
        except DatabaseError as error:
            if orphans not in self._failing:
                logger.warning("jobs of %s can't be rescued yet: %s", orphans.uuid, error)
            self._failing.add(orphans)
            if not isinstance(error, DatabaseUnavailable):
                return _Batch()
            self.watch = self.watch.broken()
            return None
        self._failing.discard(orphans)
        return batch

    def _error(self, orphans: Orphans) -> str:
        if orphans.age is None:
            why = f"the node that ran it showed no sign of life for {self.watch.time:g} s"
        else:
            why = f"it was executing for more than {self.terms.rescue_after:g} s"
        return f"** (ProcessDied) {why}, and no attempt is left"

    def _change(
        self,
        connection: sa.Connection,
        run: PluginRun,
        ids: Collection[int],
        state: RescueState,
        error: str,
    ) -> Rescued:
        """Rescue or discard these, around rows that the database refuses."""
        unfit = 0

        def attempt(some: list[int]) -> Rescued:
            nonlocal unfit
            if unfit >= MOST_FAILING_ROWS:
                return Rescued()
            try:
                with connection.begin_nested():
                    return run.context.engine.rescue_jobs(connection, some, state, error, run.now())
            except sa.exc.DBAPIError as refused:
                if not is_of_a_row(refused):
                    raise
                if len(some) == 1:
                    unfit += 1
                    self._set_aside(some[0], _now(run), refused)
                    return Rescued()
            half = len(some) // 2
            return attempt(some[:half]) + attempt(some[half:])

        return attempt(list(ids)) if ids else Rescued()

    def _set_aside(self, job_id: int, now: float, error: Exception) -> None:
        self._aside.add(job_id, now)
        self._unfit.append(job_id)
        logger.error("job %d can't be rescued and is left out for a while: %s", job_id, error)


def _absent(report: ProducerReport) -> set[str]:
    """Name those of our producers that have claims but no row."""
    return {
        group.uuid
        for group in report.claims
        if isinstance(group.uuid, str) and group.uuid not in report.beats and is_ours(group.uuid)
    }


def _now(run: PluginRun) -> float:
    return run.context.config.clock.boottime()
