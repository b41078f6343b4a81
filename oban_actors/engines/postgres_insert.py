"""Putting jobs into PostgreSQL's table: many of them with one statement."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Table, text

from oban_actors.engines.inserts import InsertMessage, RowTimes, batches, inserted
from oban_actors.engines.postgres_traces import trace_of_insert
from oban_actors.job import Job
from oban_actors.repo.commits import leave
from oban_actors.repo.message import pyformat
from oban_actors.repo.times import NOW, parameter, to_naive

_NOW = NOW["postgresql"]

# A column comes as one JSON array, which Python writes and PostgreSQL reads faster than an array of
# its own. Where all jobs have the same value the array is empty, and the value comes once.
_NONE = "[]"
_SHARED = ("state", "queue", "worker", "meta", "max_attempts", "priority")

_JOBS = f"""
(SELECT {_NOW} AS now) AS moment,
  ROWS FROM (
    json_array_elements(cast(:args_each AS json)),
    json_array_elements_text(cast(:state_each AS json)),
    json_array_elements_text(cast(:queue_each AS json)),
    json_array_elements_text(cast(:worker_each AS json)),
    json_array_elements_text(cast(:meta_each AS json)),
    json_array_elements_text(cast(:max_attempts_each AS json)),
    json_array_elements_text(cast(:priority_each AS json)),
    json_array_elements(cast(:rare_each AS json))
  ) WITH ORDINALITY
  AS job (args, state, queue, worker, meta, max_attempts, priority, rare, position)
"""

_COMMON = """
  cast(coalesce(job.state, :state) AS {schema}.oban_job_state),
  coalesce(job.queue, :queue), coalesce(job.worker, :worker),
  cast(job.args AS jsonb), cast(coalesce(job.meta, :meta) AS jsonb),
  cast(coalesce(job.max_attempts, :max_attempts) AS integer),
  cast(coalesce(job.priority, :priority) AS integer)
"""

_NEW_PLAIN = f"""
INSERT INTO {{jobs}} (
  state, queue, worker, args, meta, max_attempts, priority,
  tags, errors, attempt, inserted_at, scheduled_at
)
SELECT {_COMMON}, cast('{{{{}}}}' AS text[]), cast('{{{{}}}}' AS jsonb[]), 0,
  moment.now, moment.now
FROM {_JOBS}
WHERE {{condition}}
ORDER BY job.position
RETURNING id, inserted_at, scheduled_at
"""
_PLAIN = """
WITH new AS ({new})
SELECT string_agg(cast(id AS text), ','), max(inserted_at), cast(pg_current_xact_id() AS text)
FROM new
"""

_NEW = f"""
INSERT INTO {{jobs}} (
  state, queue, worker, args, meta, max_attempts, priority,
  tags, errors, attempt, attempted_by,
  inserted_at, scheduled_at, attempted_at, completed_at, discarded_at, cancelled_at
)
SELECT {_COMMON},
  CASE WHEN rare.tags IS NULL THEN cast('{{{{}}}}' AS text[])
       ELSE array(SELECT jsonb_array_elements_text(rare.tags)) END,
  CASE WHEN rare.errors IS NULL THEN cast('{{{{}}}}' AS jsonb[])
       ELSE array(SELECT jsonb_array_elements(rare.errors)) END,
  coalesce(rare.attempt, 0),
  CASE WHEN rare.attempted_by IS NOT NULL
       THEN array(SELECT jsonb_array_elements_text(rare.attempted_by)) END,
  coalesce(rare.inserted_at, moment.now),
  coalesce(rare.scheduled_at, moment.now + make_interval(secs => coalesce(rare.schedule_in, 0))),
  rare.attempted_at, rare.completed_at, rare.discarded_at, rare.cancelled_at
