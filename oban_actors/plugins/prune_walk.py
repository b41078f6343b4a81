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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from oban_actors.engines.prune import EndedGroup, PruneLook, PruneLooked

PROBE = 200
"""Rows that the first look at a group's front reads."""

SWEEP = 20_000
"""Rows that a round's sweep reads in vain, give or take a batch."""

SWEEP_EVERY = 8
"""While fronts yield and yield, one of so many batches is the sweep's."""

FIRST_SIZE = 1_000
"""Rows in the first batch, before it is known how long one takes."""

LEAST_SIZE = 100
"""Rows in a batch at least, however slow the database is."""

BATCH_TIME = 0.25
"""Seconds that a batch should take; it gets smaller beyond, and larger well below."""


@dataclass(slots=True)
class PruneWalk:
    """Where a Pruner is.

    A round is what one run does, or several, when there is much to do. It is done in batches of
    looks, each of as many rows as can be expected to take `BATCH_TIME`.

    Args:
        limit: most rows of a batch.

    """

    limit: int
    _size: int = 0
    _fronts: deque[PruneLook] = field(default_factory=deque)
    _sweeps: deque[PruneLook] = field(default_factory=deque)
    _whole: set[EndedGroup] = field(default_factory=set)
    _stopped: PruneLook | None = None
    _budget: int = 0
    _turns: int = 0
    _alone: int = 0

    def __post_init__(self) -> None:
        self._size = min(self.limit, FIRST_SIZE)

    @property
    def over(self) -> bool:
        """Whether the round is over."""
        return not self._source()

    def begin(self, groups: Iterable[EndedGroup]) -> None:
        """Begin a round.

        Args:
            groups: all from which jobs may go.

        """
        ordered = sorted(groups)
        first = min(PROBE, self._size)
        self._fronts = deque(PruneLook(group, None, first) for group in ordered)
        self._sweeps = deque(self._from_where_it_stopped(ordered))
        self._whole = set()
        self._budget = SWEEP
        self._turns = 0

    def batch(self) -> list[PruneLook]:
        """Give the next looks, none if the round is over.

        They are given again until `looked`, `failed` or `slower` was told of them.
        """
        found: list[PruneLook] = []
        rows = 0
        for look in self._source():
            rows += look.rows
            if found and (self._alone or rows > self._size):
                break
            found.append(look)
        return found

    def looked(self, batch: Sequence[PruneLooked], seconds: float) -> None:
        """Take what the looks that `batch` gave came to, and how long they took together."""
        of = self._source()
        looks = [of.popleft() for _ in batch]
        self._turns += 1
        self._alone = max(0, self._alone - 1)
        self._resize(looks, batch, seconds)
        pairs = list(zip(looks, batch, strict=True))
        if of is self._fronts:
            for look, looked in pairs:
                self._looked_at_front(look, looked)
            return
        for look, looked in reversed(pairs):
            self._swept(look, looked)
        self._stopped = self._sweeps[0] if self._sweeps else None

    def failed(self) -> None:
        """Take it that the database refused a row of those looks.

        They are given one by one, and one with half as many rows; if it had a single row, that
        is to be left out by now.
        """
        batch = self.batch()
        if len(batch) > 1:
            self._alone = len(batch)
            return
        of = self._source()
        look = of.popleft()
        again = replace(look, rows=look.rows // 2 or self._size)
        if look.rows == 1 and of is self._fronts:
            # Many such rows of one group must not keep the others from their turn.
            of.append(again)
        else:
            of.appendleft(again)
        self._alone = max(self._alone, 1)

    def pause(self) -> None:
        """End the round here: the next one has all fronts again, and sweeps on from where it is."""
        self._stopped = self._sweeps[0] if self._sweeps else None
        self._fronts.clear()
        self._sweeps.clear()

    def slower(self) -> None:
        """Take it that those looks took too long to be answered at all."""
        self._size = max(self._size // 2, 1)
        batch = self.batch()
        if len(batch) == 1:
            of = self._source()
            look = of.popleft()
            of.appendleft(replace(look, rows=min(look.rows, self._size)))

    # Helpers

    def _source(self) -> deque[PruneLook]:
        """Give the looks of which the first ones are next."""
        sweeps = self._sweeps
        while sweeps and sweeps[0].after is None and sweeps[0].group in self._whole:
            sweeps.popleft()
        turn = not self._fronts or self._turns % SWEEP_EVERY == SWEEP_EVERY - 1
        return sweeps if sweeps and self._budget > 0 and turn else self._fronts

    def _looked_at_front(self, look: PruneLook, looked: PruneLooked) -> None:
        if looked.seen < look.rows:
            if look.after is None:
                # There is nothing more of it to sweep.
                self._whole.add(look.group)
        elif looked.pruned:
            # Behind the others: each group has its turn.
            self._fronts.append(replace(look, after=looked.last, rows=self._size))

    def _swept(self, look: PruneLook, looked: PruneLooked) -> None:
        if not looked.pruned:
            self._budget -= looked.seen
        if looked.seen >= look.rows:
            self._sweeps.appendleft(replace(look, after=looked.last, rows=self._size))

    def _resize(
        self, looks: Sequence[PruneLook], batch: Sequence[PruneLooked], seconds: float
    ) -> None:
        seen = sum(looked.seen for looked in batch)
        if seconds > BATCH_TIME and seen > LEAST_SIZE:
            self._size = max(min(self._size, seen) // 2, min(LEAST_SIZE, self.limit))
        elif seconds < BATCH_TIME / 4 and sum(look.rows for look in looks) > self._size // 2:
            self._size = min(self._size * 2, self.limit)

    def _from_where_it_stopped(self, groups: list[EndedGroup]) -> list[PruneLook]:
        looks = [PruneLook(group, None, self._size) for group in groups]
        stopped = self._stopped
        if stopped is None:
            return looks
        at = next((n for n, each in enumerate(groups) if each >= stopped.group), len(groups))
        ahead, passed = looks[at:], looks[:at]
        if ahead and ahead[0].group == stopped.group:
            ahead[0] = replace(ahead[0], after=stopped.after)
        return ahead + passed
