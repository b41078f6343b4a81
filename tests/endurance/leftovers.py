"""What a process has: threads, open files and objects; and what a server has of it."""

import gc
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from oban_actors.repo.message import message_of
from tests.support.waiting import wait_until

COUNTED = ("oban_actors.", "pykka.", "psycopg.", "sqlalchemy.engine.", "sqlalchemy.pool.")
"""Modules whose objects are counted, with those below them."""

LASTING = frozenset({"sqlalchemy.engine.cursor.CursorResultMetaData", "psycopg._queries.QueryPart"})
"""What SQLAlchemy and psycopg keep of statements in caches of bounded size."""


@dataclass(frozen=True)
class Holdings:
    """What this process has at a moment.

    Attributes:
        threads: by name.
        files: by what they are; sockets and pipes without their numbers.
        objects: by class, of `COUNTED` modules.

    """

    threads: Counter[str]
    files: Counter[str]
    objects: Counter[str]

    def beyond(self, before: "Holdings") -> dict[str, Counter[str]]:
        """What it has more than at an earlier moment, by kind; empty: nothing."""
        more = {
            "threads": self.threads - before.threads,
            "files": self.files - before.files,
            "objects": self.objects - before.objects,
        }
        return {kind: counts for kind, counts in more.items() if counts}


def holdings() -> Holdings:
    """Look at this process, after its garbage was collected."""
    # A text is made where it is sent first, which may be in any cycle, and is kept for all.
    message_of.cache_clear()
    gc.collect()
    return Holdings(
        Counter(thread.name for thread in threading.enumerate()), _files(), Counter(_classes())
    )


def nothing_beyond(before: Holdings, timeout: float = 30.0) -> None:
    """Wait until this process has nothing that it had not before.

    Raises:
        AssertionError: something is left; the message counts it.

    """
    left: dict[str, Counter[str]] = {}

    def settled() -> bool:
        left.clear()
        left.update(holdings().beyond(before))
        return not left

    try:
        wait_until(settled, timeout)
    except AssertionError:
        raise AssertionError(f"left behind: {left}") from None


@contextmanager
def logged_as_text() -> Iterator[None]:
    """Keep log records from pytest, which holds on to them, and to the frames of their errors."""
    logger, handler = logging.getLogger("oban_actors"), logging.StreamHandler()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def sessions(conninfo: str) -> int:
    """How many other sessions there are in the database of this address."""
    return _count(
        conninfo,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )


def locks(conninfo: str) -> int:
    """How many advisory locks are held in the database of this address."""
    return _count(
        conninfo,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())",
    )


def _count(conninfo: str, statement: str) -> int:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row: tuple[Any, ...] | None = connection.execute(statement).fetchone()
        assert row is not None
        return int(row[0])


def _files() -> Counter[str]:
    found: Counter[str] = Counter()
    for number in Path("/proc/self/fd").iterdir():
        try:
            target = str(number.readlink())
        except FileNotFoundError:
            continue  # The one that listed them.
        found[target.partition(":[")[0]] += 1
    return found


def _classes() -> list[str]:
    names = (f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return [name for name in names if name.startswith(COUNTED) and name not in LASTING]
