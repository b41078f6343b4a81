"""Completing a job in its worker's own transaction."""

from typing import Any

from sqlalchemy.orm import Session

from oban_actors.claim import Claimant
from oban_actors.config import Config
from oban_actors.engines import JobEngine
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

    def complete(self, job: Job, host: Any) -> bool:
        """Complete a running job in a host's transaction.

        Args:
            job: the one that runs.
            host: the host's session or connection, in a transaction.

        Returns:
            False where the row is no longer this run's.

        """
        node, uuid = job.attempted_by
        claimant, now = Claimant(node, uuid), self.repo.now()
        job_id, fence = job.id, job.attempted_at
        if job_id is None or fence is None:
            return False
        connection = host.connection() if isinstance(host, Session) else host
        return self.engine.complete_job(connection, claimant, job_id, fence, now)
