"""Pruner: deletes jobs that have ended, once they are old enough."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from oban_actors.engines.prune import ENDED, EndedGroup, PruneLook, PruneLooked
from oban_actors.errors import DatabaseError, StatementTimeout
from oban_actors.messages import Prune
from oban_actors.options import Seconds
from oban_actors.plugins.plugin import Plugin, PluginContext, PluginRun
from oban_actors.plugins.prune_walk import PruneWalk
from oban_actors.staging import SetAside, may_be_of_a_row
from oban_actors.validation import OPTIONS

logger = logging.getLogger("oban_actors")

Age = Seconds | Literal["never"] | None
Ages = Mapping[str, Age]

RUN_TIME = 2.0
"""Seconds after which a run begins no more batches."""

RUN_BATCHES = 20
"""Batches that delete something, after which a run begins no more."""

QUIET = 2
"""Intervals, at most, after which it looks again where nothing has ended that could go."""

MOST_NAMED = 10_000
"""Deleted jobs that a run names at most; all are counted."""

MOST_REFUSED = 20
"""Rows that the database refuses to delete, after which a run begins no more batches."""

MOST_AGE = 100 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class PrunedJob:
    """A job that was deleted.

    Attributes:
        id: the job's.
        queue: its queue.
        state: in which it had ended.

    """

    id: int
    queue: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Pruner(Plugin):
    """Deletes jobs that were completed, cancelled or discarded long enough ago.

    Only the leader does. It goes in batches, each a short transaction of its own, along an index,
    and never waits for a row that somebody has locked. Told or asked `Prune()` it runs at once.
    Mirrors `Oban.Pruner`; but a completed job's age counts from when it was completed, not from
    when it was due.

    Attributes:
        interval: seconds between two runs, default 30. While there is more to delete, runs follow
            each other at once; where nothing has ended, the next comes when what ends now may be
            old enough, two intervals later at most.
        max_age: seconds for which a job is kept after it ended, a number or a timedelta, default
            60; None, or "never" in a file that has no such value: for ever.
        limit: most jobs that are looked at, and so deleted, in one batch, default 10,000. Where
            that takes long, batches get smaller by themselves.
        states: other ages by the state in which jobs ended: `{"discarded": 86_400}`.
        queues: other ages by queue, which go first: one for all its jobs, or a mapping by state.

    """

    message: ClassVar[type[Any]] = Prune
    nothing: ClassVar[Mapping[str, Any]] = MappingProxyType({"pruned_count": 0, "pruned_jobs": ()})

    interval: Seconds = 30.0  # type: ignore[assignment]  # seconds once it was checked
    max_age: Age = 60.0
    limit: int = 10_000
    states: Ages = field(default_factory=dict)
    queues: "Mapping[str, Age | Ages]" = field(default_factory=dict)
    _work: "_Work | None" = field(default=None, init=False, repr=False, compare=False)

    def validate(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one can't be used.

        """
        self.keep(
            interval=OPTIONS.seconds("interval", self.interval),
            max_age=_age("max_age", self.max_age),
            limit=OPTIONS.integer("limit", self.limit, low=1),
            states=_by_state("states", self.states),
            queues=_by_queue(self.queues),
        )

    def fresh(self) -> "Pruner":
        """Give one that begins anew, as an actor does."""
        fresh = replace(self)
        fresh.keep(_work=_Work(PruneWalk(self.limit)))
        return fresh

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Delete what is old enough, as far as one run goes.

        Returns:
            `pruned_count`, `pruned_jobs`: the first 10,000 of them, each with `id`, `queue` and
            `state`; and `set_aside`, ids of rows that the database refused to delete, if there
            are some.

        """
        work = self._work
        if work is None:
            work = _Work(PruneWalk(self.limit))
            self.keep(_work=work)
        return work.perform(self, run)

    def next_delay(self, context: PluginContext) -> float:
        """Say when it runs next: at once while there is more to do, later while there is none."""
        interval, work = float(self.interval), self._work  # type: ignore[arg-type]  # checked
        if work is None or not (work.more or work.empty):
            return interval
        return 0.0 if work.more else max(interval, min(self._youngest(), QUIET * interval))

    def age_of(self, group: EndedGroup) -> float | None:
        """Say how many seconds jobs of a group are kept; None: for ever."""
        of_queue = self.queues.get(group.queue, self.states)
        ages = of_queue if isinstance(of_queue, Mapping) else {group.state: of_queue}
        of_state = self.states.get(group.state, self.max_age)
        return ages.get(group.state, of_state)  # type: ignore[return-value]  # checked

    def _youngest(self) -> float:
        """Say how old a job is at least that goes."""
        of_queues = (
            ages if isinstance(ages, Mapping) else {"": ages} for ages in self.queues.values()
        )
        by_state = (self.states, *of_queues)
        ages = [self.max_age, *(age for ages in by_state for age in ages.values())]
        return min((float(age) for age in ages if age is not None), default=math.inf)  # type: ignore[arg-type]  # checked


@dataclass(slots=True)
class _Work:
    """What one actor's Pruner remembers between its runs."""

    walk: PruneWalk
    more: bool = False
    empty: bool = False
    aside: SetAside = field(default_factory=SetAside)

    def perform(self, pruner: Pruner, run: PluginRun) -> Mapping[str, Any]:
        clock = run.context.config.clock
        # Whatever ends the run early, the next one comes after the interval.
        self.more = False
        began, batches, count = clock.monotonic(), 0, 0
        refused: list[int] = []
        named: list[PrunedJob] = []
        if self.walk.over:
            self._begin(pruner, run)
        while batch := self.walk.batch():
            if clock.monotonic() - began > RUN_TIME or batches >= RUN_BATCHES:
                self.more = True
                break
            looks = self._look(pruner, run, batch, refused)
            if len(refused) >= MOST_REFUSED:
                self.walk.pause()
                break
            count += sum(len(looked.pruned) for looked in looks)
            if looks and len(named) < MOST_NAMED:
                named += _pruned(batch, looks)[: MOST_NAMED - len(named)]
            batches += any(looked.pruned for looked in looks)
        extra = {"pruned_count": count, "pruned_jobs": tuple(named)}
        return extra | ({"set_aside": tuple(refused)} if refused else {})

    def _begin(self, pruner: Pruner, run: PluginRun) -> None:
        groups = run.context.repo.transaction(
            run.context.engine.ended_groups, read_only=True, lenient=True
        )
        found = [group for group in groups if pruner.age_of(group) is not None]
        self.empty = not found
        self.walk.begin(found)

    def _look(
        self, pruner: Pruner, run: PluginRun, batch: Sequence[PruneLook], refused: list[int]
    ) -> list[PruneLooked]:
        """Do one batch; without a result if a row is refused, which is noted once it is known."""
        clock = run.context.config.clock
        began = clock.monotonic()
        ages = [pruner.age_of(look.group) for look in batch]
        try:
            looks = self._prune(run, batch, ages)
        except StatementTimeout:
            self.walk.slower()
            raise
        except DatabaseError as error:
            if not may_be_of_a_row(error.__cause__):
                raise
            # Without any row: what fails then, too, is of none.
            self._prune(run, batch, [None] * len(batch))
            self._refuse(run, batch, error, refused)
            return []
        self.walk.looked(looks, clock.monotonic() - began)
        return looks

    def _refuse(
        self,
        run: PluginRun,
        batch: Sequence[PruneLook],
        error: DatabaseError,
        refused: list[int],
    ) -> None:
        # Smaller and smaller, until the row that makes the batch fail stands alone.
        if len(batch) == 1 and batch[0].rows == 1:
            [looked] = self._prune(run, batch, [None])
            if looked.last is not None:
                job_id = looked.last.job_id
                self.aside.add(job_id, run.context.config.clock.monotonic())
                refused.append(job_id)
                logger.error("job %d can't be deleted and is left for a while: %s", job_id, error)
        self.walk.failed()

    def _prune(
        self, run: PluginRun, batch: Sequence[PruneLook], ages: Sequence[float | None]
    ) -> list[PruneLooked]:
        aside = self.aside.ids(run.context.config.clock.monotonic())
        now, prune = run.now(), run.context.engine.prune_jobs
        return run.told(
            "oban.engine.prune_jobs",
            lambda connection: [
                prune(connection, look, age, aside, now)
                for look, age in zip(batch, ages, strict=True)
            ],
            jobs=partial(_pruned, batch),
            lenient=True,
        )


