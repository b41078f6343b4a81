"""Evaluator: finds what is due by the database's clock, and inserts it together with its mark."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

import sqlalchemy as sa

from oban_actors.engines.cron import CronMarks
from oban_actors.errors import CodecError, InvalidJob, TransientError
from oban_actors.job import Job
from oban_actors.peers.identity import MARK, owner
from oban_actors.peers.statements import LeaseTable
from oban_actors.plugins.cron_entry import Entry
from oban_actors.plugins.cron_steps import Boot, Seen, Verdict, judge, next_look
from oban_actors.plugins.plugin import PluginContext, PluginRun
from oban_actors.repo.sqlstates import LOCK_NOT_AVAILABLE, sqlstate
from oban_actors.repo.times import Dialect, to_moment
from oban_actors.sifting import Refused, in_savepoint

logger = logging.getLogger("oban_actors")

RETRY = 15.0
"""Seconds until another try at most, after the database failed or refused a job."""

LOCK_TIME = 1.0
"""Seconds that unique jobs, all at once, wait for others' locks; other nodes wait meanwhile."""

BRIEFLY = 0.1
"""Seconds that each entry waits for one, once all at once could not be inserted."""

WAITING = 3.0
"""Seconds until another try, after somebody's open transaction was in the way of an entry."""

WATCHING = 5.0
"""Seconds between two looks at other nodes."""

IDLE_TIME = 5.0
"""Seconds that a stopped process may keep others from an entry."""

KEPT = timedelta(days=90)
"""How long the mark of an entry that nobody has any more is kept."""

NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Outcome:
    """What a claim came to; made anew if its transaction runs again."""

    now: datetime
    jobs: list[Job] = field(default_factory=list)
    marks: dict[str, datetime] = field(default_factory=dict)
    refused: dict[str, Exception] = field(default_factory=dict)
    waiting: dict[str, Exception] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class Evaluator:
    """Evaluates a crontab, again and again; one for each actor.

    Args:
        entries: the crontab.
        boot: whether this node's start is that of all; outlives the actor.

    """

    def __init__(self, entries: Sequence[Entry], boot: Boot) -> None:
        self.entries = {entry.key: entry for entry in entries}
        self.boot = boot
        self._reboots = [entry.key for entry in entries if entry.schedule.reboot]
        self._refused: set[str] = set()
        self._waiting: set[str] = set()
        self._early: set[str] = set()
        self._pruned: float | None = None
        self._again: float | None = None
        self._read_at = 0.0

    def evaluate(self, run: PluginRun) -> list[Job]:
        """Insert what is due and nobody has inserted.

        Args:
            run: the instance's parts, and transactions.

        Returns:
            the jobs, as they stand in the table.

        Raises:
            DatabaseError: the database failed; nothing was inserted then, or all of it.

        """
        self._again = None
        booting = False
        if not run.leader or (self._reboots and not self.boot.over):
            marks, booting = run.transaction(partial(self._look, run), read_only=True)
            if not self._due(marks, booting=booting):
                self._plan(run, marks.now)
                return []
        work = partial(self._claim, run, booting=booting)
        # Doing it again would do no harm, but would no longer know which jobs it inserted.
        outcome = run.transaction(work, idempotent=False, idle_timeout=IDLE_TIME, lenient=True)
        self._settle(run, outcome, booting=booting)
        self._plan(run, outcome.now)
        return outcome.jobs

    def next_delay(self, context: PluginContext) -> float:
        """Say in how many seconds to evaluate again."""
        if self._again is None:
            return RETRY
        return max(0.0, self._again - context.config.clock.monotonic())

    def _plan(self, run: PluginRun, now: datetime) -> None:
        seconds = next_look(self.entries.values(), now, leader=run.leader)
        if self._refused:
            seconds = min(seconds, RETRY)
        if self._waiting:
            seconds = min(seconds, WAITING)
        if self._reboots and not self.boot.over:
            seconds = min(seconds, WATCHING)
        self._again = self._read_at + seconds

    # A look

    def _look(self, run: PluginRun, connection: sa.Connection) -> tuple[CronMarks, bool]:
        name = run.context.config.name
        marks = run.context.engine.read_crons(connection, name, list(self.entries), run.now())
        self._read_at = run.context.config.clock.monotonic()
        if self.boot.over or not self._reboots:
            return marks, False
        return marks, self._is_boot(run, connection, marks.now)

    def _is_boot(self, run: PluginRun, connection: sa.Connection, now: datetime) -> bool:
        config = run.context.config
        others: dict[str, Seen] = {}
        for each in run.context.engine.find_neighbours(connection, config.name):
            others[each.identity] = Seen(each.started_at, each.shown)
        if config.peer is not None and config.peer.kind == "database":
            dialect = cast("Dialect", connection.dialect.name)
            row = LeaseTable(config, dialect).look(connection, run.now())
            holder = None if row is None else owner(row.node)
            if row is not None and holder is not None:
                identity = holder.rpartition(MARK)[2]
                seen = Seen(to_moment(row.started_at), to_moment(row.expires_at))
                others.setdefault(identity, seen)
        own = others.pop(config.identity, None)
        return self.boot.look(others, own.started_at if own else None, now) == "boot"

    def _due(self, marks: CronMarks, *, booting: bool) -> bool:
        verdicts = self._judge(marks, booting=booting)
        planted = all(key in marks.evaluated for key in self.entries)
        return booting or not planted or any(v.mark is not None for v in verdicts.values())

    def _judge(self, marks: CronMarks, *, booting: bool) -> dict[str, Verdict]:
        verdicts = {}
        for key, entry in self.entries.items():
            evaluated = marks.evaluated.get(key)
            if entry.schedule.reboot:
                if booting and self.boot.claims(evaluated):
                    verdicts[key] = Verdict((marks.now,), marks.now)
            elif evaluated == NEVER:
                # Of a `@reboot` of the same name, which has not run: nothing was due before now.
                verdicts[key] = Verdict(mark=marks.now)
            elif evaluated is not None:
                verdicts[key] = judge(entry.schedule, entry.missed, evaluated, marks.now)
                self._note_early(key, evaluated, early=verdicts[key].early)
        return verdicts

    def _note_early(self, key: str, evaluated: datetime, *, early: bool) -> None:
        if early and key not in self._early:
            said = "cron entry %r was evaluated by a clock that is ahead: nothing is due before %s"
            logger.warning(said, key, evaluated)
        if early:
            self._early.add(key)
        else:
            self._early.discard(key)

    # A claim

    def _claim(self, run: PluginRun, connection: sa.Connection, *, booting: bool) -> _Outcome:
        engine, name, keys = run.context.engine, run.context.config.name, list(self.entries)
        marks = engine.lock_crons(connection, name, keys, run.now())
        if missing := self.entries.keys() - marks.evaluated.keys():
            # An entry begins when it is first seen: what was due before that was nobody's.
            new = {key: NEVER if key in self._reboots else marks.now for key in missing}
            engine.plant_crons(connection, name, new)
            marks = engine.lock_crons(connection, name, keys, run.now())
        self._read_at = run.context.config.clock.monotonic()
        outcome = _Outcome(marks.now, verdicts=self._judge(marks, booting=booting))
        self._insert(run, connection, outcome)
        if outcome.marks:
            engine.mark_crons(connection, name, outcome.marks)
        if self._pruning(run):
            engine.prune_crons(connection, name, keys, marks.now - KEPT)
        return outcome

    def _insert(self, run: PluginRun, connection: sa.Connection, outcome: _Outcome) -> None:
        built: dict[str, list[Job]] = {}
        for key, verdict in outcome.verdicts.items():
            if verdict.mark is None:
                continue
            try:
                built[key] = [self.entries[key].build(due) for due in verdict.runs]
            except Exception as error:  # noqa: BLE001 (a host's own `new`, which must not stop other entries)
                outcome.refused[key] = error
        for key in self._inserted(run, connection, built, outcome):
            outcome.marks[key] = cast("datetime", outcome.verdicts[key].mark)

    def _inserted(
        self,
        run: PluginRun,
        connection: sa.Connection,
        built: Mapping[str, list[Job]],
        outcome: _Outcome,
    ) -> Iterable[str]:
        """Insert all at once, or each entry for itself if the database refuses that.

        Also where somebody's open transaction is in the way, as one that inserts the same unique
        job: who waits for it here keeps all other nodes waiting.
        """
        engine = run.context.engine
        every = [job for jobs in built.values() for job in jobs]
        if not every:
            return built
        if any(job.unique is not None for job in every):
            # Others' locks are in the way of no other jobs.
            engine.hurry_crons(connection, min(run.context.config.lock_timeout, LOCK_TIME))
        if self._refusal(run, connection, every, outcome) is None:
            return built
        engine.hurry_crons(connection, BRIEFLY)
        errors = {key: self._refusal(run, connection, built[key], outcome) for key in built}
        if any(map(_is_the_databases, errors.values())):
            # What fails then, too, is no entry's.
            engine.insert_nothing(connection)
        for key, error in errors.items():
            if error is not None:
                kind = outcome.waiting if _is_waiting(error) else outcome.refused
                kind[key] = error
        return [key for key, error in errors.items() if error is None]

    def _refusal(
        self, run: PluginRun, connection: sa.Connection, jobs: Sequence[Job], outcome: _Outcome
    ) -> Exception | None:
        """Insert jobs, and give the error if that does not go because of them."""
        insert = partial(run.context.inserter.insert_within, connection, jobs)
        try:
            outcome.jobs += in_savepoint(connection, insert)
        except Refused as refused:
            return refused.why
        except (InvalidJob, CodecError) as error:
            return error
        except (sa.exc.DBAPIError, TransientError) as error:
            if not _is_waiting(error):
                raise
            return error
        return None

    # Afterwards

    def _settle(self, run: PluginRun, outcome: _Outcome, *, booting: bool) -> None:
        undone = outcome.refused.keys() | outcome.waiting.keys()
        if booting and undone.isdisjoint(self._reboots):
            self.boot.over = True
        if self._pruning(run):
            self._pruned = run.context.config.clock.monotonic()
        for key, error in outcome.refused.items():
            if key not in self._refused:
                logger.error("cron entry %r was refused and will be tried again: %s", key, error)
        for key, error in outcome.waiting.items():
            if key not in self._waiting:
                logger.warning("cron entry %r has to wait and will be tried again: %s", key, error)
        self._refused, self._waiting = set(outcome.refused), set(outcome.waiting)
        for key, verdict in outcome.verdicts.items():
            if verdict.ahead:
                logger.warning("cron entry %r was evaluated by a clock far ahead: set back", key)
            if verdict.dropped:
                logger.warning("cron entry %r: only the latest missed runs are caught up", key)

    def _pruning(self, run: PluginRun) -> bool:
        now = run.context.config.clock.monotonic()
        return self._pruned is None or now - self._pruned >= timedelta(days=1).total_seconds()


def _is_the_databases(error: Exception | None) -> bool:
    return isinstance(error, sa.exc.DBAPIError) and not _is_waiting(error)


def _is_waiting(error: Exception) -> bool:
    return sqlstate(error) == LOCK_NOT_AVAILABLE
