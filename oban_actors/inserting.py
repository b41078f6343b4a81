"""Putting jobs into the table, in a transaction of our own or in the host's."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from oban_actors import telemetry, tracing
from oban_actors.announcing import Announcer
from oban_actors.config import Config
from oban_actors.conflicts import Settled, settle, settle_found
from oban_actors.engines import JobEngine
from oban_actors.errors import InvalidJob
from oban_actors.host_connections import adopt, refuse_both, run_on
from oban_actors.inline import run_inline
from oban_actors.job import Job, JobState
from oban_actors.job_secrets import outgoing
from oban_actors.notifiers import Publisher, note_sent, notify_statement, sends_by_statement
from oban_actors.repo import Repo
from oban_actors.repo.commits import UNWRITTEN, leave
from oban_actors.repo.message import Send
from oban_actors.testing_mode import mode_of

CHUNK = 5_000
"""Jobs of an iterator that are taken at once."""

FEW = 100
"""Jobs at most whose insert is one message: of more, the ways to the server are no part."""


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
        self.announcer = Announcer(config, publisher)
        self._by_statement = sends_by_statement(publisher)

    def insert(self, jobs: Iterable[Job], session: Any, connection: Any) -> list[Job]:
        """Insert them all; see `Oban.insert_all`."""
        chunks = _chunks(jobs)
        if mode_of(self.config) == "inline":
            return [job for each in chunks() for job in run_inline(self.config, list(each))]
        option, handle = _handle(session, connection)
        if handle is not None:
            return self._insert(adopt(handle, option, self.repo.dialect), chunks, host=True)
        first = next(chunks(), None)
        if first is None:
            return []
        if len(first) <= FEW and isinstance(jobs, Collection):
            done = self._in_one_message(first)
            if done is not None:
                return done
        work = partial(self._insert, chunks=chunks, host=False, alone=True)
        return self.repo.transaction(work, idempotent=False, lenient=True)

    def insert_within(self, connection: sa.Connection, jobs: Sequence[Job]) -> list[Job]:
        """Insert them in a transaction of the tree's own, which does more than that.

        Args:
            connection: in that transaction.
            jobs: any number.

        Raises:
            InvalidJob: one can't be stored.

        """
        return self._insert(connection, _chunks(jobs), host=False)

    async def insert_async(self, jobs: Iterable[Job], session: Any, connection: Any) -> list[Job]:
        """Insert them all in a transaction of the host's that has to be awaited."""
        chunks = _chunks(jobs)
        if mode_of(self.config) == "inline":
            run = partial(run_inline, self.config)
            return [job for each in chunks() for job in await asyncio.to_thread(run, list(each))]
        option, handle = _handle(session, connection)
        work = partial(self._insert, chunks=chunks, host=True)
        return await run_on(handle, option, self.repo.dialect, work)

    def _in_one_message(self, jobs: Sequence[Job]) -> list[Job] | None:
        """Insert a few that are new, or a single unique one, by one message; None where not."""
        if not self._by_statement:
            return None
        if not any(job.unique for job in jobs):
            return self._insert_new(jobs)
        return self._insert_unique(jobs[0]) if len(jobs) == 1 else None

    def _insert_new(self, jobs: Sequence[Job]) -> list[Job] | None:
        message = self.engine.insert_message(jobs)
        if message is None:
            return None
        with self._span(jobs) as event:
            carrying = tracing.carry(jobs)
            statements, parameters = [message.statement], message.write(carrying, self.repo.now())
            payloads = self._ready(jobs)
            if payloads:
                statement, more = notify_statement(self.config, "insert", payloads)
                statements.append(statement)
                parameters = parameters | more

            def work(connection: sa.Connection, send: Send) -> list[Job]:
                rows, *_ = send(statements, parameters)
                done = message.read(carrying, rows)
                leave(connection, message.trace(rows))
                self._announce_due(connection, done)
                return done

            done = self.repo.opened(work)
            _finish(event, done)
        if payloads:
            note_sent(self.config, "insert", payloads)
        return done

    def _insert_unique(self, job: Job) -> list[Job] | None:
        """Insert one unless it is there, and go on in the same transaction if it is."""
        insert = self.engine.unique_insert(job)
        if insert is None:
            return None
        with self._span([job]) as event:
            (carrying,) = tracing.carry([job])
            payloads = self._ready([job])
            _, notification = notify_statement(self.config, "insert", payloads)

            def work(connection: sa.Connection, send: Send) -> Job:
                now = self.repo.now()
                done = insert(connection, send, carrying, now, notification)
                if isinstance(done, Job):
                    self._announce_due(connection, [done])
                    return done
                settled = settle_found(self.engine, connection, carrying, done, now)
                self._conclude(connection, [settled], alone=True)
                return settled.jobs[0]

            done = self.repo.opened(work)
            _finish(event, [done])
        if payloads and not done.conflict:
            note_sent(self.config, "insert", payloads)
        return [done]

    def _ready(self, jobs: Sequence[Job]) -> list[dict[str, str]]:
        """Give what tells the queues of those that can run at once, each one once."""
        if not self.config.insert_notify:
            return []
        ready = (job.queue for job in jobs if job.state == JobState.AVAILABLE)
        return [{"queue": queue} for queue in dict.fromkeys(ready)]

    def _announce_due(self, connection: sa.Connection, jobs: Sequence[Job]) -> None:
        if self.config.insert_notify:
            self.announcer.announce_due(connection, jobs)

    def _span(self, jobs: Sequence[Job]) -> telemetry.span:
        about: dict[str, Any] = {"conf": self.config, "engine": type(self.engine)}
        if len(jobs) == 1:
            return telemetry.span("oban.engine.insert_job", about | {"job": jobs[0]})
        return telemetry.span("oban.engine.insert_all_jobs", about | {"changesets": jobs})

    def _insert(
        self, connection: sa.Connection, chunks: "Chunks", *, host: bool, alone: bool = False
    ) -> list[Job]:
        streamed = isinstance(chunks, _Stream)
        settled = [
            self._insert_chunk(connection, jobs, host=host, more=streamed and len(jobs) == CHUNK)
            for jobs in chunks()
        ]
        self._conclude(connection, settled, alone=alone)
        return [job for each in settled for job in each.jobs]

    def _conclude(
        self, connection: sa.Connection, settled: Sequence[Settled], *, alone: bool
    ) -> None:
        if alone and not any(each.written for each in settled):
            leave(connection, UNWRITTEN)
        if self.config.insert_notify:
            self._announce(connection, settled)

    def _insert_chunk(
        self, connection: sa.Connection, jobs: Sequence[Job], *, host: bool, more: bool
    ) -> Settled:
        with self._span(jobs) as event:
            timeout = self.config.lock_timeout if host else None
            carrying = tracing.carry(jobs)
            now = self.repo.now()
            done = settle(self.engine, connection, carrying, now, timeout, more=more)
            _finish(event, done.jobs)
        return done

    def _announce(self, connection: sa.Connection, settled: Sequence[Settled]) -> None:
        jobs = [job for each in settled for job in each.jobs]
        there = [job for job in jobs if job.conflict]
        fresh = [job for job in jobs if not job.conflict] if there else jobs
        # Once for each queue and transaction, whether the job is new or was there.
        ready = (job.queue for job in there if job.state == JobState.AVAILABLE)
        known = {job.queue for job in fresh if job.state == JobState.AVAILABLE}
        self.announcer.announce(connection, fresh)
        self.announcer.wake(connection, (queue for queue in ready if queue not in known))
        put_off = frozenset[int]().union(*(each.put_off for each in settled))
        moved = [job for job in there if job.id in put_off]
        if moved:
            now = self.engine.database_now(connection, self.repo.now())
            moments = (self.announcer.moment_ahead(job, now) for job in moved)
            for due in sorted({moment for moment in moments if moment is not None})[:1]:
                self.announcer.tell_due(connection, due)


