"""Putting jobs into the table, in a transaction of our own or in the host's."""

from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from oban_actors import telemetry
from oban_actors.config import Config
from oban_actors.engines import JobEngine
from oban_actors.errors import ConfigError
from oban_actors.inline import run_inline
from oban_actors.job import Job, JobState
from oban_actors.notifiers import Publisher
from oban_actors.repo import Repo
from oban_actors.testing_mode import mode_of

DUE_SOON = 1.0
"""Seconds ahead for which the leader is told of a job, where there is no stager here."""


class Inserter:
    """Inserts jobs and notifies whoever has to know, both in one transaction.

    Args:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        publisher: how notifications are written in a transaction.

    """

    def __init__(self, config: Config, repo: Repo, engine: JobEngine, publisher: Publisher) -> None:
        self.config = config
        self.repo = repo
        self.engine = engine
        self.publisher = publisher

    def insert(
        self, jobs: Iterable[Job], session: Session | None, connection: sa.Connection | None
    ) -> list[Job]:
        """Insert them all with one statement; see `Oban.insert_all`."""
        batch = list(jobs)
        for job in batch:
            job.validate()
        if not batch:
            return []
        if mode_of(self.config) == "inline":
            return run_inline(self.config, batch)
        host = self._host_connection(session, connection)
        if host is not None:
            return self._insert(host, batch)
        return self.repo.transaction(lambda own: self._insert(own, batch), idempotent=False)

    def _host_connection(
        self, session: Session | None, connection: sa.Connection | None
    ) -> sa.Connection | None:
        if session is not None and connection is not None:
            raise ConfigError("expected either session or connection, got both")
        if session is not None:
            if not isinstance(session, Session):
                raise _unfit("session", "a SQLAlchemy Session", session)
            connection = session.connection()
        if connection is None:
            return None
        if not isinstance(connection, sa.Connection):
            raise _unfit("connection", "a SQLAlchemy Connection", connection)
        if connection.dialect.name != self.repo.dialect:
            raise _unfit("connection", f"one to {self.repo.dialect}", connection.dialect.name)
        return connection

    def _insert(self, connection: sa.Connection, jobs: Sequence[Job]) -> list[Job]:
        about = {"conf": self.config, "engine": type(self.engine)}
        if len(jobs) == 1:
            name, about["job"] = "oban.engine.insert_job", jobs[0]
        else:
            name, about["changesets"] = "oban.engine.insert_all_jobs", jobs
        with telemetry.span(name, about) as event:
            inserted = self.engine.insert_jobs(connection, jobs, self.repo.now())
            event.set(**({"job": inserted[0]} if len(jobs) == 1 else {"jobs": inserted}))
        self._announce(connection, inserted)
        return inserted

    def _announce(self, connection: sa.Connection, jobs: Sequence[Job]) -> None:
        if not self.config.insert_notify:
            return
        queues = dict.fromkeys(job.queue for job in jobs if job.state == JobState.AVAILABLE)
        if queues:
            self.publisher.publish(connection, "insert", [{"queue": queue} for queue in queues])
        soon = (job.scheduled_at for job in jobs if self._due_soon(job))
        due = min((moment for moment in soon if moment is not None), default=None)
        if due is not None:
            moment = due.astimezone(UTC).isoformat(timespec="microseconds")
            payload = {"name": self.config.name, "due": moment.replace("+00:00", "Z")}
            self.publisher.publish(connection, "actors", [payload])

    def _due_soon(self, job: Job) -> bool:
        # Later ones are found by the leader's passes. Both times are the database's.
        if job.state not in {JobState.SCHEDULED, JobState.RETRYABLE}:
            return False
        if job.scheduled_at is None or job.inserted_at is None:
            return False
        horizon = self.config.stager.interval if self.config.stager else DUE_SOON
        return (job.scheduled_at - job.inserted_at).total_seconds() <= horizon


def _unfit(option: str, expected: str, got: Any) -> ConfigError:
    kind = got if isinstance(got, str) else f"{type(got).__module__}.{type(got).__qualname__}"
    return ConfigError(f"invalid value for '{option}': expected {expected}, got: {kind}")
