"""The decisions of the Pruner: which rows it looks at, and when it has seen enough."""

from bisect import bisect_right
from collections import Counter
from itertools import pairwise
from operator import itemgetter

import pytest

from oban_actors.engines.prune import EndedGroup, Position, PruneLook, PruneLooked
from oban_actors.plugins.prune_walk import (
    BATCH_TIME,
    FIRST_SIZE,
    LEAST_SIZE,
    PROBE,
    SWEEP,
    PruneWalk,
)

A = EndedGroup("completed", "a", 0)
B = EndedGroup("completed", "b", 0)


class Table:
    """Ended jobs, by group, as a list of whether each is old enough; a batch deletes those."""

    def __init__(self, **groups: list[bool]) -> None:
        self.rows = {
            EndedGroup("completed", queue, 0): list(enumerate(old)) for queue, old in groups.items()
        }
        self.looks: list[tuple[PruneLook, int]] = []

    @property
    def groups(self) -> list[EndedGroup]:
        """Which groups there are."""
        return list(self.rows)

    @property
    def old(self) -> int:
        """How many are left that should go."""
        return sum(old for rows in self.rows.values() for _, old in rows)

    def prune(self, look: PruneLook) -> PruneLooked:
        """Do one batch."""
        at = -1 if look.after is None else look.after.job_id
        rows = self.rows[look.group]
        first = bisect_right(rows, at, key=itemgetter(0))
        seen = rows[first : first + look.rows]
        gone = tuple(place for place, old in seen if old)
        rows[first : first + len(seen)] = [row for row in seen if not row[1]]
        last = Position(seen[-1][0], seen[-1][0]) if seen else None
        self.looks.append((look, len(gone)))
        return PruneLooked(len(seen), last, gone)

    def round(self, walk: PruneWalk, seconds: float = 0.0) -> int:
        """Do one round; give how many rows were read in vain."""
        self.looks.clear()
        walk.begin(self.groups)
        vain = 0
        while not walk.over:
            vain += sum(each.seen for each in self.step(walk, seconds) if not each.pruned)
        assert walk.batch() == []
        return vain

    def step(self, walk: PruneWalk, seconds: float = 0.0) -> list[PruneLooked]:
        """Do one batch."""
        batch = walk.batch()
        assert batch
        assert sum(look.rows for look in batch) <= walk.limit
        found = [self.prune(look) for look in batch]
        walk.looked(found, seconds)
        return found


def test_a_round_takes_all_that_is_old() -> None:
    """Of every group, wherever it stands, and leaves nothing of a small table."""
    table = Table(a=[True] * 5000 + [False] * 300, b=[False, True] * 700, c=[])

    table.round(PruneWalk(10_000))

    assert table.old == 0
    assert {len(rows) for rows in table.rows.values()} == {300, 700, 0}


def test_fronts_come_first_and_by_turns() -> None:
    """A long group keeps no other one waiting for its end."""
    table = Table(a=[True] * 6000, b=[True] * 6000)

    table.round(PruneWalk(1000))

    order = [look.group for look, gone in table.looks if gone][:6]
    assert order == [A, B] * 3
    assert table.old == 0


def test_young_jobs_are_not_read_again_and_again() -> None:
    """Of a million that are too young, a round reads a bounded part, and the next goes on there."""
    table = Table(a=[False] * 1_000_000)
    walk = PruneWalk(10_000)

    first = table.round(walk)
    began = [look.after for look, _ in table.looks if look.after is not None]
    second = table.round(walk)

    assert max(first, second) <= SWEEP + 10_000 + PROBE
    again = [look.after for look, _ in table.looks if look.after is not None]
    assert not {each.job_id for each in began} & {each.job_id for each in again}


