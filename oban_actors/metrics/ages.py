"""How old the oldest available job of each queue is: asked rarely, and never waited for long."""

import logging
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from oban_actors.actors.clock import real_monotonic
from oban_actors.errors import ObanError
from oban_actors.oban import Oban
from oban_actors.repo import Repo

logger = logging.getLogger("oban_actors")

EVERY = 10.0
"""Seconds between two looks at most."""

PATIENCE = 1.0
"""Seconds that who asks waits for a look; it is given what was seen before, if that isn't old."""

FORGET = 60.0
"""Seconds after which what was seen is worth nothing."""

STATEMENT_TIME = 5.0
MOST_STEPS = 300
"""Steps through the index, one for each queue and priority with available jobs."""

_STEP = """
SELECT queue, priority, {age} FROM {jobs}
WHERE state = 'available'{further}
ORDER BY queue, priority, scheduled_at, id LIMIT 1
"""
_FURTHER = " AND (queue, priority) > (:queue, :priority)"
_AGES = {
    # What was due at no time at all is as old as nothing.
    "postgresql": (
        "CASE WHEN isfinite(scheduled_at) "
        "THEN cast(extract(epoch FROM {now} - scheduled_at) AS double precision) END"
    ),
    "sqlite": "(julianday({now}) - julianday(scheduled_at)) * 86400.0",
}


class Ages:
    """Keeps what was seen of each instance's queues."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: weakref.WeakKeyDictionary[Oban, _Seen] = weakref.WeakKeyDictionary()

    def read(self, oban: Oban) -> Mapping[str, float]:
        """Give the age in seconds by queue; 0 for a queue of this node's in which none waits."""
        with self._lock:
            seen = self._seen.setdefault(oban, _Seen())
        ages = seen.read(oban)
        return {} if ages is None else dict.fromkeys(oban.config.queues, 0.0) | ages


class _Seen:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: float | None = None
        self._ages: dict[str, float] = {}
        self._looking: threading.Thread | None = None
        self._tried = -EVERY

    def read(self, oban: Oban) -> dict[str, float] | None:
        with self._lock:
            now = real_monotonic()
            if self._looking is None and now - self._tried >= EVERY:
                self._tried = now
                # Apart, since the pool may make it wait for as long as a statement may take.
                thread = threading.Thread(
                    target=self._look, args=(oban,), name="oban-queue-ages", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    logger.debug("the ages of the queues are not known: %s", error)
                else:
                    self._looking = thread
            looking = self._looking
        if looking is not None:
            looking.join(PATIENCE)
        with self._lock:
            past = None if self._at is None else real_monotonic() - self._at
            if past is None or past > FORGET:
                return None
            return {queue: age + past for queue, age in self._ages.items()}

    def _look(self, oban: Oban) -> None:
        repo = oban.repo
        try:
            ages = repo.transaction(
                lambda connection: find_ages(connection, repo),
                read_only=True,
                lenient=True,
                attempts=1,
                statement_timeout=STATEMENT_TIME,
            )
        except ObanError as error:
            logger.debug("the ages of the queues are not known: %s", error)
        else:
            with self._lock:
                self._ages, self._at = ages, real_monotonic()
        finally:
            with self._lock:
                self._looking = None
            if not oban.alive:
                # It ended meanwhile, and nobody closes for it what this has opened.
                repo.close()


def find_ages(connection: Connection, repo: Repo) -> dict[str, float]:
    """Find the oldest available job of each queue, from one to the next through the index.

    Where there are too many, those of this node's options are among them all the same.

    Args:
        connection: in a transaction.
        repo: whose tables.

    """
    jobs = "oban_jobs"
    if repo.dialect == "postgresql":
        schema = connection.dialect.identifier_preparer.quote(repo.config.prefix)
        jobs = f"{schema}.oban_jobs"
    age = _AGES[repo.dialect].format(now=repo.sql_now)
    first = text(_STEP.format(age=age, jobs=jobs, further=""))
    next_ = text(_STEP.format(age=age, jobs=jobs, further=_FURTHER))
    ages: dict[str, float] = {}
    values: dict[str, Any] = {"now": repo.now_parameter()}
    row = connection.execute(first, values).one_or_none()

    def further(queue: str, priority: int) -> Any:
        place = values | {"queue": queue, "priority": priority}
        return connection.execute(next_, place).one_or_none()

    def note(row: Any) -> Any:
        queue, priority, seconds = row
        # Columns of SQLite hold any type, and what is no text is no queue.
        if isinstance(queue, str):
            ages[queue] = max(ages.get(queue, 0.0), seconds or 0.0)
        return further(queue, priority)

    for _ in range(MOST_STEPS):
        if row is None:
            return ages
        row = note(row)
    for own in [queue for queue in repo.config.queues if row is not None and queue not in ages]:
        found = further(own, -1)
        while found is not None and found[0] == own:
            found = note(found)
    return ages
