"""What a job store can do, one file a database."""

from oban_actors.config import Config
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
    "engine_of",
    "make_engine",
]


def make_engine(config: Config, dialect: Dialect) -> JobEngine:
    """Make the job store for a database.

    Args:
        config: its `prefix` is the schema of the tables on PostgreSQL.
        dialect: the database's kind.

    """
    return engine_of(dialect, config.prefix)


def engine_of(dialect: Dialect, prefix: str) -> JobEngine:
    """Make the job store for a database of that kind, and on PostgreSQL that schema."""
    return SqliteEngine() if dialect == "sqlite" else PostgresEngine(prefix)
