"""What rescuing asks of a job store: who beats, whose jobs are left, and to give them back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from sqlalchemy import Connection

RescueState = Literal["executing", "available"]
"""Where jobs are found: claimed by who is gone, or passed over since no attempt is left."""


@dataclass(frozen=True, slots=True)
class ClaimGroup:
    """The rows of one queue that are executing for one claimant.

    Attributes:
        uuid: the claimant's; None where `attempted_by` names none.
        queue: theirs.
        aged: whether one was claimed longer ago than was asked about.

    """

    uuid: str | None
    queue: str
    aged: bool


@dataclass(frozen=True, slots=True)
class ProducerReport:
    """Who beats, and who has jobs.

    Attributes:
        server: which run of the database server says so; the same text until it restarts.
        beats: the last beat of each producer that has a row, by its uuid, as opaque text.
        claims: all that is executing.

    """

    server: str
    beats: Mapping[str, str]
    claims: Sequence[ClaimGroup]


@dataclass(frozen=True, slots=True)
class RescuedJob:
    """A job that was rescued or discarded.

    Attributes:
        id: the job's.
        queue: its queue.
        state: the one it had before.

    """

    id: int
    queue: str
    state: RescueState


@dataclass(frozen=True, slots=True)
class Rescued:
    """What became of jobs.

    Attributes:
        rescued: those that are available again, their attempts kept.
        discarded: those that had none left.

    """

    rescued: tuple[RescuedJob, ...] = ()
    discarded: tuple[RescuedJob, ...] = ()

    def __add__(self, other: "Rescued") -> "Rescued":
        return Rescued(self.rescued + other.rescued, self.discarded + other.discarded)

    def __len__(self) -> int:
        return len(self.rescued) + len(self.discarded)


def sort_rescued(rows: Sequence[tuple[int, str, str]], state: RescueState) -> Rescued:
    """Sort rows of id, queue and new state, by id."""
    jobs = [(RescuedJob(job_id, queue, state), now) for job_id, queue, now in sorted(rows)]
    return Rescued(
        tuple(job for job, now in jobs if now == "available"),
        tuple(job for job, now in jobs if now == "discarded"),
    )


class RescueEngine(Protocol):
    """The part of a `JobEngine` that rescues."""

    def report_producers(
        self, connection: Connection, mark: str | None, age: float, now: datetime | None
    ) -> ProducerReport:
        """Read who beats and who has jobs, in a transaction in which beats could be written.

        A row is written where beats are, and removed again: who can read while nobody can write
        would take all for dead.

        Args:
            connection: to run on.
            mark: the row's name, which nobody else has; None where beats were written just now.
            age: seconds after which a claim is `aged`.
            now: a virtual clock's time.

        """

    def hold_producer(self, connection: Connection, uuid: str, beat: str | None) -> bool:
        """Keep a producer from beating until the transaction ends.

        Args:
            connection: to run on.
            uuid: the producer's.
            beat: the last one that was seen; None: there was no row.

        Returns:
            Whether it is still the last one. If not, nothing is held.

        """

    def find_orphans(
        self,
        connection: Connection,
        uuid: str | None,
        queue: str,
        limit: int,
        aside: Sequence[int],
        *,
        age: float | None = None,
        now: datetime | None = None,
    ) -> list[int]:
        """Lock jobs that are executing for a claimant, in the order in which they were to run.

        Args:
            connection: to run on.
            uuid: the claimant's; None: that of rows that name none.
            queue: theirs.
            limit: how many at most; locked ones are passed over.
            aside: ids to leave out.
            age: only those claimed so many seconds ago.
            now: a virtual clock's time.

        """

    def find_used_up(
        self, connection: Connection, queue: str, limit: int, aside: Sequence[int]
    ) -> list[int]:
        """Lock those of a queue's next jobs that have no attempt left, so that no fetch takes them.

        Args:
            connection: to run on.
            queue: theirs.
            limit: how many jobs are looked at, from the one that is next.
            aside: ids to leave out.

        """

    def rescue_jobs(
        self,
        connection: Connection,
        ids: Sequence[int],
        state: RescueState,
        error: str,
        now: datetime | None,
    ) -> Rescued:
        """Make jobs that were locked available, or discard those without an attempt left.

        Mirrors `Oban.Engine.rescue_jobs/3`.

        Args:
            connection: to run on.
            ids: whose.
            state: the one they are in.
            error: what those that are discarded have as their last error.
            now: a virtual clock's time.

        """

    def settle_producer(
        self, connection: Connection, uuid: str, beat: str | None, queues: Sequence[str]
    ) -> bool:
        """Remove the row of a producer that is held, unless it still has jobs in these queues.

        Returns:
            Whether it has none.

        """
