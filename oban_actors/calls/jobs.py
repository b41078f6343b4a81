"""The calls that look at jobs and change them."""

from typing import Any, Unpack

import sqlalchemy as sa

from oban_actors.calls.base import Calls
from oban_actors.controlling import Controller
from oban_actors.filters import JobFilters, Query
from oban_actors.job import Job
from oban_actors.job_changes import Changes


class JobCalls(Calls):
    """Read, cancel, retry, delete and update jobs; none needs a running tree.

    With the host's session or connection a call is part of its transaction: it and its
    notifications count when that commits, and how long it waits for rows that others have locked
    is for that transaction's own `lock_timeout` to say. Otherwise the calls for one job are a
    transaction each, and those for many jobs change at most 1,000 in one transaction.
    """

    _controller: Controller

    @property
    def jobs(self) -> sa.Table:
        """The table of jobs, for conditions and selects: `oban.jobs.c.queue == "mailers"`.

        Its moments are aware and in UTC in Python.
        """
        return self._controller.engine.table

    # Reading

    def get_job(
        self,
        job_id: int,
        *,
        session: Any = None,
        connection: Any = None,
    ) -> Job | None:
        """Read a job, or None when there is none of this id.

        Args:
            job_id: the job's.
            session: the host's, to read in its transaction.
            connection: the host's, likewise.

        Raises:
            InvalidJob: the row holds what no job can hold; it is named.
            DatabaseError: the database failed.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.get(job_id, host)

    def all_jobs(
        self,
        query: Query | None = None,
        *,
        skip_unreadable: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> list[Job]:
        """Read jobs, all that are there where nothing is asked for. Mirrors `Oban.all_jobs/2`.

        Args:
            query: a SQLAlchemy select that gives jobs or their ids, or a condition on `jobs`;
                both it and the filters have to hold.
            skip_unreadable: whether rows that hold what no job can hold are left out and
                logged, default False.
            session: the host's, to read in its transaction.
            connection: the host's, likewise.
            **filters: see `JobFilters`.

        Returns:
            the jobs by id, unless `order` says otherwise.

        Raises:
            ConfigError: a filter is unknown, or its value can't be used.
            InvalidJob: a row holds what no job can hold; it is named.
            DatabaseError: the database failed.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.all(query, filters, host, skip_unreadable=skip_unreadable)

    # One job

    def cancel_job(
        self,
        job: Job | int,
        *,
        session: Any = None,
        connection: Any = None,
    ) -> bool:
        """Cancel a job that has not ended, and tell it if it runs. Mirrors `Oban.cancel_job/2`.

        One that runs is told on whichever node it does: its `cancelled` becomes true, and an
        async worker gets `asyncio.CancelledError`.

        Args:
            job: the job or its id.
            session: the host's, to cancel in its transaction.
            connection: the host's, likewise.

        Returns:
            whether it was cancelled; False where there is none, or it had ended.

        Raises:
            JobLocked: somebody had it locked for longer than `lock_timeout`.
            ConfigError: it is neither a job nor an id.
            CommitUnknown: whether it was cancelled can't be found out.
            DatabaseError: the database failed.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.change("cancel", job, host)

    def retry_job(
        self,
        job: Job | int,
        *,
        session: Any = None,
        connection: Any = None,
    ) -> bool:
        """Make a job available at once, whatever became of it. Mirrors `Oban.retry_job/2`.

        It can be tried at least once more; its errors stay. Its queue is woken.

        Args:
            job: as in `cancel_job`.
            session: as in `cancel_job`.
            connection: as in `cancel_job`.

        Returns:
            whether it was made available; False where there is none, or it is available or runs.

        Raises:
            ObanError: as in `cancel_job`.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.change("retry", job, host)

    def delete_job(
        self,
        job: Job | int,
        *,
        session: Any = None,
        connection: Any = None,
    ) -> bool:
        """Delete a job that does not run. Mirrors `Oban.delete_job/2`.

        Args:
            job: as in `cancel_job`.
            session: as in `cancel_job`.
            connection: as in `cancel_job`.

        Returns:
            whether it was deleted; False where there is none, or it runs.

        Raises:
            ObanError: as in `cancel_job`.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.change("delete", job, host)

    def update_job(
        self,
        job: Job | int,
        changes: Changes,
        *,
        session: Any = None,
        connection: Any = None,
    ) -> Job:
        """Change fields of a job while nobody else can. Mirrors `Oban.update_job/3`.

        A `scheduled_at` makes it scheduled. A change of an object or of tags replaces the old
        one; a function can build on that. One that runs is neither scheduled nor moved to another
        queue, and one that waits keeps an attempt to run with.

        Args:
            job: the job or its id.
            changes: see `JobChanges`, or a function that is given the locked job and returns
                them; it may be called again where the transaction has to be.
            session: the host's, to update in its transaction.
            connection: the host's, likewise.

        Returns:
            the job as it stands in the table.

        Raises:
            JobLocked: somebody has it locked, such as a transaction that finishes it just now.
            JobNotFound: there is no such job.
            InvalidJob: a field can't be changed, or not to this value.
            CommitUnknown: whether it was changed can't be found out.
            DatabaseError: the database failed; it was not changed.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.update(job, changes, host)

    # Many jobs

    def cancel_all_jobs(
        self,
        query: Query | None = None,
        *,
        everything: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> int:
        """Cancel all chosen jobs as `cancel_job` does. Mirrors `Oban.cancel_all_jobs/2`.

        Those that are chosen when the call begins are changed, if what was asked for still holds
        then: filters and conditions are looked at once more, a select is not. Rows that somebody
        has locked are left for the end and then waited for.

        Args:
            query: a SQLAlchemy select that gives jobs or their ids, or a condition on `jobs`;
                both it and the filters have to hold.
            everything: whether it is meant where nothing is asked for, default False.
            session: the host's, to do it all in its transaction.
            connection: the host's, likewise.
            **filters: see `JobFilters`.

        Returns:
            how many were changed.

        Raises:
            ConfigError: a filter is unknown, its value can't be used, or there is none.
            JobLocked: some were locked for longer than `lock_timeout`; all others were changed.
            CommitUnknown: whether the last of them were changed can't be found out.
            DatabaseError: the database failed; up to then jobs were changed, by their ids.

        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.change_all("cancel", query, filters, host, everything=everything)

    def retry_all_jobs(
        self,
        query: Query | None = None,
        *,
        everything: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> int:
        """Make all chosen jobs available as `retry_job` does. Mirrors `Oban.retry_all_jobs/2`.

        Arguments, result and errors are those of `cancel_all_jobs`.
        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.change_all("retry", query, filters, host, everything=everything)

    def delete_all_jobs(
        self,
        query: Query | None = None,
        *,
        everything: bool = False,
        session: Any = None,
        connection: Any = None,
        **filters: Unpack[JobFilters],
    ) -> int:
        """Delete all chosen jobs that don't run. Mirrors `Oban.delete_all_jobs/2`.

        Arguments, result and errors are those of `cancel_all_jobs`.
        """
        self._refuse_fork()
        host = self._controller.host_connection(session, connection)
        return self._controller.change_all("delete", query, filters, host, everything=everything)
