"""The job store on PostgreSQL, in Elixir Oban's own tables."""

from datetime import datetime

from sqlalchemy import Connection, Text, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.elements import TextClause

from oban_actors.engines.postgres_beats import PostgresBeats
from oban_actors.engines.postgres_control import PostgresControl
from oban_actors.engines.postgres_cron import PostgresCron
from oban_actors.engines.postgres_insert import PostgresInserts
from oban_actors.engines.postgres_insert_unique import PostgresUniqueInserts
from oban_actors.engines.postgres_prune import PostgresPrune
from oban_actors.engines.postgres_rescue import PostgresRescue
from oban_actors.engines.postgres_staging import PostgresStaging
from oban_actors.engines.postgres_turns import PostgresTurns
from oban_actors.job import Job
from oban_actors.job_row import MOMENTS, UNREADABLE
from oban_actors.repo.times import NOW, READABLE, parameter, to_moment

_NOW = NOW["postgresql"]

# The driver would fail at a time that Python has not, and name no row.
_TIMES = ", ".join(
    f"CASE WHEN {name} BETWEEN {READABLE} THEN {name} END AS {name}" for name in MOMENTS
)
_UNREADABLE = " ".join(f"WHEN {name} NOT BETWEEN {READABLE} THEN '{name}'" for name in MOMENTS)

_GET = f"""
SELECT id, state, queue, worker, args, errors, attempt, max_attempts, attempted_by, priority, tags,
  meta, {_TIMES}, CASE {_UNREADABLE} END AS {UNREADABLE}
FROM {{jobs}} WHERE id = :id
"""


class PostgresEngine(
    PostgresStaging,
    PostgresTurns,
    PostgresBeats,
    PostgresControl,
    PostgresInserts,
    PostgresUniqueInserts,
    PostgresCron,
    PostgresPrune,
    PostgresRescue,
):
    """Jobs in a schema of a PostgreSQL database.

    Args:
        prefix: the schema's name.

    """

    def __init__(self, prefix: str) -> None:
        quoted = postgresql.dialect().identifier_preparer.quote_identifier(prefix)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped

        def prepared(statement: str) -> TextClause:
            return text(statement.format(jobs=f"{quoted}.oban_jobs", schema=quoted))

        self.prepare_staging(quoted)
        self.prepare_turns(quoted)
        self.prepare_beats(quoted)
        self.prepare_control(prefix)
        self.prepare_inserts(quoted)
        self.prepare_uniques(quoted)
        self.prepare_cron(quoted)
        self.prepare_prune(quoted)
        self.prepare_rescue(quoted)
        self._get = prepared(_GET).columns(
            args=JSONB,
            meta=JSONB,
            errors=ARRAY(JSONB),
            tags=ARRAY(Text),
            attempted_by=ARRAY(Text),
        )

    def get_job(self, connection: Connection, job_id: int) -> Job | None:
        """See `JobEngine`."""
        row = connection.execute(self._get, {"id": job_id}).mappings().one_or_none()
        return None if row is None else Job.from_row(dict(row))

    def database_now(self, connection: Connection, now: datetime | None) -> datetime:
        """See `JobEngine`."""
        clock = text(f"SELECT {_NOW}")
        return to_moment(
            connection.execute(clock, {"now": parameter("postgresql", now)}).scalar_one()
        )
