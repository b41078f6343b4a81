"""A steady load: jobs that come as fast as they are done, whatever happens to the database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from oban_actors import DatabaseError, Job, Oban
from tests.support.databases import Database

TICK = 0.02
"""Seconds between two looks at how much is left."""

BATCH = 500
SCHEDULED = 10
"""One job of so many is due a little later, so that the leader has its part in it."""


class Load:
    """Keeps jobs waiting, so that every slot of every node is always in use.

    What fails is not tried again: of a batch that got no answer nobody asks what became of it.
    Only those that were confirmed must be found in the end.

    Args:
        database: where to insert, by a way of its own.
        begun: how many of its jobs have begun.
        backlog: how many jobs are to wait.
        seconds: that each of them takes.

    Attributes:
        confirmed: ids of the jobs that were inserted for certain.
        errors: what inserting met.

    """

    def __init__(
        self, database: Database, begun: Callable[[], int], backlog: int, seconds: float
    ) -> None:
        self._oban = Oban(database.url, prefix=database.prefix, statement_timeout=5.0)
        self._begun = begun
        self._backlog = backlog
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.confirmed: set[int] = set()
        self.errors: list[DatabaseError] = []

    def start(self) -> None:
        """Begin, with a first batch that is there when this returns."""
        self._top_up()
        self._thread.start()

    @contextmanager
    def other(self, backlog: int, seconds: float) -> Iterator[None]:
        """Insert jobs of another length meanwhile, as soon as no more are left than are to wait."""
        before = self._backlog, self._seconds
        self._backlog, self._seconds = backlog, seconds
        try:
            yield
        finally:
            self._backlog, self._seconds = before

    def stop(self) -> None:
        """Insert no more; may be called again."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(60)
        self._oban.repo.close()

    def _run(self) -> None:
        while not self._stopping.wait(TICK):
            try:
                self._top_up()
            except DatabaseError as error:
                self.errors.append(error)

    def _top_up(self) -> None:
        missing = self._backlog - (len(self.confirmed) - self._begun())
        if missing > 0:
            jobs = [self._job(number) for number in range(min(missing, BATCH))]
            self.confirmed.update(job.id or 0 for job in self._oban.insert_all(jobs))

    def _job(self, number: int) -> Job:
        args = {"seconds": self._seconds}
        later = 0.3 if number % SCHEDULED == 0 else None
        return Job.new(args, worker="chaos.work", queue="alpha", schedule_in=later)
