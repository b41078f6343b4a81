"""How the queues stand, from the tables alone: jobs by state, the oldest, who runs them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from oban_actors.job import JobState
from oban_actors.oban import Oban
from oban_actors.repo import schema
from oban_actors.repo.times import to_moment

LIVES = 60.0
"""Seconds without a beat after which a producer is taken for dead, as the Lifeline does."""

# Everything is read once, in whichever way is the quickest.
_FREE = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = on"
)
_COUNTS = (
    "SELECT queue, cast(state AS text), count(*), min(scheduled_at) FROM {jobs} "
    "WHERE queue IS NOT NULL GROUP BY queue, state"
)
_PRODUCERS = (
    "SELECT queue, name, node, uuid, queue_limit, paused, running, started_at, beat_at "
    "FROM {producers} ORDER BY queue, name, node, uuid"
)


@dataclass(slots=True)
class QueueReport:
    """One queue.

    Attributes:
        states: how many jobs are in each state.
        oldest: seconds for which the oldest available job has waited, None without one.
        producers: those that run it, or did when they last said so.

    """

    states: dict[str, int] = field(default_factory=lambda: {state.value: 0 for state in JobState})
    oldest: float | None = None
    producers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def living(self) -> int:
        """How many producers live."""
        return sum(each["living"] for each in self.producers)


def look(oban: Oban) -> dict[str, QueueReport]:
    """Read how all queues stand, by name, in one transaction."""
    names = _names(oban)

    def read(connection: sa.Connection) -> dict[str, QueueReport]:
        if oban.repo.dialect == "postgresql":
            connection.exec_driver_sql(_FREE, execution_options={"no_parameters": True})
        clock = sa.text(f"SELECT {oban.repo.sql_now}")
        now = to_moment(connection.execute(clock, {"now": oban.repo.now_parameter()}).scalar_one())
        reports: dict[str, QueueReport] = {}
        for queue, state, count, earliest in connection.execute(sa.text(_COUNTS.format(**names))):
            # Columns of SQLite hold any type, and what is no text is no queue.
            if not isinstance(queue, str):
                continue
            report = reports.setdefault(queue, QueueReport())
            report.states[state] = count
            if state == JobState.AVAILABLE:
                report.oldest = _age(earliest, now)
        if schema.inspect(connection, oban.config.prefix).producers:
            for row in connection.execute(sa.text(_PRODUCERS.format(**names))).mappings():
                if not isinstance(row["queue"], str):
                    continue
                report = reports.setdefault(row["queue"], QueueReport())
                report.producers.append(_producer(row, now))
        return dict(sorted(reports.items()))

    return oban.repo.transaction(read, read_only=True, lenient=True)


def _names(oban: Oban) -> dict[str, str]:
    if oban.repo.dialect == "sqlite":
        return {"jobs": "oban_jobs", "producers": "oban_actors_producers"}
    quote = postgresql.dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    where = quote(oban.config.prefix)
    return {"jobs": f"{where}.oban_jobs", "producers": f"{where}.oban_actors_producers"}


def _producer(row: Mapping[Any, Any], now: datetime) -> dict[str, Any]:
    age = _age(row["beat_at"], now)
    return {
        "name": row["name"],
        "node": row["node"],
        "uuid": row["uuid"],
        "limit": row["queue_limit"],
        "paused": bool(row["paused"]),
        "running": row["running"],
        "beat_seconds": age,
        "living": age is not None and age < LIVES,
    }


def _age(moment: datetime | str | None, now: datetime) -> float | None:
    try:
        return None if moment is None else round((now - to_moment(moment)).total_seconds(), 3)
    except (ValueError, OverflowError):
        # Others may have written what nobody can read.
        return None
