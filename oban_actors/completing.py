"""Completing a job in its worker's own transaction."""

from collections.abc import Awaitable
from typing import Any

import sqlalchemy as sa

from oban_actors.claim import Claimant
from oban_actors.config import Config
from oban_actors.engines import JobEngine
from oban_actors.host_connections import adopt, is_async, run_on
from oban_actors.job import Job
from oban_actors.repo import Repo


class Completion:
    """Finishes jobs where their workers' data is written, so that both are one commit.

    Args:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.

    """

    def __init__(self, config: Config, repo: Repo, engine: JobEngine) -> None:
        self.config = config
        self.repo = repo
        self.engine = engine

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
        claimant, now = Claimant(node, uuid), self.repo.now()
        job_id, fence = job.id, job.attempted_at

        def work(connection: sa.Connection) -> bool:
            if job_id is None or fence is None:
                return False
            return self.engine.complete_job(connection, claimant, job_id, fence, now)

        if is_async(host):
            return run_on(host, "session", self.repo.dialect, work)
        return work(adopt(host, "session", self.repo.dialect))