Chunks = Callable[[], Iterator[Sequence[Job]]]
"""Gives the jobs in chunks, from the first one each time, since a transaction may run again."""


def _chunks(jobs: Iterable[Job]) -> Chunks:
    if isinstance(jobs, Job):
        raise InvalidJob("expected jobs, got one: use insert")
    if isinstance(jobs, Sequence | set | frozenset):
        whole = _checked(list(jobs))
        return lambda: iter([whole] if whole else [])
    if not isinstance(jobs, Iterable):
        raise InvalidJob(f"expected an iterable of jobs, got: {type(jobs).__name__}")
    return _Stream(jobs)


class _Stream:
    # What was taken is kept until all is done: the iterator gives it only once.
    def __init__(self, jobs: Iterable[Job]) -> None:
        self._rest = iter(jobs)
        self._taken: list[Sequence[Job]] = []
        self._error: BaseException | None = None

    def __call__(self) -> Iterator[Sequence[Job]]:
        yield from list(self._taken)
        while chunk := self._take():
            self._taken.append(chunk)
            yield chunk

    def _take(self) -> Sequence[Job]:
        if self._error is not None:
            raise self._error
        try:
            return _checked(list(itertools.islice(self._rest, CHUNK)))
        except BaseException as error:
            # A generator that failed would only seem to be at its end another time.
            self._error = error
            raise


def _checked(jobs: list[Job]) -> list[Job]:
    for job in jobs:
        if not isinstance(job, Job):
            raise InvalidJob(f"expected a Job, got: {type(job).__qualname__}")
        job.validate()
        if job.id is not None:
            # With its state and its claim a copy would be taken for what it is a copy of.
            raise InvalidJob(
                f"job {job.id} is in a table already: use retry_job, or build another by Job.new"
            )
    return outgoing(jobs)


def _finish(event: telemetry.span, jobs: Sequence[Job]) -> None:
    event.set(**({"job": jobs[0]} if len(jobs) == 1 else {"jobs": jobs}))


def _handle(session: Any, connection: Any) -> tuple[str, Any]:
    refuse_both(session, connection)
    return ("connection", connection) if session is None else ("session", session)
