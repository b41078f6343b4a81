"""What idle trees do: so few transactions, counted under a virtual clock."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from oban_actors import Job, Oban, worker
from oban_actors.actors import VirtualClock
from oban_actors.plugins import Cron, Lifeline, Pruner, Reindexer
from tests.bench.programs.cost import transactions_by_thread
from tests.support.databases import Database
from tests.support.instances import Starter, starter
from tests.support.waiting import wait_until

MINUTES = 2
"""That are counted: what comes by chance evens out."""

SETTLED = 70.0
"""Seconds after which each plugin has run, and what is first has been."""

YEARLY = "0 0 1 1 *"


@worker(name="idle.yearly", queue="alpha")
def yearly(job: Job) -> None:
    """Do nothing."""


class Idle:
    """Whole trees on one database, of which the first leads, and their time.

    Args:
        start: makes them.
        options: those of each one.

    """

    def __init__(self, start: Starter, options: Sequence[dict[str, Any]]) -> None:
        self.clock = VirtualClock()
        self._start = start
        self._marks = count(1)
        self._trees = [self._tree(start, given, index) for index, given in enumerate(options)]
        self._heard = [start.hear(oban, "gossip") for oban in self._trees]
        self._actors = [
            ref.proxy()
            for oban in self._trees
            for name in oban._runtime.registry.names()
            if (ref := oban.whereis(name)) is not None and name != "notifier"
        ]

    def _tree(self, start: Starter, options: dict[str, Any], index: int) -> Oban:
        plugins = [Pruner(), Lifeline(), Reindexer(), Cron(crontab=[(YEARLY, yearly)])]
        given: dict[str, Any] = {"queues": {"alpha": 10, "beta": 10}, "plugins": plugins}
        given |= {"clock": self.clock, "node": f"web.{index}"} | options
        return start(**given) if index else start.leading(**given)

    def count(self) -> list[Counter[str]]:
        """Let time pass; then give each tree's transactions a minute, by actor."""
        self._pass(SETTLED)
        begun = [transactions_by_thread(oban) for oban in self._trees]
        self._pass(60.0 * MINUTES)
        return [
            Counter({name: number / MINUTES for name, number in each.items()}) for each in begun
        ]

    def _pass(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        self._settle()
        while self.clock.monotonic() < end:
            # Never beyond what is due next: whoever is due arms its timer by the time it is then.
            now = self.clock.monotonic_ns()
            dues = [due for source in self.clock._sources if (due := source(now)) is not None]
            self.clock.advance(max(min(dues) - now, 0) / 1e9)
            self._settle()

    def _settle(self) -> None:
        """Wait until all of it is done, and all of that heard."""
        mark = next(self._marks)
        self._answered()
        prefix = self._start.tables.schema
        statement = "SELECT pg_notify(:channel, :payload)"
        channel, payload = f"{prefix}.oban_gossip", f'{{"mark": {mark}}}'
        self._start.tables.execute(statement, channel=channel, payload=payload)
        sent = {"mark": mark}
        wait_until(lambda: all(sent in each.payloads("gossip")[-1:] for each in self._heard))
        # Once more: what they hear makes them do something.
        self._answered()

    def _answered(self) -> None:
        for _ in range(2):
            for answer in [actor.actor_urn for actor in self._actors]:
                answer.get(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "goal", "queues"), [(1.0, 80, 2), (30.0, 25, 2), (30.0, 25, 100)]
)
def test_a_leader_that_is_idle(pg: Database, interval: float, goal: int, queues: int) -> None:
    """60 looks for what is due, by default; all else is under 20, however many queues there are."""
    with starter(pg) as start:
        named = {f"queue_{number}": 10 for number in range(queues)}
        (found,) = Idle(start, [{"stager": {"interval": interval}, "queues": named}]).count()

    assert found.total() < goal, found
    assert found["stager"] <= 60 / interval, found
    assert found["peer"] <= 13, found
    assert found["pulse"] < 7, found
    assert found["plugin lifeline"] == 0, found
    assert found["plugin pruner"] <= 1, found


@pytest.mark.slow
def test_a_follower_that_is_idle(pg: Database) -> None:
    """It beats, and looks at the lease at times."""
    with starter(pg) as start:
        leader, follower = Idle(start, [{}, {}]).count()

    assert leader.total() < 80, leader
    assert follower.total() < 10, follower
    assert set(follower) <= {"pulse", "peer"}, follower
