"""PruneWalk: which ended jobs a Pruner looks at next; pure steps.

Jobs stand in the index by the time at which they were due, and the Pruner wants those that ended
first. The two orders are nearly the same: within a queue and priority, what was due first ends
first, but for jobs that ran long or waited. So a round does two things:

- It goes along the *front* of each group, as far as that yields jobs that are old enough, and
  stops where it yields none, however many younger ones follow.
- It *sweeps*: from where the sweep before stopped it looks through all ended jobs, but reads no
  more than `SWEEP` rows in vain. What stands out of order behind young jobs is found so.

What a round costs in vain is bounded by both, whatever the table holds.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from oban_actors.engines.prune import EndedGroup, PruneLook, PruneLooked

PROBE = 200
"""Rows that the first look at a group's front reads."""

SWEEP = 20_000
"""Rows that a round's sweep reads in vain, give or take a batch."""

SWEEP_EVERY = 8
"""While fronts yield and yield, each so many looks one is the sweep's."""

FIRST_SIZE = 1_000
"""Rows in the first batch, before it is known how long one takes."""

LEAST_SIZE = 100
"""Rows in a batch at least, however slow the database is."""

BATCH_TIME = 0.25
"""Seconds that a batch should take; it gets smaller beyond, and larger well below."""


@dataclass(slots=True)
class PruneWalk:
    """Where a Pruner is.

    A round is what one run does, or several, when there is much to do.

    Args:
        limit: most rows of a batch.

    """

    limit: int
    _size: int = 0
    _fronts: deque[PruneLook] = field(default_factory=deque)
    _sweeps: deque[PruneLook] = field(default_factory=deque)
    _swept: PruneLook | None = None
    _budget: int = 0
    _looks: int = 0

    def __post_init__(self) -> None:
        self._size = min(self.limit, FIRST_SIZE)

    @property
    def over(self) -> bool:
        """Whether the round is over."""
        return self._next_of() is None

    def begin(self, groups: Iterable[EndedGroup]) -> None:
        """Begin a round.

        Args:
            groups: all from which jobs may go.

        """
        ordered = sorted(groups)
        first = min(PROBE, self._size)
        self._fronts = deque(PruneLook(group, None, first) for group in ordered)
        self._sweeps = deque(self._from_where_it_stopped(ordered))
        self._budget = SWEEP
        self._looks = 0

    def next(self) -> PruneLook | None:
        """Give the next look; it is given again until `looked` or `failed` was told of it."""
        found = self._next_of()
        return None if found is None else found[0]

    def looked(self, looked: PruneLooked, seconds: float) -> None:
        """Take what the look that `next` gave came to, and how long it took."""
        look, of = self._taken()
        self._looks += 1
        more = looked.seen >= look.rows and looked.last is not None
        onward = replace(look, after=looked.last, rows=self._sized(seconds, looked.seen))
        if of is self._fronts:
            if more and looked.pruned:
                # Behind the others: each group has its turn.
                of.append(onward)
            return
        if not looked.pruned:
            self._budget -= looked.seen
        if more:
            of.appendleft(onward)
        self._swept = onward if more else (of[0] if of else None)

    def failed(self) -> None:
        """Take it that the database refused a row of the look that `next` gave.

        The next one has half as many rows. If it was a single one, that is to be left out by now.
        """
        look, of = self._taken()
        of.appendleft(replace(look, rows=look.rows // 2 or self._size))

    def slower(self) -> None:
        """Take it that a look took too long to be answered at all."""
        self._size = max(self._size // 2, 1)
        if self._next_of() is not None:
            look, of = self._taken()
            of.appendleft(replace(look, rows=min(look.rows, self._size)))

    # Helpers

    def _next_of(self) -> "tuple[PruneLook, deque[PruneLook]] | None":
        sweeps = self._sweeps if self._budget > 0 else None
        if sweeps and (not self._fronts or self._looks % SWEEP_EVERY == SWEEP_EVERY - 1):
            return sweeps[0], sweeps
        return (self._fronts[0], self._fronts) if self._fronts else None

    def _taken(self) -> "tuple[PruneLook, deque[PruneLook]]":
        found = self._next_of()
        if found is None:
            raise LookupError("the round is over")
        return found[1].popleft(), found[1]

    def _sized(self, seconds: float, rows: int) -> int:
        if seconds > BATCH_TIME and rows > LEAST_SIZE:
            self._size = max(min(self._size, rows) // 2, min(LEAST_SIZE, self.limit))
        elif seconds < BATCH_TIME / 4 and rows >= self._size:
            self._size = min(self._size * 2, self.limit)
        return self._size

    def _from_where_it_stopped(self, groups: list[EndedGroup]) -> list[PruneLook]:
        looks = [PruneLook(group, None, self._size) for group in groups]
        stopped = self._swept
        if stopped is None:
            return looks
        at = next((n for n, each in enumerate(groups) if each >= stopped.group), len(groups))
        ahead, passed = looks[at:], looks[:at]
        if ahead and ahead[0].group == stopped.group:
            ahead[0] = replace(ahead[0], after=stopped.after)
        return ahead + passed