def _pruned(batch: Sequence[PruneLook], looks: Sequence[PruneLooked]) -> tuple[PrunedJob, ...]:
    return tuple(
        PrunedJob(job_id, look.group.queue, look.group.state)
        for look, looked in zip(batch, looks, strict=True)
        for job_id in looked.pruned
    )


# Checks


def _age(path: str, given: object) -> float | None:
    if given is None or given == "never":
        return None
    expected = "a non-negative number of seconds, a timedelta, 'never' or None"
    seconds = OPTIONS.number(path, given, expected)
    if 0 <= seconds <= MOST_AGE:
        return seconds
    raise OPTIONS.refusal(path, expected if seconds < 0 else "at most 100 years, or None", given)


def _by_state(path: str, given: object) -> dict[str, float | None]:
    if not isinstance(given, Mapping):
        raise OPTIONS.refusal(path, "a mapping from states to ages", given)
    for state in given:
        OPTIONS.one_of(path, state, ENDED)
    return {str(state): _age(f"{path}.{state}", age) for state, age in given.items()}


def _by_queue(given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise OPTIONS.refusal("queues", "a mapping from queues to ages", given)
    ages: dict[str, Any] = {}
    for queue, age in given.items():
        OPTIONS.text("queues", queue, high=128)
        path = f"queues.{queue}"
        ages[queue] = _by_state(path, age) if isinstance(age, Mapping) else _age(path, age)
    return ages