def test_what_stands_behind_young_jobs_is_found() -> None:
    """In as many rounds as it takes to sweep through them; then from the beginning again."""
    table = Table(a=[False] * 100_000 + [True] * 5000, b=[False] * 50_000 + [True])
    walk = PruneWalk(10_000)

    rounds = 0
    while table.old:
        table.round(walk)
        rounds += 1
        assert rounds <= 150_000 // SWEEP + 2
    for rows in table.rows.values():
        rows[30_000] = (rows[30_000][0], True)
    for _ in range(150_000 // SWEEP + 3):
        table.round(walk)

    assert table.old == 0


def test_rows_that_yield_cost_the_sweep_nothing() -> None:
    """Its bound is for rows read in vain."""
    table = Table(a=[False] * PROBE + [True] * 200_000)

    table.round(PruneWalk(10_000))

    assert table.old == 0


def test_the_sweep_has_a_turn_while_fronts_yield() -> None:
    """One who never gets to the end of a front still finds what is out of order elsewhere."""
    table = Table(a=[False] * 1000 + [True], b=[True] * 50_000)
    walk = PruneWalk(100)
    walk.begin(table.groups)

    for _ in range(200):
        table.step(walk)

    assert len(table.rows[B]) > 20_000
    assert sum(old for _, old in table.rows[A]) == 0


def test_a_group_that_is_gone_stops_no_sweep() -> None:
    """It goes on with the one behind it, and at the end from the beginning."""
    table = Table(a=[False] * 50_000, b=[False] * 50_000)
    walk = PruneWalk(10_000)
    table.round(walk)
    del table.rows[A]
    table.round(walk)
    del table.rows[B]
    table.round(walk)
    table.rows[A] = [(0, False), (1, True)]
    table.rows[A] += [(n, True) for n in range(2, 300)]

    table.round(walk)

    assert table.old == 0


@pytest.mark.parametrize("limit", [1, 50, 10_000])
def test_batches_fit_the_time(limit: int) -> None:
    """Larger while they are quick, up to the limit; smaller while slow, down to some."""
    walk = PruneWalk(limit)
    quick = Table(a=[True] * min(limit * 40, 100_000))
    quick.round(walk)
    assert max(look.rows for look, _ in quick.looks) == limit
    slow = Table(a=[True] * min(limit * 40, 100_000))
    slow.round(walk, seconds=2 * BATCH_TIME)

    assert slow.looks[-1][0].rows == min(LEAST_SIZE, limit)
    assert min(FIRST_SIZE, limit) >= min(LEAST_SIZE, limit)


def test_a_refused_row_is_closed_in_upon() -> None:
    """First its look stands alone, then it gets smaller; left out, the rest goes on."""
    walk = PruneWalk(1000)
    walk.begin([A, B])
    assert [look.group for look in walk.batch()] == [A, B]
    walk.failed()
    sizes = []
    while walk.batch()[0].rows > 1:
        [look] = walk.batch()
        assert look.group == A
        sizes.append(look.rows)
        walk.failed()
    walk.failed()

    assert sizes[0] == PROBE
    assert all(after == before // 2 for before, after in pairwise(sizes))
    # Behind the others: where there are many such rows, these must not wait for them all.
    table = Table(a=[False], b=[False])
    assert [(look.group, look.rows) for look in walk.batch()] == [(B, PROBE)]
    table.step(walk)
    assert [(look.group, look.rows) for look in walk.batch()] == [(A, FIRST_SIZE)]


def test_a_round_that_is_ended_early() -> None:
    """The next one has all fronts again, and its sweep goes on from where this one's was."""
    walk = PruneWalk(100)
    table = Table(a=[False] * 1_000, b=[False] * 10)
    walk.begin(table.groups)
    while not (walk._stopped and walk._stopped.after):
        table.step(walk)
    stopped = walk._stopped
    walk.pause()
    assert walk.over

    walk.begin(table.groups)
    assert [look.group for look in walk._fronts] == [A, B]
    assert walk._sweeps[0].after == stopped.after


def test_after_a_refused_row_others_go_together_again() -> None:
    """Alone are only those that were in the batch that failed."""
    walk = PruneWalk(1000)
    table = Table(**{f"q{n}": [False] * 5 for n in range(20)})
    walk.begin(table.groups)
    together = len(walk.batch())
    walk.failed()
    alone = [len(walk.batch()) for _ in range(together) if table.step(walk)]

    assert together > 1
    assert alone == [1] * (together - 1) + [len(walk.batch())]
    assert len(walk.batch()) > 1


def test_an_unanswered_look_is_tried_smaller() -> None:
    """The same place, with half as many rows."""
    walk = PruneWalk(10_000)
    walk.begin([A])
    table = Table(a=[True] * 20_000)
    for _ in range(5):
        table.step(walk)
    [before] = walk.batch()
    walk.slower()
    [after] = walk.batch()

    assert (after.group, after.after) == (before.group, before.after)
    assert after.rows == before.rows // 2


def test_nothing_is_looked_at_twice_in_vain_beyond_the_front() -> None:
    """In one round each place is read by at most the front and the sweep; a small group once."""
    table = Table(a=[True, False] * 4000, b=[False] * 4000, c=[False] * 100)

    table.round(PruneWalk(500))

    places = Counter((look.group, look.after) for look, _ in table.looks)
    assert max(places.values()) <= 2
    assert len([look for look, _ in table.looks if look.group.queue == "c"]) == 1


def test_many_small_groups_are_few_batches() -> None:
    """A thousand queues are no thousand transactions."""
    table = Table(**{f"q{n}": [False] * 5 for n in range(1000)})
    walk = PruneWalk(10_000)
    walk.begin(table.groups)

    batches = 0
    while not walk.over:
        table.step(walk)
        batches += 1

    assert batches < 50
    assert len(table.looks) < 1100
