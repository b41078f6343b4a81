"""Finding the jobs that are the same as unique ones, on SQLite."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

from sqlalchemy import Connection, TextClause, text

from oban_actors.engines.shapes import Match, Shape, shape_of
from oban_actors.engines.sqlite_lock import keep_writers_out
from oban_actors.engines.sqlite_texts import Pieces, is_one_of, pieces_of, to_json, within
from oban_actors.job import Job
from oban_actors.repo.times import NOW, parameter, to_moment, to_text
from oban_actors.unique import alike, holds

_CLOCK = text(f"SELECT {NOW['sqlite']}")

# Cast, since a host's connection may have a converter for columns that are declared as JSON.
_LOOK = (
    "SELECT id, cast(args AS TEXT), cast(meta AS TEXT) "
    "FROM oban_jobs INDEXED BY oban_actors_unique_index WHERE "
)
_AT = "rtrim(replace({}, ' ', 'T'), 'Z') >= rtrim(:since, 'Z')"
_WORKERS = """worker IN (
  WITH RECURSIVE workers (name) AS (
    SELECT min(worker) FROM oban_jobs
    UNION ALL
    SELECT (SELECT min(worker) FROM oban_jobs WHERE worker > workers.name)
    FROM workers WHERE workers.name IS NOT NULL
  )
  SELECT name FROM workers WHERE name IS NOT NULL
)"""
# With the `+`, or else SQLite puts the value in the column's place, and not only here.
_FEW = "substr(args, 1, {length}) IN ({starts}) AND +args IN ({texts})"
# Most ways to write many numbers are nobody's: only those that some row begins with are gone on
# with. What may follow a number in JSON comes before a `~`.
_MANY = """substr(args, 1, {length}) IN (
  WITH RECURSIVE start (place, text) AS (
    SELECT 0, ''
    UNION
    SELECT place + 1, substr(start.text || way.value, 1, {length})
    FROM start JOIN json_each(:pieces, '$[' || place || ']') AS way
    WHERE EXISTS (
      SELECT 1 FROM oban_jobs INDEXED BY oban_actors_unique_index
      WHERE {rows} AND substr(args, 1, {length}) >= substr(start.text || way.value, 1, {length})
      AND substr(args, 1, {length}) < substr(start.text || way.value, 1, {length}) || '~'
    )
  )
  SELECT text FROM start WHERE place = :places
)"""
_READ = text("SELECT * FROM oban_jobs WHERE id IN (SELECT value FROM json_each(:ids))")

_LENGTH = 200
"""Characters of args that the index holds."""

_MAX_TEXTS = 16
"""Texts that are looked for one by one."""

_MAX_SIZE = 100_000
"""Characters of all these texts."""

_MAX_INTEGER = 2**53
"""From here on a float that is written the same way need not be the same number."""

_VALUES = {
    "args": "args = :args",
    # One that waits and has none left would wait for ever.
    "max_attempts": (
        "max_attempts = max(:max_attempts, attempt + "
        "(state IN ('available', 'scheduled', 'retryable', 'suspended')))"
    ),
    "meta": "meta = :meta",
    "priority": "priority = :priority",
    "queue": "queue = :queue",
    "scheduled_at": (
        "scheduled_at = :scheduled_at, "
        "state = CASE WHEN state = 'available' AND :ahead THEN 'scheduled' ELSE state END"
    ),
    "tags": "tags = :tags",
    "worker": "worker = :worker",
}


class SqliteUniques:
    """Looks for jobs that are the same, for `SqliteEngine`."""

    def lock_unique(
        self,
        connection: Connection,
        keys: Sequence[str],
        host_timeout: float | None,
        *,
        more: bool,
    ) -> None:
        """See `JobEngine`."""
        if host_timeout is not None:
            keep_writers_out(connection)

    def find_same(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> dict[int, int]:
        """See `JobEngine`."""
        at = to_moment(connection.execute(_CLOCK, {"now": parameter("sqlite", now)}).scalar_one())
        found: dict[int, int] = {}
        for place, job in enumerate(jobs):
            job_id = _same(connection, job, at)
            if job_id is not None:
                found[place] = job_id
        return found

    def read_jobs(
        self,
        connection: Connection,
        ids: Sequence[int],
        *,
        lock: bool,
    ) -> dict[int, Job]:
        """See `JobEngine`."""
        rows = connection.execute(_READ, {"ids": json.dumps(list(ids))}).mappings().all()
        jobs = (Job.from_row(dict(row)) for row in rows)
        return {job.id: job for job in jobs if job.id is not None}

    def replace_fields(
        self,
        connection: Connection,
        job_id: int,
        job: Job,
        fields: Sequence[str],
        now: datetime | None,
    ) -> None:
        """See `JobEngine`."""
        at = to_moment(connection.execute(_CLOCK, {"now": parameter("sqlite", now)}).scalar_one())
        due = job.scheduled_at or at + timedelta(seconds=job.schedule_in or 0)
        values = {
            "args": to_json(job.args),
            "max_attempts": job.max_attempts,
            "meta": to_json(job.meta),
            "priority": job.priority,
            "queue": job.queue,
            "scheduled_at": to_text(due),
            "tags": to_json(job.tags),
            "worker": job.worker,
        }
        statement = text(
            f"UPDATE oban_jobs SET {', '.join(_VALUES[name] for name in fields)} WHERE id = :id"
        )
        given = {"id": job_id, **{name: values[name] for name in fields}}
        if "scheduled_at" in fields:
            given["ahead"] = due > at
        connection.execute(statement, given)


def _same(connection: Connection, job: Job, at: datetime) -> int | None:
    shape = shape_of(job)
    wanted = {name: shape.unique.wanted(job, name) for name in ("args", "meta")}
    pieces = pieces_of(wanted["args"]) if shape.args == "equal" else ()
    statement, values = _look(job, shape, at, pieces)
    with contextlib.closing(connection.execute(_prepared(statement), values)) as rows:
        for job_id, args, meta in rows:
            # Bytes are text that is no UTF-8, and no way in which ours could be written.
            same = (
                isinstance(args, str) and is_one_of(args, pieces)
                if pieces
                else _fits(shape.args, args, wanted["args"])
            )
            if same and _fits(shape.meta, meta, wanted["meta"]):
                return int(job_id)
    return None


@lru_cache(maxsize=256)
def _prepared(statement: str) -> TextClause:
    return text(statement)


def _look(job: Job, shape: Shape, at: datetime, pieces: Pieces) -> tuple[str, dict[str, Any]]:
    unique = shape.unique
    states = ", ".join(f"'{state}'" for state in unique.states)
    conditions = ["worker = :worker" if shape.worker else _WORKERS, f"state IN ({states})"]
    values: dict[str, Any] = {"worker": job.worker} if shape.worker else {}
    if pieces:
        condition, texts = _written(pieces, " AND ".join(conditions))
        conditions.append(condition)
        values |= texts
    if shape.queue:
        conditions.append("queue = :queue")
        values["queue"] = job.queue
    if unique.period is not None:
        conditions.append(_AT.format(unique.timestamp))
        values["since"] = to_text(_earlier(at, unique.period))
    for column, match in (("args", shape.args), ("meta", shape.meta)):
        if match in ("alike", "part") or (column == "args" and "pieces" in values):
            for condition, value in _scalars(column, unique.wanted(job, column)):
                name = f"value_{len(values)}"
                conditions.append(condition.format(f":{name}_path", f":{name}"))
                values |= {f"{name}_path": value[0], name: value[1]}
    return _LOOK + " AND ".join(conditions), values


def _written(pieces: Pieces, rows: str) -> tuple[str, dict[str, Any]]:
    count, size = prod(map(len, pieces)), sum(len(ways[0]) for ways in pieces)
    if count > 1 and (count > _MAX_TEXTS or count * size > _MAX_SIZE):
        first = within(pieces, _LENGTH)
        values = {"pieces": json.dumps(first), "places": len(first)}
        return _MANY.format(length=_LENGTH, rows=rows), values
    texts = {f"args_{place}": "".join(text) for place, text in enumerate(product(*pieces))}
    starts = ", ".join(f"substr(:{name}, 1, {_LENGTH})" for name in texts)
    names = ", ".join(f":{name}" for name in texts)
    return _FEW.format(length=_LENGTH, starts=starts, texts=names), texts


def _scalars(column: str, wanted: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
    # What SQLite can tell by itself; the rest is looked at in Python.
    extract = f"CASE WHEN json_valid({column}) THEN json_extract({column}, {{}}) END = {{}}"
    for key, value in wanted.items():
        number = isinstance(value, int) and abs(value) < _MAX_INTEGER
        # What JSON may write in two ways, not every SQLite takes for the same.
        plain = json.dumps(key) == f'"{key}"'
        if (number or isinstance(value, str)) and plain:
            yield extract, (f'$."{key}"', value)


def _earlier(at: datetime, seconds: float) -> datetime:
    try:
        return at - timedelta(seconds=seconds)
    except OverflowError:
        return datetime.min.replace(tzinfo=at.tzinfo)


def _fits(match: Match, written: str | bytes, wanted: dict[str, Any]) -> bool:
    if match == "any":
        return True
    try:
        found = json.loads(written)
    except (TypeError, ValueError):
        return False
    if match == "part":
        return holds(found, wanted)
    return isinstance(found, dict) and alike(found, wanted)
