"""Who waits for whom: the model's locks are those of PostgreSQL, pair by pair."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from oban_actors.claim import Ack
from oban_actors.engines import JobEngine, ProducerBeat
from oban_actors.engines.prune import EndedGroup, PruneLook
from oban_actors.job import Job, JobState
from oban_actors.repo import Repo
from tests.engines.conftest import Store, store_on
from tests.simulation.both import CLAIMANTS, ERROR, Both, beside
from tests.simulation.machine import Machine
from tests.support.databases import Database

ONE, OTHER = CLAIMANTS
MARK = datetime(2026, 11, 24, 12, tzinfo=UTC)
PATIENCE = 0.1
"""Seconds that the second one waits for the first one's locks: it holds them for longer."""

WAITS = "waits"
ENDED = PruneLook(EndedGroup("completed", "ends", 0), None, 5)


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is on one side.

    Attributes:
        run: a job that runs, since `fence`; `beat` the last beat of its producer.

    """

    run: int
    fence: datetime
    beat: str


Step = Callable[[Any, Any, Scene], Any]


def _ids(jobs: Any) -> list[int]:
    return [job.id for job in jobs]


def _beat(engine: Any, connection: Any, *_: Any) -> Any:
    report = engine.beat(connection, [ProducerBeat(ONE, "one", "Oban", "runs", 5, False, 0)], None)
    return [claim.job_id for claim in report.claims]


def _finish(engine: Any, connection: Any, scene: Scene, *, careful: bool = False) -> Any:
    acks = [Ack(scene.run, scene.fence, JobState.COMPLETED, None)]
    turn = engine.take_turn(connection, ONE, "runs", acks, 0, None, careful=careful)
    return [list(turn.settled), list(turn.stale), list(turn.blocked)]


def _rescue(engine: Any, connection: Any, scene: Scene) -> Any:
    rescued = engine.rescue_jobs(connection, [scene.run], "executing", "died", None)
    return [_ids(rescued.rescued), _ids(rescued.discarded)]


def _marks(engine: Any, connection: Any, *_: Any) -> Any:
    return sorted(engine.lock_crons(connection, "Oban", ["daily", "hourly"], None).evaluated)


STEPS: dict[str, Step] = {
    "stage": lambda e, c, _: _ids(e.stage_jobs(c, 5, None, []).jobs),
    "claim": lambda e, c, _: _ids(e.take_turn(c, OTHER, "waits", [], 5, None).jobs),
    "finish": _finish,
    "finish carefully": lambda e, c, s: _finish(e, c, s, careful=True),
    "record an error": lambda e, c, s: e.record_error(c, ONE, s.run, s.fence, ERROR),
    "release": lambda e, c, _: e.release_jobs(c, ONE, "runs", [], None),
    "beat": _beat,
    "hold": lambda e, c, s: e.hold_producer(c, ONE.uuid, s.beat),
    "hold nobody": lambda e, c, _: e.hold_producer(c, OTHER.uuid, None),
    "find orphans": lambda e, c, _: e.find_orphans(c, ONE.uuid, "runs", 5, []),
    "rescue": _rescue,
    "settle": lambda e, c, s: e.settle_producer(c, ONE.uuid, s.beat, ["runs"]),
    "forget": lambda e, c, _: e.forget_producer(c, ONE),
    "lock marks": _marks,
    "plant marks": lambda e, c, _: e.plant_crons(c, "Oban", {"hourly": MARK, "weekly": MARK}),
    "write marks": lambda e, c, _: e.mark_crons(c, "Oban", {"daily": MARK}),
    "prune": lambda e, c, _: [len(e.prune_jobs(c, ENDED, 0.0, [], None).pruned)],
    "prune marks": lambda e, c, _: e.prune_crons(c, "Oban", ["hourly"], MARK.replace(year=2027)),
}


class _Undone(Exception):
    """Takes an answer out of a transaction, and undoes it."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


def _undone(repo: Repo, work: Callable[[Connection], Any], **terms: float) -> Any:
    def within(connection: Connection) -> None:
        raise _Undone(work(connection))

    try:
        repo.transaction(within, **terms)  # type: ignore[arg-type]  # seconds
    except _Undone as undone:
        return undone.answer
    raise AssertionError("it was committed")


def _second(repo: Repo, engine: JobEngine, step: Step, scene: Scene) -> Any:
    def work(connection: Connection) -> Any:
        try:
            return step(engine, connection, scene)
        except OperationalError as error:
            if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                return WAITS
            raise

    return _undone(repo, work, lock_timeout=PATIENCE)


def _on_postgresql(first: Step, second: Step, both: Both, scene: Scene) -> Any:
    repo, engine = both.real
    with ThreadPoolExecutor(1) as pool:

        def work(connection: Connection) -> Any:
            first(engine, connection, scene)
            return pool.submit(_second, repo, engine, second, scene).result(60.0)

        return _undone(repo, work)


def _on_the_model(first: Step, second: Step, both: Both, scene: Scene) -> Any:
    repo, engine = both.model
    hub, found = both.hub, []

    def work(connection: Connection) -> None:
        first(engine, connection, scene)
        other = Machine(hub, "web")
        hub.spawn(other, lambda: found.append(_second(repo, engine, second, scene)))
        hub.sleep(20 * PATIENCE)

    hub.spawn(Machine(hub, "web"), lambda: _undone(repo, work))
    hub.run(hub.now + 60 * PATIENCE)
    return found[0]


def _scene(both: Both) -> tuple[Scene, Scene]:
    jobs = [
        Job.new({}, worker="sim.plain", queue="waits", schedule_in=-60.0),
        Job.new({}, worker="sim.plain", queue="waits"),
        Job.new({}, worker="sim.plain", queue="runs"),
        Job.new({}, worker="sim.plain", queue="ends"),
    ]
    inserted = both.call("insert_jobs", jobs, None)
    both.ids += zip(*map(_ids, inserted), strict=True)
    turns = both.call("take_turn", ONE, "runs", [], 1, None)
    both.call("plant_crons", "Oban", {"daily": MARK, "hourly": MARK})
    both.each(lambda repo, engine, _: repo.transaction(lambda c: _beat(engine, c)))
    reports = both.call("report_producers", None, 60.0, None)
    real, model = (
        Scene(turn.jobs[0].id, turn.jobs[0].attempted_at, report.beats[ONE.uuid])
        for turn, report in zip(turns, reports, strict=True)
    )
    return real, model


@pytest.fixture
def pg_store(pg: Database) -> Iterator[Store]:
    """The real one."""
    yield from store_on(pg)


@pytest.mark.db
def test_who_waits_for_whom_is_the_same(pg_store: Store) -> None:
    """While one transaction has done a thing, another that does any waits, or gets as much."""
    differing: list[str] = []
    answers: list[Any] = []
    with beside(pg_store, 1) as both:
        real, model = _scene(both)
        names = dict(both.ids)
        for before, first in STEPS.items():
            for after, second in STEPS.items():
                answer = _on_postgresql(first, second, both, real)
                expected = _renamed(answer, names)
                answers.append(answer)
                if (modelled := _on_the_model(first, second, both, model)) != expected:
                    said = f"PostgreSQL {expected}, the model {modelled}"
                    differing.append(f"{before}, then {after}: {said}")

    assert not differing, "\n".join(differing)
    assert answers.count(WAITS) > len(STEPS)


def _renamed(answer: Any, names: dict[int, int]) -> Any:
    if isinstance(answer, list):
        return [_renamed(each, names) for each in answer]
    return names.get(answer, answer) if type(answer) is int else answer
