"""Inserting unique jobs: each one, or the job that is there in its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from sqlalchemy import Connection

from oban_actors.engines import JobEngine
from oban_actors.job import Job, JobState
from oban_actors.unique import Unique

Spec = tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a batch.

    Attributes:
        jobs: as they stand in the table, in the order given; with `conflict` those that were
            there before.
        put_off: ids of those among the latter whose time was replaced.
        written: whether any was inserted, or anything of one replaced.

    """

    jobs: list[Job]
    put_off: frozenset[int] = frozenset()
    written: bool = True


@dataclass(slots=True)
class _Batch:
    """A batch on its way, by the jobs' places in it.

    Attributes:
        jobs: as given.
        rows: what is in the table already, by place.
        twins: places of earlier jobs that are the same, by place.

    """

    jobs: Sequence[Job]
    rows: dict[int, Job] = field(default_factory=dict)
    twins: dict[int, int] = field(default_factory=dict)


def settle(
    engine: JobEngine,
    connection: Connection,
    jobs: Sequence[Job],
    now: datetime | None,
    host_timeout: float | None,
    *,
    more: bool,
) -> Settled:
    """Insert jobs, but of unique ones only those for which no other one is there.

    Others that insert the same are kept out first, and only a later statement looks: it sees
    whatever they have committed.

    Args:
        engine: the job store.
        connection: in a transaction.
        jobs: checked ones.
        now: a virtual clock's time.
        host_timeout: see `JobEngine.lock_unique`.
        more: see there too.

    Raises:
        TransientError: others were in the way for too long.
        UnfitTransaction: the host's transaction would not see what others insert.

    """
    places = [place for place, job in enumerate(jobs) if job.unique is not None]
    if not places:
        return Settled(engine.insert_jobs(connection, jobs, now))
    batch = _Batch(jobs)
    unique = [jobs[place] for place in places]
    keys = sorted({_key(job) for job in unique})
    engine.lock_unique(connection, keys, host_timeout, more=more)
    found = engine.find_same(connection, unique, now)
    _read_rows(engine, connection, batch, {places[nth]: row for nth, row in found.items()})
    _find_twins(batch, cache(lambda: engine.database_now(connection, now)))
    return _finish(engine, connection, batch, now)


def settle_found(
    engine: JobEngine, connection: Connection, job: Job, job_id: int, now: datetime | None
) -> Settled:
    """Settle a single unique job for which another one was found, with others kept out.

    Args:
        engine: the job store.
        connection: in the transaction that keeps them out.
        job: a checked one.
        job_id: of the other one.
        now: a virtual clock's time.

    Raises:
        TransientError: others were in the way for too long.

    """
    batch = _Batch([job])
    _read_rows(engine, connection, batch, {0: job_id})
    return _finish(engine, connection, batch, now)


def _key(job: Job) -> str:
    return (job.unique or Unique()).wish(job)


def _read_rows(
    engine: JobEngine, connection: Connection, batch: _Batch, found: dict[int, int]
) -> None:
    if not found:
        return
    lock = any(batch.jobs[place].replace for place in found)
    rows = engine.read_jobs(connection, sorted(set(found.values())), lock=lock)
    for place, job_id in found.items():
        unique, row = batch.jobs[place].unique, rows.get(job_id)
        # It may have gone, or gone on, between the look and the lock.
        if unique is not None and row is not None and row.state in unique.states:
            batch.rows[place] = row


def _find_twins(batch: _Batch, clock: Callable[[], datetime]) -> None:
    """Find jobs of the batch that are the same as one before them; the clock is the database's."""
    uniques = [job.unique and job.unique.narrowed(job) for job in batch.jobs]
    specs = {_spec(unique): unique for unique in uniques if unique is not None}
    seen: dict[tuple[Spec, str], list[int]] = {}
    for place, job in enumerate(batch.jobs):
        if place in batch.rows:
            continue
        asked = uniques[place]
        if asked is not None:
            earlier = seen.get((_spec(asked), asked.wish(job)), ())
            twin = next((e for e in earlier if _counts(asked, batch.jobs[e], clock)), None)
            if twin is not None:
                batch.twins[place] = twin
                continue
        for spec, unique in specs.items():
            seen.setdefault((spec, unique.trait(job)), []).append(place)


def _counts(asked: Unique, job: Job, clock: Callable[[], datetime]) -> bool:
    """Whether a job that is the same is in a state that counts, and not due for too long."""
    if job.state not in asked.states:
        return False
    if asked.timestamp != "scheduled_at" or asked.period is None:
        return True
    ago = -(job.schedule_in or 0.0)
    if job.scheduled_at is not None:
        ago = (clock() - job.scheduled_at).total_seconds()
    return ago <= asked.period


def _spec(unique: Unique) -> Spec:
    return unique.fields, unique.keys


def _finish(
    engine: JobEngine, connection: Connection, batch: _Batch, now: datetime | None
) -> Settled:
    fresh = [p for p in range(len(batch.jobs)) if p not in batch.rows and p not in batch.twins]
    inserted = engine.insert_jobs(connection, [batch.jobs[place] for place in fresh], now)
    new = dict(zip(fresh, inserted, strict=True))
    there = {**batch.rows, **{place: new[twin] for place, twin in batch.twins.items()}}
    put_off: set[int] = set()
    changed: set[int] = set()
    for place, row in sorted(there.items()):
        job, job_id = batch.jobs[place], row.id or 0
        fields = _replaced(job, row)
        if fields:
            engine.replace_fields(connection, job_id, job, fields, now)
            changed.add(job_id)
            put_off |= {job_id} if "scheduled_at" in fields else set()
    rows = engine.read_jobs(connection, sorted(changed), lock=False) if changed else {}
    for place, row in there.items():
        new[place] = rows.get(row.id or 0, row).copy()
        new[place].conflict = True
    for place in fresh:
        new[place] = rows.get(new[place].id or 0, new[place])
    jobs = [new[place] for place in range(len(batch.jobs))]
    return Settled(jobs, frozenset(put_off), written=bool(fresh or changed))


def _replaced(job: Job, row: Job) -> tuple[str, ...]:
    left = set[str]()
    if job.scheduled_at is None and job.schedule_in is None:
        left.add("scheduled_at")
    if row.state is JobState.EXECUTING:
        # Its producer looks for its claims in its own queue.
        left.add("queue")
    return tuple(name for name in job.replace.get(row.state, ()) if name not in left)
