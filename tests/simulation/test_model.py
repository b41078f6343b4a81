"""The model of the job store does what PostgreSQL does, call by call."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban_actors.claim import Ack
from oban_actors.engines import JobEngine, ProducerBeat
from oban_actors.engines.prune import PruneLook
from oban_actors.job import Job, JobState
from oban_actors.repo import Repo
from oban_actors.repo.times import to_text
from tests.engines.conftest import Store, store_on
from tests.simulation.both import CLAIMANTS, ERROR, Both, beside
from tests.support.databases import Database

FATES = (JobState.COMPLETED, JobState.RETRYABLE, JobState.SCHEDULED, JobState.DISCARDED)
LONG = 600.0
"""Seconds that are long before or after any test's time."""

ENTRIES = ("daily", "hourly", "weekly")
MARKED = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def pg_store(pg: Database) -> Iterator[Store]:
    """The real one."""
    yield from store_on(pg)


Fence = tuple[int, datetime]
"""A job's id and when it was claimed."""


class Drawn:
    """Makes calls, drawn by chance, and compares the answers."""

    def __init__(self, both: Both, seed: int) -> None:
        self.both = both
        self.rng = random.Random(seed)
        self.fences: list[tuple[Fence, Fence]] = []
        self.pruned = 0

    # Steps

    def insert(self) -> None:
        """Insert a job, due long ago, now, or long from now."""
        due = self.rng.choice([None, None, -LONG, LONG])
        given: dict[str, Any] = {"max_attempts": self.rng.choice([1, 2, 20])}
        given |= {"priority": self.rng.randint(0, 2)} | ({"schedule_in": due} if due else {})
        job = Job.new({}, worker="sim.plain", queue=self.rng.choice(["a", "b"]), **given)
        (real,), (model,) = self.both.call("insert_jobs", [job], None)
        assert real.state == model.state
        self.both.ids.append((real.id, model.id))

    def stage(self) -> None:
        """Stage some."""
        real, model = self.both.call("stage_jobs", self.rng.randint(1, 3), None, [])
        assert self.both.same([each.id for each in real.jobs], [each.id for each in model.jobs])
        assert [each.state for each in real.jobs] == [each.state for each in model.jobs]
        assert (real.next_due_in is None) == (model.next_due_in is None)
        if real.next_due_in is not None:
            assert (real.next_due_in > 0) == (model.next_due_in > 0)

    def look(self) -> None:
        """Ask which queues have work."""
        real, model = self.both.call("check_available")
        assert real == model

    def turn(self) -> None:
        """Acknowledge some, also what is no longer claimed so, and claim some."""
        claimant, queue = self.rng.choice(CLAIMANTS), self.rng.choice(["a", "b"])
        chosen = self.rng.sample(self.fences, min(len(self.fences), self.rng.randint(0, 3)))
        chosen = list({each[0][0]: each for each in chosen}.values())
        fates = [(self.rng.choice(FATES), self.rng.random() < 0.1) for _ in chosen]
        limit, careful = self.rng.randint(0, 3), self.rng.random() < 0.3

        def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
            acks = [_ack(*one[model], *how) for one, how in zip(chosen, fates, strict=True)]
            return repo.transaction(
                lambda c: engine.take_turn(c, claimant, queue, acks, limit, None, careful=careful)
            )

        real, model = self.both.each(work)
        for part in ("settled", "stale", "blocked"):
            assert self.both.same(sorted(getattr(real, part)), sorted(getattr(model, part))), part
        assert self.both.same([job.id for job in real.jobs], [job.id for job in model.jobs])
        for one, other in zip(real.jobs, model.jobs, strict=True):
            assert (one.attempt, one.priority) == (other.attempt, other.priority)
            self.fences.append(((one.id, one.attempted_at), (other.id, other.attempted_at)))

    def release(self) -> None:
        """Give back what is not held."""
        claimant, queue = self.rng.choice(CLAIMANTS), self.rng.choice(["a", "b"])
        held = [each for each in self.both.ids if self.rng.random() < 0.7]

        def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
            ids = [each[model] for each in held]
            return self.both.on(repo, engine, "release_jobs", claimant, queue, ids, None)

        assert self.both.same(*self.both.each(work))

    def beat(self) -> None:
        """Show a producer, and compare what it has."""
        beat = self._producer()
        real, model = self.both.call("beat", [beat], None)
        assert real.busy == model.busy
        assert self.both.same(
            *(sorted(each.job_id for each in one.claims) for one in (real, model))
        )

    def rescue(self) -> None:
        """Rescue what a producer has left."""
        claimant, queue = self.rng.choice(CLAIMANTS), self.rng.choice(["a", "b"])

        def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
            def both(connection: Any) -> Any:
                ids = engine.find_orphans(connection, claimant.uuid, queue, 2, [])
                return ids, engine.rescue_jobs(connection, ids, "executing", "died", None)

            return repo.transaction(both)

        (ids, done), (others, also) = self.both.each(work)
        assert self.both.same(ids, others)
        for part in ("rescued", "discarded"):
            assert self.both.same(
                *([job.id for job in getattr(each, part)] for each in (done, also))
            )

    def claim(self) -> None:
        """Ask for a job's latest claim."""
        ids = self.rng.choice([*self.both.ids, (-1, -1)])
        fences = {one[0]: (one[1], other[1]) for one, other in self.fences}

        def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
            found = self.both.on(repo, engine, "claim_of", ids[model])
            latest = fences.get(ids[0], (None, None))[model]
            return found and (found[0], found[1] == (latest and to_text(latest)))

        real, model = self.both.each(work)
        assert real == model
        assert real is None or real[1]

    def forget(self) -> None:
        """Take a producer's row away, which stays while it has jobs."""
        self.both.call("forget_producer", self.rng.choice(CLAIMANTS))

    def prune_jobs(self) -> None:
        """Delete some of what has ended."""
        groups, others = self.both.call("ended_groups")
        assert groups == others
        age = self.rng.choice([None, 0.0, 0.0, LONG])
        aside = [each for each in self.both.ids if self.rng.random() < 0.2]
        for group in self.rng.sample(groups, min(len(groups), 1)):
            look = PruneLook(group, None, self.rng.randint(1, 3))

            def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
                left = [each[model] for each in aside]
                return self.both.on(repo, engine, "prune_jobs", look, age, left, None)  # noqa: B023 (called in this turn)

            real, model = self.both.each(work)
            assert real.seen == model.seen
            assert self.both.same(real.pruned, model.pruned)
            self.pruned += len(real.pruned)

    # Cron

    def plant(self) -> None:
        """Make rows for entries that have none."""
        self.both.call("plant_crons", self._name(), self._marks())

    def mark(self) -> None:
        """Write up to when entries were evaluated."""
        self.both.call("mark_crons", self._name(), self._marks())

    def read(self) -> None:
        """Read the marks, locking them or not."""
        how = self.rng.choice(["read_crons", "lock_crons"])
        real, model = self.both.call(how, self._name(), self._entries(), None)
        assert real.evaluated == model.evaluated

    def prune(self) -> None:
        """Delete marks of entries that are no more."""
        self.both.call("prune_crons", self._name(), self._entries(), self._moment())

    def neighbours(self) -> None:
        """Ask who has producers."""
        real, model = self.both.call("find_neighbours", self._name())
        assert {each.identity for each in real} == {each.identity for each in model}
        assert len(real) == len(model)

    def _producer(self) -> ProducerBeat:
        number = self.rng.choice([0, 1])
        return ProducerBeat(CLAIMANTS[number], f"node {number}", "Oban", "a", 5, False, 0)

    def _name(self) -> str:
        return self.rng.choice(["Oban", "Other"])

    def _entries(self) -> list[str]:
        return [each for each in ENTRIES if self.rng.random() < 0.6]

    def _moment(self) -> datetime:
        return MARKED + timedelta(minutes=self.rng.randint(0, 3))

    def _marks(self) -> dict[str, datetime]:
        return {entry: self._moment() for entry in self._entries()}


