"""Completing a job in its worker's own transaction."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from oban_actors.claim import Claimant
from oban_actors.engines import JobEngine, make_engine
from oban_actors.host_connections import adopt, is_async, run_on
from oban_actors.job import Job
from oban_actors.repo.times import Dialect


class Completion:
    """Finishes jobs where their workers' data is written, so that both are one commit.

    Args:
        dialect: which kind of database the jobs are in.
        prefix: the schema of their tables, on PostgreSQL.
        engine: the job store.
        now: gives the time of a virtual clock, None where the database's own decides.

    """

    def __init__(
        self,
        dialect: Dialect,
        prefix: str,
        engine: JobEngine,
        now: Callable[[], datetime | None],
    ) -> None:
        self._dialect = dialect
        self._prefix = prefix
        self._engine = engine
        self._now = now

    @classmethod
    def elsewhere(cls, about: Mapping[str, Any]) -> Self:
        """Make one in another process, of what `about` gave in this one."""
        dialect, prefix, now = about["dialect"], about["prefix"], about["now"]
        return cls(dialect, prefix, _engine(dialect, prefix), lambda: now)

    def about(self) -> dict[str, Any]:
        """Give what another process needs to know to finish jobs, as plain data.

        A virtual clock stands still there.
        """
        return {"dialect": self._dialect, "prefix": self._prefix, "now": self._now()}

    def complete(self, job: Job, host: Any) -> bool | Awaitable[bool]:
        """Complete a running job in a host's transaction.

        Args:
            job: the one that runs.
            host: the host's session or connection, in a transaction; any that `insert` takes.

        Returns:
            False where the row is no longer this run's; to be awaited where the host's has to be.

        Raises:
            ConfigError: the session or connection is of no known kind.
            UnfitTransaction: it is in no transaction.

        """
        node, uuid = job.attempted_by
        claimant, now = Claimant(node, uuid), self._now()
        job_id, fence = job.id, job.attempted_at

        def work(connection: sa.Connection) -> bool:
            if job_id is None or fence is None:
                return False
            return self._engine.complete_job(connection, claimant, job_id, fence, now)

        if is_async(host):
            return run_on(host, "session", self._dialect, work)
        return work(adopt(host, "session", self._dialect))


# Its statements are built once for all jobs of a process.
_engine = functools.cache(make_engine)
