"""The calls for jobs from an event loop; none of them holds the loop up."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, Unpack

from oban_actors.calls.jobs import JobCalls
from oban_actors.filters import JobFilters, Query
from oban_actors.job import Job
from oban_actors.job_changes import Changes

T = TypeVar("T")


class AsyncJobCalls(JobCalls):
    """Twins of `JobCalls`, by the same names with an `a` before, and with the same arguments.

    The host's `session` or `connection` may be SQLAlchemy's async one, which is used on the event
    loop as its owner does. All else runs in a thread of the loop's.
    """

    async def aget_job(
        self, job_id: int, *, session: Any = None, connection: Any = None
    ) -> Job | None:
        """See `get_job`."""
        return await _called(partial(self.get_job, job_id), session, connection)

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
        return await _called(call, session, connection)

    async def acancel_job(
        self, job: Job | int, *, session: Any = None, connection: Any = None
    ) -> bool:
        """See `cancel_job`."""
        return await _called(partial(self.cancel_job, job), session, connection)

    async def aretry_job(
        self, job: Job | int, *, session: Any = None, connection: Any = None
    ) -> bool:
        """See `retry_job`."""
        return await _called(partial(self.retry_job, job), session, connection)

    async def adelete_job(
        self, job: Job | int, *, session: Any = None, connection: Any = None
    ) -> bool:
        """See `delete_job`."""
        return await _called(partial(self.delete_job, job), session, connection)

    async def aupdate_job(
        self, job: Job | int, changes: Changes, *, session: Any = None, connection: Any = None
    ) -> Job:
        """See `update_job`."""
        return await _called(partial(self.update_job, job, changes), session, connection)

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
        return await _called(call, session, connection)

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
        return await _called(call, session, connection)

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
        return await _called(call, session, connection)


async def _called(call: Callable[..., T], session: Any, connection: Any) -> T:
    # Without importing SQLAlchemy's asyncio part, which not every program has.
    if connection is None and hasattr(session, "run_sync"):
        return await session.run_sync(lambda own: call(session=own))  # type: ignore[no-any-return]  # the host's
    if session is None and hasattr(connection, "run_sync"):
        return await connection.run_sync(lambda own: call(connection=own))  # type: ignore[no-any-return]  # as above
    return await asyncio.to_thread(call, session=session, connection=connection)
