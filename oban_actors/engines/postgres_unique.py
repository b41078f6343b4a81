"""Finding the jobs that are the same as unique ones, on PostgreSQL."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Table, TextClause, text

from oban_actors.engines.postgres_look import document_of, key_names, look, parameters_of
from oban_actors.engines.postgres_traces import trace_of_change
from oban_actors.engines.shapes import by_shape
from oban_actors.errors import LockTimeout, UnfitTransaction
from oban_actors.job import Job
from oban_actors.repo.commits import leave_beside
from oban_actors.repo.sqlstates import LOCK_NOT_AVAILABLE, sqlstate
from oban_actors.repo.times import NOW, parameter, to_naive

BUCKETS = 2048
"""Locks that all unique jobs of a schema share, so that no transaction can use up the server's."""

OTHERS = "another transaction inserts the same unique job, or many,"
"""Who is in the way of a unique insert."""

_TOO_STRICT = ("repeatable read", "serializable")

# In order, so that two batches never wait for each other.
LOCK_SOME = f"""
SELECT pg_advisory_xact_lock(hashtext(:space), bucket) FROM unnest(ARRAY(
  SELECT DISTINCT cast(hashtextextended(key, 1) & {BUCKETS - 1} AS integer) AS bucket
  FROM json_array_elements_text(cast(:keys AS json)) AS key ORDER BY bucket
)) AS bucket
"""
_LOCK_SOME = text(LOCK_SOME)
_LOCK_ALL = text(f"""
SELECT pg_advisory_xact_lock(hashtext(:space), bucket)
FROM generate_series(0, {BUCKETS - 1}) AS bucket
""")
_SETTINGS = text("""
SELECT current_setting('transaction_isolation'), current_setting('lock_timeout'),
  set_config('lock_timeout', CASE
    WHEN current_setting('lock_timeout') = '0' THEN cast(:timeout AS text)
    ELSE current_setting('lock_timeout') END, true)
""")
_RESET = text("SELECT set_config('lock_timeout', cast(:timeout AS text), true)")

_BITMAPS_ON = text(
    "SELECT current_setting('enable_bitmapscan'), set_config('enable_bitmapscan', 'on', true)"
)
_BITMAPS = text("SELECT set_config('enable_bitmapscan', cast(:before AS text), true)")

_REPLACE = """
UPDATE {jobs} SET {values} WHERE id = :id RETURNING cast(pg_current_xact_id() AS text)
"""
_DUE = (
    "coalesce(cast(:scheduled_at AS timestamp), "
    f"{NOW['postgresql']} + make_interval(secs => cast(:schedule_in AS double precision)))"
)
_VALUES = {
    "args": "args = cast(:args AS jsonb)",
    # One that waits and has none left would wait for ever.
    "max_attempts": (
        "max_attempts = greatest(cast(:max_attempts AS integer), attempt + CASE WHEN cast(state "
        "AS text) IN ('available', 'scheduled', 'retryable', 'suspended') THEN 1 ELSE 0 END)"
    ),
    "meta": "meta = cast(:meta AS jsonb)",
    "priority": "priority = cast(:priority AS integer)",
    "queue": "queue = cast(:queue AS text)",
    "scheduled_at": (
        f"scheduled_at = {_DUE}, state = CASE WHEN cast(state AS text) = 'available' "
        f"AND {_DUE} > {NOW['postgresql']} THEN 'scheduled' ELSE state END"
    ),
    "tags": "tags = array(SELECT json_array_elements_text(cast(:tags AS json)))",
    "worker": "worker = cast(:worker AS text)",
}
_READ = """
SELECT cast(to_jsonb(job) AS text) FROM {jobs} AS job
WHERE id = ANY (ARRAY(SELECT cast(value AS bigint)
  FROM json_array_elements_text(cast(:ids AS json)) AS value))
"""


