"""What a job store can do, one file a database."""

from oban_actors.engines.engine import (
    BeatReport,
    ChangedJob,
    JobEngine,
    ProducerBeat,
    TableClaim,
)
from oban_actors.engines.postgres import PostgresEngine
from oban_actors.engines.sqlite import SqliteEngine
from oban_actors.engines.staging import StagedJob, StagedPass
from oban_actors.engines.turn import Fetched, Turn, Unreadable, UnreadableRow
from oban_actors.repo.times import Dialect

__all__ = [
    "BeatReport",
    "ChangedJob",
    "Fetched",
    "JobEngine",
    "PostgresEngine",
    "ProducerBeat",
    "SqliteEngine",
    "StagedJob",
    "StagedPass",
    "TableClaim",
    "Turn",
    "Unreadable",
    "UnreadableRow",
    "make_engine",
]


def make_engine(dialect: Dialect, prefix: str) -> JobEngine:
    """Make the job store for a database.

    Args:
        dialect: the database's kind.
        prefix: the schema of its tables, on PostgreSQL.

    """
    return SqliteEngine() if dialect == "sqlite" else PostgresEngine(prefix)
