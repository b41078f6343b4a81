"""Looking for jobs that wait to be run."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NoReturn, Unpack

import sqlalchemy as sa

from oban_actors.actors.clock import real_monotonic
from oban_actors.job import Job
from oban_actors.job_secrets import plain, shown_args
from oban_actors.oban import Oban
from oban_actors.testing.matching import WAITING, Fields, Pattern
from oban_actors.validation import OPTIONS

POLL = 0.01
"""Seconds between two looks."""

MOST_SHOWN = 20
"""Jobs that a message shows at most."""

_WAITING = f"""
SELECT * FROM {{jobs}} WHERE state IN ({", ".join(map(repr, map(str, WAITING)))}) ORDER BY id DESC
"""


def all_enqueued(oban: Oban, **fields: Unpack[Fields]) -> list[Job]:
    """List the jobs that wait, the newest first. Mirrors `Oban.Testing.all_enqueued/1`.

    Waiting are those that are available, scheduled or suspended.

    Args:
        oban: the instance.
        **fields: which ones, see `Pattern`; by default all.

    Raises:
        ConfigError: a field is unknown or can't be compared; it is named.
        InvalidJob: a row holds what no job can hold.
        DatabaseError: the database failed.

    """
    return _Search(oban, Pattern(fields)).look()


def assert_enqueued(
    oban: Oban, *, timeout: float | timedelta | None = None, **fields: Unpack[Fields]
) -> Job:
    """Fail unless such a job waits. Mirrors `Oban.Testing.assert_enqueued/2`.

    Args:
        oban: the instance.
        timeout: seconds within which it may come, default None: it must be there already.
        **fields: what is asked for of it, see `Pattern`.

    Returns:
        the newest such job.

    Raises:
        AssertionError: there is none; the message shows what waits instead.
        ConfigError: a field is unknown or can't be compared; it is named.
        DatabaseError: the database failed.

    """
    __tracebackhide__ = True
    search = _Search(oban, Pattern(fields))
    found = search.wait(timeout)
    if not found:
        search.fail("a job to be enqueued", timeout, search.waiting)
    return found[0]


def refute_enqueued(
    oban: Oban, *, timeout: float | timedelta | None = None, **fields: Unpack[Fields]
) -> None:
    """Fail if such a job waits. Mirrors `Oban.Testing.refute_enqueued/2`.

    Args:
        oban: the instance.
        timeout: seconds within which none may come either, default None: one look.
        **fields: what is asked for of it, see `Pattern`; by default any job.

    Raises:
        AssertionError: there is one; the message shows it.
        ConfigError: a field is unknown or can't be compared; it is named.
        DatabaseError: the database failed.

    """
    __tracebackhide__ = True
    search = _Search(oban, Pattern(fields))
    found = search.wait(timeout)
    if found:
        search.fail("no job to be enqueued", timeout, found)


class _Search:
    """Looks for jobs of a pattern, and keeps what it saw last."""

    def __init__(self, oban: Oban, pattern: Pattern) -> None:
        self.oban = oban
        self.pattern = pattern
        self.waiting: list[Job] = []

    def look(self) -> list[Job]:
        """Find those that are there."""
        found = self.oban.repo.transaction(self._read, read_only=True, lenient=True)
        now, self.waiting = found
        return [job for job in self.waiting if self.pattern.matches(plain(job), now)]

    def wait(self, timeout: float | timedelta | None) -> list[Job]:
        """Look until there are some, or the time is over."""
        seconds = 0.0 if timeout is None else OPTIONS.seconds("timeout", timeout, zero=True)
        until, pause = real_monotonic() + seconds, threading.Event()
        while not (found := self.look()) and real_monotonic() < until:
            pause.wait(POLL)
        return found

    def fail(self, what: str, timeout: object, jobs: Sequence[Job]) -> NoReturn:
        """Fail with a message that shows jobs."""
        __tracebackhide__ = True
        asked = str(self.pattern)
        lines = [f"expected {what}" + (f" with {asked}" if asked else "")]
        if timeout is not None:
            lines[0] += f", within {timeout} s"
        lines.append("there were:" if jobs else "there was none at all")
        lines += [f"    {_shown(job)}" for job in jobs[:MOST_SHOWN]]
        if len(jobs) > MOST_SHOWN:
            lines.append(f"    and {len(jobs) - MOST_SHOWN} more")
        raise AssertionError("\n".join(lines))

    def _read(self, connection: sa.Connection) -> tuple[datetime, list[Job]]:
        repo = self.oban.repo
        jobs = "oban_jobs"
        if repo.dialect == "postgresql":
            schema = connection.dialect.identifier_preparer.quote(repo.config.prefix)
            jobs = f"{schema}.oban_jobs"
        now = self.oban._engine.database_now(connection, repo.now())  # noqa: SLF001 (part of it)
        rows = connection.execute(sa.text(_WAITING.format(jobs=jobs))).mappings()
        return now, [Job.from_row(dict(row)) for row in rows]


def _shown(job: Job) -> str:
    parts = [f"worker={job.worker!r}", f"queue={job.queue!r}", f"args={shown_args(job)!r}"]
    parts += [f"{name}={value!r}" for name in ("meta", "tags") if (value := getattr(job, name))]
    if job.priority:
        parts.append(f"priority={job.priority}")
    due = "" if job.scheduled_at is None else f", scheduled_at={job.scheduled_at.isoformat()}"
    return f"job {job.id}, {job.state}: {', '.join(parts)}{due}"
