"""What one turn of a producer brings: acknowledgements written, rows claimed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from oban_actors.claim import Source
from oban_actors.job import Job


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A claimed row that holds what no job can hold.

    Attributes:
        job_id: the row's id.
        attempted_at: the fence of its claim.
        attempt: which attempt it is now, and `max_attempts` how many it may have.
        worker: as far as it can be read, and the `queue`.
        reason: what is wrong with it.

    """

    job_id: int
    attempted_at: datetime
    attempt: int
    max_attempts: int
    worker: str
    queue: str
    reason: str


class UnreadableRow(Exception):
    """A claimed row can't be read, so its job can't run.

    Attributes:
        row: what is known of it.

    """

    def __init__(self, row: Unreadable) -> None:
        super().__init__(row.reason)
        self.row = row


class Fetched(Source, Protocol):
    """The rows that a turn has claimed, in the order in which their jobs are to run.

    Each is read when its job is run, by whoever runs it.
    """

    @property
    def rows(self) -> Sequence[Any]:
        """What was fetched, in the form that the store has for it."""

    @property
    def at(self) -> datetime:
        """When: the fence of all these claims."""

    def id_of(self, row: Any) -> int:
        """Give the id of a row's job."""

    def worker_of(self, row: Any) -> str:
        """Give the name of its worker, as far as it can be read."""


@dataclass(frozen=True, slots=True)
class TurnMessage:
    """A turn to be taken by `Repo.message`.

    Attributes:
        statement: all of it.
        parameters: its values.
        read: given the statement's rows, tells how many acknowledgements were written, and which
            rows were claimed. What became of those that were not written, `take_turn` says, given
            all of them again.

    """

    statement: str
    parameters: Mapping[str, Any]
    read: Callable[[list[Any]], tuple[int, Fetched]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a producer did.

    Attributes:
        settled: ids whose row shows what was acknowledged, by this turn or one before.
        stale: ids whose row was no longer this claim's, so that nothing was written.
        blocked: ids whose row somebody has locked: to be tried again.
        fetched: the rows that it claimed.
        completed: those of the settled ids whose worker has completed them, whatever was
            acknowledged.
        recounted: those of the settled ids that became retryable where discarded was acknowledged,
            or the reverse, since the row had another number of attempts by then.
        left: ids of what this turn did not come to, for the next one.

    """

    settled: frozenset[int]
    stale: frozenset[int]
    blocked: frozenset[int]
    fetched: Fetched
    completed: frozenset[int] = frozenset()
    recounted: frozenset[int] = frozenset()
    left: frozenset[int] = frozenset()

    @property
    def jobs(self) -> list[Job]:
        """Read all jobs at once, for those who run none of them."""
        return self._read()[0]

    @property
    def unreadable(self) -> list[Unreadable]:
        """Find the rows that can't be read."""
        return self._read()[1]

    def _read(self) -> tuple[list[Job], list[Unreadable]]:
        jobs: list[Job] = []
        unreadable: list[Unreadable] = []
        for row in self.fetched.rows:
            try:
                jobs.append(self.fetched.read(row))
            except UnreadableRow as error:
                unreadable.append(error.row)
        return jobs, unreadable