class PostgresUniques:
    """Looks for jobs that are the same, for `PostgresEngine`, which has the table."""

    table: Table

    def prepare_uniques(self, schema: str) -> None:
        """Build the statements once.

        Args:
            schema: of the tables, quoted.

        """
        self._unique_schema = schema
        self._unique_jobs = f"{schema}.oban_jobs"
        self._read = text(_READ.format(jobs=self._unique_jobs))
        self._read_locked = text(_READ.format(jobs=self._unique_jobs) + "ORDER BY id FOR UPDATE")

    def lock_unique(
        self,
        connection: Connection,
        keys: Sequence[str],
        host_timeout: float | None,
        *,
        more: bool,
    ) -> None:
        """See `JobEngine`."""
        before = None
        if host_timeout is not None:
            before = _check_host(connection, host_timeout)
        with waiting(OTHERS):
            if more:
                connection.execute(_LOCK_ALL, {"space": _space(self._unique_schema)}).all()
            else:
                connection.execute(_LOCK_SOME, lock_parameters(self._unique_schema, keys)).all()
        if before is not None:
            connection.execute(_RESET, {"timeout": before}).all()

    def find_same(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> dict[int, int]:
        """See `JobEngine`."""
        found: dict[int, int] = {}
        for shape, members in by_shape(jobs):
            values = parameters_of(shape, members)
            if shape.unique.period is not None:
                values["now"] = parameter("postgresql", now)
            if document_of(shape):
                values |= key_names(shape)
            statement = look(self._unique_schema, shape.timeless)
            with _bitmaps(connection) if document_of(shape) else nullcontext():
                rows = connection.execute(statement, values).all()
            found.update((place, job_id) for place, job_id in rows if job_id is not None)
        return found

    def read_jobs(
        self, connection: Connection, ids: Sequence[int], *, lock: bool
    ) -> dict[int, Job]:
        """See `JobEngine`."""
        statement = self._read_locked if lock else self._read
        with waiting("another transaction has locked a job that is to be replaced"):
            rows = connection.execute(statement, {"ids": json.dumps(list(ids))}).all()
        jobs = (Job.from_row(_decoded(json.loads(row[0]))) for row in rows)
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
        values = {
            "id": job_id,
            "args": json.dumps(job.args),
            "max_attempts": job.max_attempts,
            "meta": json.dumps(job.meta),
            "priority": job.priority,
            "queue": job.queue,
            "scheduled_at": None if job.scheduled_at is None else to_naive(job.scheduled_at),
            "schedule_in": job.schedule_in,
            "tags": json.dumps(job.tags),
            "worker": job.worker,
            "now": parameter("postgresql", now),
        }
        statement = _replacing(self._unique_jobs, tuple(fields))
        used = statement.compile().params
        for row in connection.execute(statement, {name: values[name] for name in used}):
            # The trace of what was inserted beside it says more.
            leave_beside(connection, trace_of_change(self.table, row[0], [job_id]))


def lock_parameters(schema: str, keys: Sequence[str]) -> dict[str, Any]:
    """Give the parameters of `LOCK_SOME`, with the keys in any order."""
    return {"space": _space(schema), "keys": json.dumps(keys)}


def _space(schema: str) -> str:
    return f"oban_actors unique {schema}"


@contextmanager
def waiting(who: str) -> Iterator[None]:
    """Say who was in the way, and that it is not to be tried again, where a lock took too long."""
    try:
        yield
    except Exception as error:
        # On a host's own connection it is the driver's.
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        said = f"{who} and did not end in time"
        raise LockTimeout(said, sqlstate=LOCK_NOT_AVAILABLE) from error


@contextmanager
def _bitmaps(connection: Connection) -> Iterator[None]:
    # An index on JSON is read no other way, and our own transactions have it off.
    before, _ = connection.execute(_BITMAPS_ON).one()
    yield
    if before != "on":
        connection.execute(_BITMAPS, {"before": before}).all()


def _check_host(connection: Connection, timeout: float) -> str:
    """Bound the wait for locks, unless the host has; give what it was before.

    Raises:
        UnfitTransaction: it would not see what others have inserted.

    """
    milliseconds = str(max(1, round(timeout * 1000)))
    isolation, before, _ = connection.execute(_SETTINGS, {"timeout": milliseconds}).one()
    if isolation in _TOO_STRICT:
        raise UnfitTransaction(
            f"a unique job can't be inserted in a transaction that is {isolation}, since it "
            "doesn't see what others insert meanwhile: use read committed"
        )
    return str(before)


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    for name, value in row.items():
        if name.endswith("_at") and value is not None:
            row[name] = datetime.fromisoformat(value).replace(tzinfo=UTC)
    return row


@lru_cache(maxsize=256)
def _replacing(jobs: str, fields: tuple[str, ...]) -> TextClause:
    values = ", ".join(_VALUES[name] for name in fields)
    return text(_REPLACE.format(jobs=jobs, values=values))
