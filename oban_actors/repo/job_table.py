"""The jobs table as SQLAlchemy knows it, for statements of ours and of the host's."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import Dialect as SaDialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from oban_actors.job import JobState
from oban_actors.repo.times import Dialect, parameter, to_moment
from oban_actors.validation import OPTIONS


class Moment(TypeDecorator[datetime]):
    """A datetime as the table holds it: aware and in UTC in Python, whatever the column is.

    Args:
        name: the column's, for messages.

    """

    impl = sa.DateTime
    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def load_dialect_impl(self, dialect: SaDialect) -> TypeEngine[Any]:
        """Give the column's type."""
        kind = sa.Text() if dialect.name == "sqlite" else postgresql.TIMESTAMP(timezone=False)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: datetime | None, dialect: SaDialect) -> Any:
        """Write a parameter.

        Raises:
            ConfigError: it is no aware datetime.

        """
        kind: Dialect = "sqlite" if dialect.name == "sqlite" else "postgresql"
        return parameter(kind, self.checked(value))

    def checked(self, value: object) -> datetime | None:
        """Check what a column is compared with, or is to hold.

        Raises:
            ConfigError: it is no aware datetime.

        """
        return None if value is None else OPTIONS.moment(self.name, value)

    def process_result_value(self, value: Any, dialect: SaDialect) -> datetime | None:
        """Read a result."""
        return None if value is None else to_moment(value)


def make_job_table(dialect: Dialect, prefix: str) -> sa.Table:
    """Describe `oban_jobs`, in a `MetaData` of its own, so that a host creates no second one.

    Args:
        dialect: the database's kind.
        prefix: the schema on PostgreSQL; SQLite has none.

    """
    schema = prefix if dialect == "postgresql" else None
    json: TypeEngine[Any] = postgresql.JSONB() if schema else sa.JSON()
    texts: TypeEngine[Any] = postgresql.ARRAY(sa.Text) if schema else sa.JSON()
    state: TypeEngine[Any] = sa.Text()
    if schema:
        names = [each.value for each in JobState]
        state = postgresql.ENUM(*names, name="oban_job_state", schema=schema, create_type=False)
    return sa.Table(
        "oban_jobs",
        sa.MetaData(),
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("state", state, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("args", json, nullable=False),
        sa.Column("errors", postgresql.ARRAY(json) if schema else json, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("inserted_at", Moment("inserted_at"), nullable=False),
        sa.Column("scheduled_at", Moment("scheduled_at"), nullable=False),
        sa.Column("attempted_at", Moment("attempted_at")),
        sa.Column("completed_at", Moment("completed_at")),
        sa.Column("attempted_by", texts),
        sa.Column("discarded_at", Moment("discarded_at")),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("tags", texts),
        sa.Column("meta", json),
        sa.Column("cancelled_at", Moment("cancelled_at")),
        schema=schema,
    )
