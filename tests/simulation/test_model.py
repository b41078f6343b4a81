"""The model of the job store does what PostgreSQL does, call by call."""

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any, cast

import pytest

from oban_actors.claim import Ack, Claimant
from oban_actors.engines import JobEngine, ProducerBeat
from oban_actors.job import Job, JobState
from oban_actors.repo import Repo
from tests.engines.conftest import Store, store_on
from tests.simulation.client import Place, SimRepo
from tests.simulation.database import Server
from tests.simulation.faults import Weather
from tests.simulation.hosting import hosted
from tests.simulation.hub import Hub
from tests.simulation.machine import Machine
from tests.simulation.node import SimEngine
from tests.support.databases import Database

CLAIMANTS = [Claimant("web.1", f"00000000-0000-8000-8000-00000000000{each}") for each in (1, 2)]
ERROR = {"at": "2026-11-24T12:00:00.000000Z", "attempt": 1, "error": "boom"}
FATES = (JobState.COMPLETED, JobState.RETRYABLE, JobState.SCHEDULED, JobState.DISCARDED)
LONG = 600.0
"""Seconds that are long before or after any test's time."""


@pytest.fixture
def pg_store(pg: Database) -> Iterator[Store]:
    """The real one."""
    yield from store_on(pg)


Fence = tuple[int, datetime]
"""A job's id and when it was claimed."""


class Both:
    """Makes the same call on the real store and on the model's, and compares the answers."""

    def __init__(self, store: Store, hub: Hub, model: Repo, seed: int) -> None:
        self.real = store.repo, store.engine
        self.model = model, cast("JobEngine", SimEngine())
        self.hub = hub
        self.rng = random.Random(seed)
        self.ids: list[tuple[int, int]] = []
        self.fences: list[tuple[Fence, Fence]] = []

    def call(self, name: str, *arguments: Any) -> tuple[Any, Any]:
        """Call a method of both."""
        return self.each(lambda repo, engine, _: self.on(repo, engine, name, *arguments))

    def each(self, work: Any) -> tuple[Any, Any]:
        """Do something with both; `work` is told which is the model."""
        real = work(*self.real, False)
        found: list[Any] = []
        machine = Machine(self.hub, "web")
        self.hub.spawn(machine, lambda: found.append(work(*self.model, True)))
        self.hub.run(self.hub.now + 1.0)
        return real, found[0]

    def on(self, repo: Repo, engine: JobEngine, name: str, *arguments: Any) -> Any:
        """Call a method within a transaction."""
        return repo.transaction(lambda connection: getattr(engine, name)(connection, *arguments))

    # Steps

    def insert(self) -> None:
        """Insert a job, due long ago, now, or long from now."""
        due = self.rng.choice([None, None, -LONG, LONG])
        given: dict[str, Any] = {"max_attempts": self.rng.choice([1, 2, 20])}
        given |= {"priority": self.rng.randint(0, 2)} | ({"schedule_in": due} if due else {})
        job = Job.new({}, worker="sim.plain", queue=self.rng.choice(["a", "b"]), **given)
        (real,), (model,) = self.call("insert_jobs", [job], None)
        assert real.state == model.state
        self.ids.append((real.id, model.id))

    def stage(self) -> None:
        """Stage some."""
        real, model = self.call("stage_jobs", self.rng.randint(1, 3), None, [])
        assert self.same([each.id for each in real.jobs], [each.id for each in model.jobs])
        assert [each.state for each in real.jobs] == [each.state for each in model.jobs]
        assert (real.next_due_in is None) == (model.next_due_in is None)
        if real.next_due_in is not None:
            assert (real.next_due_in > 0) == (model.next_due_in > 0)

    def look(self) -> None:
        """Ask which queues have work."""
        real, model = self.call("check_available")
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

        real, model = self.each(work)
        for part in ("settled", "stale", "blocked"):
            assert self.same(sorted(getattr(real, part)), sorted(getattr(model, part))), part
        assert self.same([job.id for job in real.jobs], [job.id for job in model.jobs])
        for one, other in zip(real.jobs, model.jobs, strict=True):
            assert (one.attempt, one.priority) == (other.attempt, other.priority)
            self.fences.append(((one.id, one.attempted_at), (other.id, other.attempted_at)))

    def release(self) -> None:
        """Give back what is not held."""
        claimant, queue = self.rng.choice(CLAIMANTS), self.rng.choice(["a", "b"])
        held = [each for each in self.ids if self.rng.random() < 0.7]

        def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
            ids = [each[model] for each in held]
            return self.on(repo, engine, "release_jobs", claimant, queue, ids, None)

        assert self.same(*self.each(work))

    def beat(self) -> None:
        """Show a producer, and compare what it has."""
        beat = ProducerBeat(self.rng.choice(CLAIMANTS), "one", "Oban", "a", 5, False, 0)
        real, model = self.call("beat", [beat], None)
        assert real.busy == model.busy
        assert self.same(*(sorted(each.job_id for each in one.claims) for one in (real, model)))

    def rescue(self) -> None:
        """Rescue what a producer has left."""
        claimant, queue = self.rng.choice(CLAIMANTS), self.rng.choice(["a", "b"])

        def work(repo: Repo, engine: JobEngine, model: bool) -> Any:  # noqa: FBT001 (its shape)
            def both(connection: Any) -> Any:
                ids = engine.find_orphans(connection, claimant.uuid, queue, 2, [])
                return ids, engine.rescue_jobs(connection, ids, "executing", "died", None)

            return repo.transaction(both)

        (ids, done), (others, also) = self.each(work)
        assert self.same(ids, others)
        for part in ("rescued", "discarded"):
            assert self.same(*([job.id for job in getattr(each, part)] for each in (done, also)))

    def same(self, real: list[int], model: list[int]) -> bool:
        """Whether these are the same jobs."""
        names = dict(self.ids)
        return [names[each] for each in real] == model


def _ack(job_id: int, fence: datetime, state: JobState, killed: bool) -> Ack:  # noqa: FBT001 (as drawn)
    if killed:
        return Ack(job_id, fence, JobState.CANCELLED, ERROR, killed=True)
    error = ERROR if state in (JobState.RETRYABLE, JobState.DISCARDED) else None
    return Ack(job_id, fence, state, error, delay=-LONG if state == JobState.RETRYABLE else LONG)


@pytest.mark.db
@pytest.mark.parametrize("seed", range(4))
def test_the_model_does_what_postgresql_does(pg_store: Store, seed: int) -> None:
    """Whatever is called, in whatever order, both stores answer the same."""
    hub = Hub(seed)
    server = Server(hub)
    with hosted(hub):
        machine = Machine(hub, "web")
        place = Place(machine, server, Weather(hub), lambda: None, lambda _: None)
        model = SimRepo(pg_store.repo.config, place)
        both = Both(pg_store, hub, model, seed)
        steps = [both.insert, both.insert, both.stage, both.look, both.turn, both.turn, both.turn]
        steps += [both.release, both.beat, both.rescue]
        for _ in range(80):
            both.rng.choice(steps)()
        hub.end()
