"""The calls for jobs from an event loop."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, Unpack

import sqlalchemy as sa

from oban_actors.calls.jobs import JobCalls
from oban_actors.filters import JobFilters, Query
from oban_actors.host_connections import is_async, refuse_both, run_on
from oban_actors.job import Job
from oban_actors.job_changes import Changes

T = TypeVar("T")


class AsyncJobCalls(JobCalls):
    """Twins of `JobCalls`, by the same names with an `a` before, and with the same arguments.

    The host's `session` or `connection` may be an async one, which is used on the event loop as its
    owner does. One that is not async is used here and now, and holds the loop up; without any the
    call runs in a thread of the loop's.
    """

    async def aget_job(
        self, job_id: int, *, session: Any = None, connection: Any = None
    ) -> Job | None:
        """See `get_job`."""
        return await self._awaited(partial(self.get_job, job_id), session, connection)

    async def aall_jobs(
        self,
        query: Query | None = None,
        *,
        skip_unreadable: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> list[Job]:
        """See `all_jobs`."""
        call = partial(self.all_jobs, query, skip_unreadable=skip_unreadable, **filters)
        return await self._awaited(call, session, connection)

    async def acancel_job(
        self, job: Job | int, *, session: Any = None, connection: Any = None
    ) -> bool:
        """See `cancel_job`."""
        return await self._awaited(partial(self.cancel_job, job), session, connection)

    async def aretry_job(
        self, job: Job | int, *, session: Any = None, connection: Any = None
    ) -> bool:
        """See `retry_job`."""
        return await self._awaited(partial(self.retry_job, job), session, connection)

    async def adelete_job(
        self, job: Job | int, *, session: Any = None, connection: Any = None
    ) -> bool:
        """See `delete_job`."""
        return await self._awaited(partial(self.delete_job, job), session, connection)

    async def aupdate_job(
        self, job: Job | int, changes: Changes, *, session: Any = None, connection: Any = None
    ) -> Job:
        """See `update_job`."""
        return await self._awaited(partial(self.update_job, job, changes), session, connection)

    async def acancel_all_jobs(
        self,
        query: Query | None = None,
        *,
        everything: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> int:
        """See `cancel_all_jobs`."""
        call = partial(self.cancel_all_jobs, query, everything=everything, **filters)
        return await self._awaited(call, session, connection)

    async def aretry_all_jobs(
        self,
        query: Query | None = None,
        *,
        everything: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> int:
        """See `retry_all_jobs`."""
        call = partial(self.retry_all_jobs, query, everything=everything, **filters)
        return await self._awaited(call, session, connection)

    async def adelete_all_jobs(
        self,
        query: Query | None = None,
        *,
        everything: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> int:
        """See `delete_all_jobs`."""
        call = partial(self.delete_all_jobs, query, everything=everything, **filters)
        return await self._awaited(call, session, connection)

    async def _awaited(self, call: Callable[..., T], session: Any, connection: Any) -> T:
        for option, handle in (("session", session), ("connection", connection)):
            if is_async(handle):
                refuse_both(session, connection)
                work = partial(_on, call)
                return await run_on(handle, option, self.repo.dialect, work)
        if session is None and connection is None:
            return await asyncio.to_thread(call)
        return call(session=session, connection=connection)


def _on(call: Callable[..., T], connection: sa.Connection) -> T:
    return call(connection=connection)