FROM {_JOBS}
CROSS JOIN LATERAL json_to_record(coalesce(job.rare, '{{{{}}}}')) AS rare (
  tags jsonb, errors jsonb, attempt integer, attempted_by jsonb,
  inserted_at timestamp, scheduled_at timestamp, schedule_in double precision,
  attempted_at timestamp, completed_at timestamp, discarded_at timestamp, cancelled_at timestamp
)
WHERE {{condition}}
ORDER BY job.position
RETURNING id, inserted_at, scheduled_at
"""
_ANY = """
WITH new AS ({new})
SELECT id, inserted_at, scheduled_at, cast(pg_current_xact_id() AS text) FROM new
"""

_MOMENTS = (
    "inserted_at",
    "scheduled_at",
    "attempted_at",
    "completed_at",
    "discarded_at",
    "cancelled_at",
)
_SELDOM = ("tags", "errors", "attempt", "attempted_by", "schedule_in")
_RARE: Callable[[Job], tuple[Any, ...]] = attrgetter(*_SELDOM, *_MOMENTS)
_COLUMNS = {name: attrgetter(name) for name in ("args", *_SHARED)}


class PostgresInserts:
    """Inserts jobs, for `PostgresEngine`, which has the table."""

    table: Table

    def prepare_inserts(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: of the tables, quoted.

        """
        plain = _PLAIN.format(new=insert_of(schema, plain=True))
        seldom = _ANY.format(new=insert_of(schema, plain=False))
        self._insert_plain, self._insert_any = text(plain), text(seldom)
        self._message_plain = self._message(plain, _times_of_all)
        self._message_any = self._message(seldom, _times_of_each)

    def insert_jobs(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> list[Job]:
        """See `JobEngine`; leaves the transaction's trace for `Repo.transaction`."""
        done: list[Job] = []
        for batch in batches(jobs):
            parameters = insert_parameters(batch, now)
            plain = parameters["rare_each"] == _NONE
            statement = self._insert_plain if plain else self._insert_any
            rows = connection.execute(statement, parameters).all()
            message = self._message_plain if plain else self._message_any
            done += message.read(batch, rows)
            leave(connection, message.trace(rows))
        return done

    def insert_message(self, jobs: Sequence[Job]) -> InsertMessage | None:
        """See `JobEngine`."""
        return self._message_plain if all(map(is_plain, jobs)) else self._message_any

    def _message(
        self, statement: str, times: Callable[[Sequence[Any]], Iterator[RowTimes]]
    ) -> InsertMessage:
        return InsertMessage(
            pyformat(statement),
            write=insert_parameters,
            trace=lambda rows: trace_of_insert(self.table, rows[0][-1], lambda: times(rows)),
            read=lambda jobs, rows: list(inserted(jobs, times(rows))),
        )


def is_plain(job: Job) -> bool:
    """Whether a job has nothing in its rare columns."""
    return not any(_RARE(job))


def insert_of(schema: str, *, plain: bool, condition: str = "true") -> str:
    """Write the statement that inserts jobs, and returns id, inserted_at and scheduled_at.

    Args:
        schema: of the tables, quoted.
        plain: whether none of them has anything in its rare columns.
        condition: under which it does.

    """
    new = _NEW_PLAIN if plain else _NEW
    return new.format(jobs=f"{schema}.oban_jobs", schema=schema, condition=condition)


def insert_parameters(jobs: Sequence[Job], now: datetime | None) -> dict[str, Any]:
    """Give the parameters of `insert_of`."""
    parameters: dict[str, Any] = {
        "args_each": _json(list(map(_COLUMNS["args"], jobs))),
        "now": parameter("postgresql", now),
    }
    for name in _SHARED:
        values = list(map(_COLUMNS[name], jobs))
        first = values[0]
        same = values.count(first) == len(values)
        parameters[f"{name}_each"] = _NONE if same else _json(values)
        parameters[name] = _json(first) if name == "meta" else str(first)
    rare = list(map(_rare, jobs))
    parameters["rare_each"] = _json([each or {} for each in rare]) if any(rare) else _NONE
    return parameters


def row_times(job_id: int, inserted_at: datetime, scheduled_at: datetime) -> RowTimes:
    """Read what a row was given."""
    return job_id, inserted_at.replace(tzinfo=UTC), scheduled_at.replace(tzinfo=UTC)


def _times_of_all(rows: Sequence[Any]) -> Iterator[RowTimes]:
    ((ids, at, _),) = rows
    # Ids are given in the order of the jobs, which is more than is promised of rows.
    given = sorted(map(int, ids.split(","))) if ids else ()
    return (row_times(job_id, at, at) for job_id in given)


def _times_of_each(rows: Sequence[Any]) -> Iterator[RowTimes]:
    return (row_times(*row[:3]) for row in sorted(map(tuple, rows)))


def _rare(job: Job) -> dict[str, Any] | None:
    if is_plain(job):
        return None
    tags, errors, attempt, attempted_by, schedule_in, *moments = _RARE(job)
    seldom = zip(_SELDOM, (tags, errors, attempt, attempted_by, schedule_in), strict=True)
    found = {name: value for name, value in seldom if value}
    for name, moment in zip(_MOMENTS, moments, strict=True):
        if moment is not None:
            found[name] = to_naive(moment).isoformat()
    return found


# Without `dumps`, which makes an encoder for each value.
_json = json.JSONEncoder(ensure_ascii=False).encode
