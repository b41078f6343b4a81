"""What a job offers its worker while it runs."""

import inspect
from datetime import datetime, timedelta
from typing import Any

from oban_actors.errors import ClaimLost, NotRunning
from oban_actors.running import Running


class JobRun:
    """The part of a job that is about its present run."""

    __slots__ = ()

    id: int | None
    running: Running | None

    @property
    def cancelled(self) -> bool:
        """Whether its present run shall end: it was cancelled, is out of time, or the node stops.

        A sync worker that takes long looks at it now and then; an async one gets
        `asyncio.CancelledError` besides. In another process of an executor of the host's it is
        true once its time is over, and hears of nothing else. False while it doesn't run.
        """
        return self.running is not None and self.running.cancelled

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline of its present run, negative when over; None without one."""
        return None if self.running is None else self.running.time_left

    @property
    def deadline(self) -> datetime | None:
        """When its present run has to end, aware and in UTC; None without a time-out."""
        left = self.time_left
        if self.running is None or left is None:
            return None
        return self.running.clock.now() + timedelta(seconds=left)

    def complete(self, *, session: Any = None, connection: Any = None) -> None:
        """Complete it in its worker's own transaction, so that its work and its end are one commit.

        For a worker that writes to the database of the jobs. It commits by itself and should
        return soon after; what it returns or raises then counts for nothing. Without the commit
        the job is not completed, also if its worker returns: that is a failure.

        Args:
            session: what the worker writes with, such as an SQLAlchemy session; or
            connection: likewise, a connection.

        Raises:
            NotRunning: no worker runs it here and now.
            ClaimLost: the row is no longer this run's, or the job has completed itself before;
                the transaction should be rolled back.
            TypeError: there is not one of session and connection.

        """
        running, done = self._completing(session, connection)
        if inspect.isawaitable(done):
            if inspect.iscoroutine(done):
                done.close()
            raise TypeError("an async session or connection needs `await job.acomplete(...)`")
        self._note_completed(running, done)

    async def acomplete(self, *, session: Any = None, connection: Any = None) -> None:
        """Complete it in a transaction that has to be awaited; see `complete`."""
        running, done = self._completing(session, connection)
        self._note_completed(running, await done if inspect.isawaitable(done) else done)

    def _completing(self, session: Any, connection: Any) -> tuple[Running, Any]:
        if (session is None) == (connection is None):
            raise TypeError("expected either session= or connection=")
        running = self.running
        if running is None:
            raise NotRunning(f"job {self.id} can be completed only by its worker while it runs")
        if running.completer is None:
            raise NotRunning(f"job {self.id} can't be completed from where it runs")
        return running, running.completer(self, connection if session is None else session)

    def _note_completed(self, running: Running, done: object) -> None:
        if done is False:
            ended = "has completed itself before, or " if running.completed else ""
            raise ClaimLost(f"job {self.id} {ended}was cancelled or given to somebody else")
        running.completed = True
        if running.on_completed is not None:
            running.on_completed()