def _ack(job_id: int, fence: datetime, state: JobState, killed: bool) -> Ack:  # noqa: FBT001 (as drawn)
    if killed:
        return Ack(job_id, fence, JobState.CANCELLED, ERROR, killed=True)
    error = ERROR if state in (JobState.RETRYABLE, JobState.DISCARDED) else None
    return Ack(job_id, fence, state, error, delay=-LONG if state == JobState.RETRYABLE else LONG)


@pytest.mark.db
@pytest.mark.parametrize("seed", range(4))
def test_the_model_does_what_postgresql_does(pg_store: Store, seed: int) -> None:
    """Whatever is called, in whatever order, both stores answer the same."""
    with beside(pg_store, seed) as both:
        drawn = Drawn(both, seed)
        steps = [drawn.insert, drawn.insert, drawn.stage, drawn.look, drawn.claim]
        steps += [drawn.turn, drawn.turn, drawn.turn, drawn.release]
        steps += [drawn.beat, drawn.rescue, drawn.forget, drawn.prune_jobs, drawn.prune_jobs]
        steps += [drawn.plant, drawn.mark, drawn.read, drawn.read, drawn.prune, drawn.neighbours]
        for done in range(1_000):
            drawn.rng.choice(steps)()
            if done >= 160 and drawn.pruned:
                break
        assert drawn.pruned > 0
