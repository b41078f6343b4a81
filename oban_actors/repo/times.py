"""How moments are written: aware UTC in Python, naive UTC in PostgreSQL, text in SQLite."""

from datetime import UTC, datetime
from typing import Literal

Dialect = Literal["postgresql", "sqlite"]

NOW: dict[Dialect, str] = {
    "postgresql": (
        "coalesce(cast(:now as timestamp), cast(clock_timestamp() at time zone 'UTC' as timestamp))"
    ),
    "sqlite": "coalesce(:now, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now'))",
}
"""The database's clock in SQL; a parameter `now` that is not NULL stands in for it."""

READABLE = "'0001-01-01' AND '9999-12-31 23:59:59.999999'"
"""Which of PostgreSQL's timestamps Python has, for a BETWEEN in SQL."""


def parameter(dialect: Dialect, moment: datetime | None) -> datetime | str | None:
    """Make a moment a parameter that a statement of this database can take.

    Args:
        dialect: the database's kind.
        moment: aware, or naive and meant as UTC.

    """
    if moment is None:
        return None
    return to_text(moment) if dialect == "sqlite" else to_naive(moment)


def to_naive(moment: datetime) -> datetime:
    """Give the UTC time without its zone, as `timestamp without time zone` holds it."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def to_text(moment: datetime) -> str:
    """Write a moment as SQLite holds it: ISO 8601, always six digits, always `Z`."""
    return to_naive(moment).isoformat(timespec="microseconds") + "Z"


def to_moment(value: datetime | str) -> datetime:
    """Read a moment of either database, however many digits of a second its writer gave."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
