"""Looking at jobs and changing them, in transactions of our own or in the host's."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from oban_actors import telemetry
from oban_actors.announcing import Announcer
from oban_actors.config import Config
from oban_actors.engines import ChangedJob, JobEngine
from oban_actors.engines.control import CANCELLABLE, DELETABLE, RETRYABLE
from oban_actors.errors import ConfigError, InvalidJob, JobLocked, JobNotFound
from oban_actors.filters import Chosen, Query, choose
from oban_actors.host_connections import adopt, refuse_both
from oban_actors.job import Job, JobState
from oban_actors.job_changes import Changes, check_changes
from oban_actors.job_secrets import outgoing_changes
from oban_actors.notifiers import Publisher
from oban_actors.repo import Repo
from oban_actors.repo.commits import UNWRITTEN, leave
from oban_actors.validation import OPTIONS

logger = logging.getLogger("oban_actors")

T = TypeVar("T")
Action = Literal["cancel", "retry", "delete"]

BATCH = 1_000
"""Jobs that one transaction changes at most."""

_STATES = {"cancel": CANCELLABLE, "retry": RETRYABLE, "delete": DELETABLE}
_DONE = {"cancel": "cancelled", "retry": "retried", "delete": "deleted"}

# Which jobs, is for once the host's choice and may be anything: let the planner combine indexes,
# and sort; still it never reads the whole table for want of knowledge.
BROAD = "SET LOCAL enable_bitmapscan = on; SET LOCAL enable_sort = on"


class Controller:
    """Cancels, retries, deletes, updates and reads jobs, and tells whoever has to know.

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
        self.announcer = Announcer(config, publisher)

    # Reading

    def get(self, wanted: int, host: sa.Connection | None) -> Job | None:
        """Read a job; see `Oban.get_job`."""
        found = job_id(wanted)
        if host is not None:
            return self.engine.get_job(host, found)
        return self.repo.transaction(
            lambda own: self.engine.get_job(own, found), read_only=True, lenient=True
        )

    def all(
        self,
        query: Query | None,
        filters: Mapping[str, Any],
        host: sa.Connection | None,
        *,
        skip_unreadable: bool,
    ) -> list[Job]:
        """Read jobs; see `Oban.all_jobs`."""
        chosen = self.choose(query, filters)
        rows = self._look(host, lambda connection: self.engine.all_jobs(connection, chosen))
        return list(_readable(rows, skip_unreadable=skip_unreadable))

    def choose(self, query: Query | None, filters: Mapping[str, Any]) -> Chosen:
        """Read what a host asked for."""
        return choose(self.engine.table, self.repo.dialect, query, filters)

    # One job

    def change(self, action: Action, job: Job | int, host: sa.Connection | None) -> bool:
        """Cancel, retry or delete a job, waiting for it if need be; whether it was changed."""
        ids = [job_id(job)]
        about = {"conf": self.config, "engine": type(self.engine), "job": job}
        with telemetry.span(_ONE[action], about) as event:
            try:
                changed = self._batch(action, ids, (), host, wait=True)
            except JobLocked as error:
                raise JobLocked(_locked(ids, 0, action), ids=(ids[0],)) from error
            event.set(changed=bool(changed))
        return bool(changed)

    def update(self, job: Job | int, changes: Changes, host: sa.Connection | None) -> Job:
        """Change fields of a job; see `Oban.update_job`."""
        about = {"conf": self.config, "engine": type(self.engine), "job": job}
        with telemetry.span("oban.engine.update_job", about) as event:
            work = partial(self._update, job_id(job), changes)
            if host is not None:
                updated = work(host)
            else:
                updated = self.repo.transaction(
                    partial(work, alone=True), idempotent=False, lenient=True
                )
            event.set(job=updated)
        return updated

    def _update(
        self, wanted: int, changes: Changes, connection: sa.Connection, *, alone: bool = False
    ) -> Job:
        old = self.engine.lock_job(connection, wanted)
        if old is None:
            if self.engine.find_jobs(connection, self.choose(None, {"id": wanted}), _EVERY):
                raise JobLocked(f"job {wanted} is locked by another transaction", ids=(wanted,))
            raise JobNotFound(f"there is no job {wanted}", id=wanted)
        values = check_changes(old, changes(old) if callable(changes) else changes)
        if not values:
            if alone:
                leave(connection, UNWRITTEN)
            return old
        self.engine.update_job(connection, wanted, outgoing_changes(old, values))
        updated = self.engine.get_job(connection, wanted)
        if updated is None:
            raise JobNotFound(f"job {wanted} is gone", id=wanted)
        self._tell_updated(connection, old, updated)
        return updated

    def _tell_updated(self, connection: sa.Connection, old: Job, updated: Job) -> None:
        if updated.state is JobState.AVAILABLE and updated.queue != old.queue:
            self.announcer.wake(connection, [updated.queue])
        if updated.scheduled_at == old.scheduled_at:
            return
        now = self.engine.database_now(connection, self.repo.now())
        if (due := self.announcer.moment_ahead(updated, now)) is not None:
            self.announcer.tell_due(connection, due)

    # Many jobs

    def change_all(
        self,
        action: Action,
        query: Query | None,
        filters: Mapping[str, Any],
        host: sa.Connection | None,
        *,
        everything: bool,
    ) -> int:
        """Cancel, retry or delete all chosen jobs; see `Oban.cancel_all_jobs`."""
        chosen = self.choose(query, filters)
        if chosen.every and not OPTIONS.boolean("everything", everything):
            raise ConfigError(
                f"{action}_all_jobs was given no filter: say which jobs, or everything=True"
            )
        about = {"conf": self.config, "engine": type(self.engine), "queryable": chosen.given}
        with telemetry.span(_MANY[action], about) as event:
            changed = self._change_chosen(action, chosen, host)
            event.set(jobs=changed)
        return len(changed)

    def _change_chosen(
        self, action: Action, chosen: Chosen, host: sa.Connection | None
    ) -> list[ChangedJob]:
        ids = self._look(
            host,
            lambda connection: self.engine.find_jobs(connection, chosen, _STATES[action]),
            broad=not chosen.by_queue,
        )
        if host is not None:
            # The locks stay, so that only the order of the ids keeps two calls apart.
            return [
                job
                for batch in _batches(ids)
                for job in self._batch(action, batch, chosen.holding, host, wait=True)
            ]
        changed: list[ChangedJob] = []
        left: list[int] = []
        for batch in _batches(ids):
            done = self._batch(action, batch, chosen.holding, None, wait=False)
            changed += done
            left += sorted(set(batch) - {job.id for job in done})
        for batch in _batches(left):
            changed += self._insist(action, batch, chosen.holding, len(changed))
        return changed

    def _insist(
        self, action: Action, ids: Sequence[int], holding: Sequence[Any], before: int
    ) -> list[ChangedJob]:
        """Change jobs that were left out: others had them locked, or they are not wanted now."""
        try:
            return self._batch(action, ids, holding, None, wait=True)
        except JobLocked as error:
            done = self._batch(action, ids, holding, None, wait=False)
            locked = self._wanted(action, set(ids) - {job.id for job in done})
            if not locked:
                return done
            count = before + len(done)
            raise JobLocked(
                _locked(locked, count, action), ids=tuple(locked), changed=count
            ) from error

    def _wanted(self, action: Action, ids: set[int]) -> list[int]:
        chosen = self.choose(None, {"id": sorted(ids)})
        return self._look(
            None, lambda connection: self.engine.find_jobs(connection, chosen, _STATES[action])
        )

    # A batch

    def _batch(
        self,
        action: Action,
        ids: Sequence[int],
        holding: Sequence[Any],
        host: sa.Connection | None,
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        work = partial(self._changed, action, ids, holding, wait=wait)
        if host is not None:
            return work(host)

        def alone(connection: sa.Connection) -> list[ChangedJob]:
            jobs = work(connection)
            if not jobs:
                leave(connection, UNWRITTEN)
            return jobs

        return self.repo.transaction(alone, idempotent=False, lenient=True)

    def _changed(
        self,
        action: Action,
        ids: Sequence[int],
        holding: Sequence[Any],
        connection: sa.Connection,
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        now = self.repo.now()
        match action:
            case "cancel":
                jobs = self.engine.cancel_jobs(connection, ids, holding, now, wait=wait)
                payloads = [_kill(job) for job in jobs if job.state is JobState.EXECUTING]
                if payloads:
                    self.publisher.publish(connection, "signal", payloads)
            case "retry":
                jobs = self.engine.retry_jobs(connection, ids, holding, now, wait=wait)
                self.announcer.wake(connection, (job.queue for job in jobs))
            case _:
                jobs = self.engine.delete_jobs(connection, ids, holding, wait=wait)
        return jobs

    def _look(
        self,
        host: sa.Connection | None,
        work: Callable[[sa.Connection], T],
        *,
        broad: bool = True,
    ) -> T:
        if host is not None:
            return work(host)

        def look(connection: sa.Connection) -> T:
            if broad and self.repo.dialect == "postgresql":
                options = {"no_parameters": True}
                connection.exec_driver_sql(BROAD, execution_options=options)
            return work(connection)

        return self.repo.transaction(look, read_only=True, lenient=True)

    # The host's transaction

    def host_connection(self, session: Any, connection: Any) -> sa.Connection | None:
        """Give the connection of the host's transaction, None where there is none.

        Raises:
            ConfigError: it is none that this can use.
            UnfitTransaction: it is in none.

        """
        refuse_both(session, connection)
        if session is not None:
            return adopt(session, "session", self.repo.dialect)
        return None if connection is None else adopt(connection, "connection", self.repo.dialect)


_EVERY = tuple(JobState)

_ONE: Mapping[Action, str] = {
    "cancel": "oban.engine.cancel_job",
    "retry": "oban.engine.retry_job",
    "delete": "oban.engine.delete_job",
}
_MANY: Mapping[Action, str] = {
    "cancel": "oban.engine.cancel_all_jobs",
    "retry": "oban.engine.retry_all_jobs",
    "delete": "oban.engine.delete_all_jobs",
}


def _kill(job: ChangedJob) -> dict[str, Any]:
    signal: dict[str, Any] = {"action": "pkill", "job_id": job.id}
    # Oban has no word for which run is meant; but where the job is retried at once, the next one
    # may have begun when the signal comes.
    return signal if job.claimed_at is None else {**signal, "attempted_at": job.claimed_at}


def job_id(job: Job | int) -> int:
    """Give the id of a job.

    Raises:
        ConfigError: it is no id, or a job that was never inserted.

    """
    found = job.id if isinstance(job, Job) else job
    if isinstance(found, bool) or not isinstance(found, int) or not -(2**63) <= found < 2**63:
        got = "a job that was not inserted" if isinstance(job, Job) else repr(found)[:80]
        raise ConfigError(f"invalid value for 'job': expected a job or its id, got: {got}")
    return found


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _readable(rows: list[dict[str, Any]], *, skip_unreadable: bool) -> Iterator[Job]:
    for row in rows:
        try:
            yield Job.from_row(row)
        except InvalidJob as error:
            if not skip_unreadable:
                raise
            logger.warning("left out: %s", error)


def _locked(ids: Sequence[int], changed: int, action: Action) -> str:
    named = ", ".join(map(str, ids[:10])) + ("..." if len(ids) > 10 else "")  # noqa: PLR2004 (enough to look at)
    jobs = "job" if len(ids) == 1 else "jobs"
    others = f"; {changed} others were {_DONE[action]}" if changed else ""
    return f"could not {action} {jobs} {named}: locked by another transaction{others}"
