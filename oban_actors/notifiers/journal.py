"""The table through which the processes on one SQLite file notify each other."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from sqlalchemy.exc import SQLAlchemyError

from oban_actors.errors import DatabaseError
from oban_actors.notifiers.guard import Guard
from oban_actors.repo import Repo
from oban_actors.repo.sqlstates import translate

KEPT = 60
"""Seconds that a notification stays; who was away for longer is told to look for itself."""

BATCH = 1_000
"""Rows that are read at once."""

_BUSY_MS = 250
_SEQUENCE = "SELECT seq FROM sqlite_sequence WHERE name = 'oban_actors_notifications'"
_READ = (
    "SELECT id, channel, payload FROM oban_actors_notifications WHERE id > ? ORDER BY id LIMIT ?"
)
_OLD = (
    "SELECT id FROM oban_actors_notifications "
    f"WHERE inserted_at < strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-{KEPT} seconds') "
    f"ORDER BY id LIMIT {BATCH}"
)
_SWEEP = f"DELETE FROM oban_actors_notifications WHERE id IN ({_OLD})"
_PRESENT = "SELECT EXISTS (SELECT 1 FROM oban_actors_notifications)"


Left = Literal["none", "young", "old"]
"""Which rows there are after a sweep."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One notification."""

    channel: str
    text: str


@dataclass(frozen=True, slots=True)
class News:
    """What was read.

    Attributes:
        entries: in the order of their commits.
        missed: whether there were others that are gone.
        more: whether there are others to be read.

    """

    entries: list[Entry]
    missed: bool
    more: bool


class Journal:
    """One reader's place in the table, from the moment it is opened.

    SQLite has one writer at a time and gives out ids without gaps, in the order of commits: a
    gap is what others swept away.

    Args:
        repo: of the file; the journal has a connection of its own.

    Raises:
        DatabaseError: the file can't be opened, or has no such table.

    """

    def __init__(self, repo: Repo) -> None:
        repo.open()
        with _translated():
            # A pool of the same kind makes one as the repo's own would, and forgets it.
            pooled = repo.engine.pool.recreate().connect()
            pooled.detach()
            self._connection = cast("sqlite3.Connection", pooled.dbapi_connection)
        self._guard = Guard(self._connection.close)
        try:
            with _translated():
                self._connection.isolation_level = None
                self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
                self.path = str(self._first("SELECT file FROM pragma_database_list"))
                self._version = self._first("PRAGMA data_version")
                self._first(_PRESENT)
                self._seen = self._sequence()
        except DatabaseError:
            self.close()
            raise

    def news(self) -> News | None:
        """Read what came since the last time; None if nobody has written to the file.

        Raises:
            DatabaseError: the file can't be read.

        """
        with _translated(), self._guard.used():
            version = self._first("PRAGMA data_version")
            if version == self._version:
                return None
            news = self._read()
            # Unless all was read, the next look has to read again.
            if not news.more:
                self._version = version
            return news

    def sweep(self) -> Left:
        """Delete what is old, a bounded number of rows.

        Returns:
            what is left: none, some that are young, or perhaps more that are old.

        Raises:
            DatabaseError: another writer was in the way, or the file can't be written.

        """
        with _translated(), self._guard.used():
            # Looking costs no lock; and whoever comes second has nothing to delete.
            if self._first(_OLD) is not None:
                swept = self._connection.execute(_SWEEP).rowcount
                if swept >= BATCH:
                    return "old"
            return "young" if self._first(_PRESENT) else "none"

    def close(self) -> None:
        """Close the connection, from any thread."""
        self._guard.end()

    def _read(self) -> News:
        # The newest id is read first, so that what is written meanwhile can't look like a gap.
        newest = self._sequence()
        if newest == self._seen:
            return News([], missed=False, more=False)
        rows = self._connection.execute(_READ, (self._seen, BATCH)).fetchall()
        newest = int(rows[-1][0]) if rows else newest
        # An id that went back is of another file in this one's place.
        missed = newest != self._seen + len(rows)
        self._seen = newest
        entries = [Entry(channel, text) for _, channel, text in rows]
        return News(entries, missed, more=len(rows) == BATCH)

    def _sequence(self) -> int:
        return int(self._first(_SEQUENCE) or 0)

    def _first(self, sql: str) -> Any:
        row = self._connection.execute(sql).fetchone()
        return None if row is None else row[0]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError) as error:
        raise translate(error) from error
