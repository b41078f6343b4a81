"""The calls that insert jobs, in a transaction of our own or in the host's."""

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from oban_actors.calls.base import Calls
from oban_actors.host_connections import is_async
from oban_actors.inserting import Inserter
from oban_actors.job import Job


class InsertCalls(Calls):
    """Insert jobs.

    The host's own transaction may be given as `session` or `connection`: a `Session`,
    `Connection`, `AsyncSession` or `AsyncConnection` of SQLAlchemy on any driver, a `Connection`
    or `AsyncConnection` of psycopg, a `Connection` of sqlite3, or Django's `connection`. Nothing is
    committed or rolled back there and nothing is tried again; its errors are the driver's own, and
    whoever has to know of the jobs is notified when it commits.
    """

    _inserter: Inserter

    def insert(self, job: Job, *, session: Any = None, connection: Any = None) -> Job:
        """Insert a job. Mirrors `Oban.insert/2`.

        Args:
            job: from `Job.new`.
            session: the host's, to insert in its transaction; its rollback takes the job back.
            connection: the host's, likewise.

        Returns:
            the job as it stands in the table; with `conflict` it was there before, and the one
            given, which is unique, was not inserted.

        Raises:
            InvalidJob: a value must not reach the table.
            ConfigError: the session or connection is of no known kind, or async.
            UnfitTransaction: the host's transaction is none, or too strict for a unique job.
            TransientError: others that insert the same unique job were in the way for too long.
            DatabaseError: the database failed; the job was not inserted.
            CommitUnknown: whether it was inserted can't be found out.

        """
        return self.insert_all([job], session=session, connection=connection)[0]

    def insert_all(
        self, jobs: Iterable[Job], *, session: Any = None, connection: Any = None
    ) -> list[Job]:
        """Insert many jobs, all or none of them. Mirrors `Oban.insert_all/2`.

        Unlike there, unique jobs are unique, among each other too. What is no list, such as a
        generator, is taken in chunks while the transaction is open.

        Args:
            jobs: from `Job.new`.
            session: as in `insert`.
            connection: as in `insert`.

        Returns:
            the jobs as they stand in the table, in the order given; see `insert`.

        Raises:
            InvalidJob: a value must not reach the table; nothing was inserted.
            ConfigError: as in `insert`.
            UnfitTransaction: as in `insert`.
            TransientError: as in `insert`.
            DatabaseError: the database failed; nothing was inserted.
            CommitUnknown: whether they were inserted can't be found out.

        """
        self._refuse_fork()
        return self._inserter.insert(jobs, session, connection)

    async def ainsert(self, job: Job, *, session: Any = None, connection: Any = None) -> Job:
        """Insert a job without blocking the event loop; see `insert`."""
        return (await self.ainsert_all([job], session=session, connection=connection))[0]

    async def ainsert_all(
        self, jobs: Iterable[Job], *, session: Any = None, connection: Any = None
    ) -> list[Job]:
        """Insert many jobs without blocking the event loop; see `insert_all`.

        A session or connection that is not async is used here and now, and blocks it.
        """
        if is_async(session) or is_async(connection):
            self._refuse_fork()
            return await self._inserter.insert_async(jobs, session, connection)
        call = partial(self.insert_all, jobs, session=session, connection=connection)
        if session is None and connection is None:
            return await asyncio.to_thread(call)
        return call()
