"""Reindexer: builds the indexes of the jobs table anew when its schedule says so."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar

from oban_actors.errors import DatabaseError
from oban_actors.messages import Reindex
from oban_actors.options import Seconds
from oban_actors.plugins.plugin import Plugin, PluginContext, PluginRun
from oban_actors.plugins.schedule import DEFAULT_ZONE, Schedule
from oban_actors.repo import Repo, reindexing
from oban_actors.validation import OPTIONS

logger = logging.getLogger("oban_actors")

Work = Callable[[Repo, str, float], None]

EARLY = timedelta(seconds=1)
"""How much too early a timer may be for the run that it is for."""

MOST_NAME = 63
"""Characters that PostgreSQL keeps of a name."""


@dataclass(frozen=True, kw_only=True)
class Reindexer(Plugin):
    """Rebuilds indexes, which grow with what was deleted from them and never shrink by themselves.

    Only the leader does. On PostgreSQL each one is built with `REINDEX INDEX CONCURRENTLY`, while
    others go on reading and writing, and what a build that failed has left is dropped. The role
    has to own the table for that: it is the only duty that needs more than rights on rows. On
    SQLite who writes waits meanwhile. Told or asked `Reindex()` it runs at once. Mirrors
    `Oban.Reindexer`.

    Attributes:
        schedule: a cron expression, default `@midnight`.
        timezone: in which it is read, default `Etc/UTC`.
        indexes: which ones; default None: all of the jobs table but its primary key.
        timeout: seconds that one may take, a number or a timedelta, default 300. At most 60 of
            them it waits for transactions that are older.

    """

    message: ClassVar[type[Any]] = Reindex
    nothing: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"reindexed_count": 0, "reindexed": (), "dropped": (), "failed": (), "missing": ()}
    )

    schedule: str = "@midnight"
    timezone: str = DEFAULT_ZONE
    indexes: Sequence[str] | None = None
    timeout: Seconds = 300.0
    _due: "_Due | None" = field(default=None, init=False, repr=False, compare=False)

    def validate(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one can't be used.

        """
        schedule = Schedule.parse("schedule", self.schedule, self.timezone)
        if schedule.reboot:
            raise OPTIONS.refusal("schedule", "times that come again", self.schedule)
        timeout = OPTIONS.seconds("timeout", self.timeout)
        self.keep(indexes=_indexes(self.indexes), timeout=timeout, _due=_Due(schedule))

    def fresh(self) -> "Reindexer":
        """Give one that begins anew, as an actor does."""
        fresh = replace(self)
        fresh.validate()
        return fresh

    def next_delay(self, context: PluginContext) -> float:
        """Say in how many seconds the schedule has the next run."""
        due = self._due or _Due(Schedule.parse("schedule", self.schedule, self.timezone))
        return due.delay(context.config.clock.now())

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Drop what was left, and build each index anew.

        Returns:
            `reindexed_count`; and names of indexes: `reindexed`, `dropped` (what was left by builds
            that failed), `failed` (took too long, or others were in the way) and `missing`.

        """
        repo = run.context.repo
        dropped, _ = self._each(run, reindexing.leftovers(repo), reindexing.drop)
        there = reindexing.indexes(repo)
        wanted = there if self.indexes is None else self.indexes
        missing = tuple(name for name in wanted if name not in there)
        if missing:
            logger.warning("there are no indexes %s to rebuild", ", ".join(missing))
        done, failed = self._each(run, [n for n in wanted if n in there], reindexing.reindex)
        if failed:
            more, _ = self._each(run, reindexing.leftovers(repo), reindexing.drop)
            dropped += more
        return {
            "reindexed_count": len(done),
            "reindexed": done,
            "dropped": dropped,
            "failed": failed,
            "missing": missing,
        }

    def _each(
        self, run: PluginRun, names: Sequence[str], work: Work
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        done: list[str] = []
        failed: list[str] = []
        for name in names:
            # It runs in no transaction, so the lease can't be held: it is read before each.
            run.transaction(lambda _: None)
            try:
                work(run.context.repo, name, float(self.timeout))  # type: ignore[arg-type]  # checked
            except DatabaseError as error:
                if not reindexing.may_pass(error):
                    raise
                logger.warning("the index %s could not be rebuilt: %s", name, error)
                failed.append(name)
            else:
                done.append(name)
        return tuple(done), tuple(failed)


@dataclass(slots=True)
class _Due:
    """When the next run is due."""

    schedule: Schedule
    last: datetime | None = None

    def delay(self, now: datetime) -> float:
        """Give the seconds until then, once for each due time.

        Timers go by another clock: one that is a moment early must not make the same run again.
        """
        due = self.last
        if due is not None and now < due - EARLY:
            # A clock that was ahead for a while must not keep it from running for as long.
            due = self.last = min(due, self.schedule.next_after(now + EARLY) or due)
        else:
            after = now if due is None else max(now, due)
            # Only `@reboot`, which is refused, has no next time.
            due = self.last = self.schedule.next_after(after) or after + timedelta(days=1)
        return max((due - now).total_seconds(), 0.001)


def _indexes(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise OPTIONS.refusal("indexes", "a list of names of indexes, or None", given)
    for place, name in enumerate(given):
        OPTIONS.text(f"indexes[{place}]", name, high=MOST_NAME)
    OPTIONS.unique("indexes", given, "indexes")
    return tuple(given)
