"""JobEngine: what every job store can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Table

from oban_actors.claim import Ack, Claimant
from oban_actors.engines.cron import CronEngine
from oban_actors.engines.inserts import InsertMessage, UniqueInsert
from oban_actors.engines.prune import PruneEngine
from oban_actors.engines.rescue import RescueEngine
from oban_actors.engines.staging import StagingEngine
from oban_actors.engines.turn import Turn, TurnMessage
from oban_actors.filters import Chosen
from oban_actors.job import Job, JobState


@dataclass(frozen=True, slots=True)
class ProducerBeat:
    """What a producer shows of itself in the table of producers.

    Attributes:
        claimant: its node and uuid.
        identity: the instance's, unique in its process.
        name: the instance's name.
        queue: which queue it serves.
        limit: most jobs that it runs at once.
        paused: whether it fetches nothing.
        running: how many jobs it has.

    """

    claimant: Claimant
    identity: str
    name: str
    queue: str
    limit: int
    paused: bool
    running: int


@dataclass(frozen=True, slots=True)
class TableClaim:
    """A row that is executing for one of our producers, as the table says.

    Attributes:
        uuid: the producer's.
        job_id: the job's.
        attempted_at: the fence.

    """

    uuid: str
    job_id: int
    attempted_at: datetime


@dataclass(frozen=True, slots=True)
class BeatReport:
    """What a beat learned.

    Attributes:
        claims: all rows that are executing for the producers that beat.
        busy: those of their queues that have available jobs.

    """

    claims: list[TableClaim]
    busy: frozenset[str]


@dataclass(frozen=True, slots=True)
class ChangedJob:
    """A job that a bulk call has changed.

    Attributes:
        id: the job's.
        queue: its queue.
        state: the one it had before.
        claimed_at: the fence of its latest claim, as `to_text` writes it; None for none.

    """

    id: int
    queue: str
    state: JobState
    claimed_at: str | None


class JobEngine(StagingEngine, CronEngine, PruneEngine, RescueEngine, Protocol):
    """A job store. Every method runs within the transaction of the connection it is given.

    `now` is a virtual clock's time; with None the database's clock decides.

    Attributes:
        table: the jobs, for statements of the host's.

    """

    table: Table

    def insert_jobs(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> list[Job]:
        """Insert jobs, thousands with one statement. Mirrors `Oban.Engine.insert_all_jobs/3`.

        `schedule_in` counts from the database's time; ids that jobs have already are ignored.

        Returns:
            Copies in the order given, with `id`, `inserted_at` and `scheduled_at`.

        """

    def insert_message(self, jobs: Sequence[Job]) -> InsertMessage | None:
        """Give how to insert such jobs by a message, None where `insert_jobs` is the only way.

        Args:
            jobs: a few; their meta may change until they are written.

        """

    def unique_insert(self, job: Job) -> UniqueInsert | None:
        """Give how to insert a unique job by a message, None where step by step is the only way.

        Args:
            job: its meta may change until it is written.

        """

    def lock_unique(
        self,
        connection: Connection,
        keys: Sequence[str],
        host_timeout: float | None,
        *,
        more: bool,
    ) -> None:
        """Keep others from inserting the same unique jobs until the transaction ends.

        What is looked for in a later statement is then found, whoever inserted it.

        Args:
            connection: to run on.
            keys: what the jobs are unique by.
            host_timeout: seconds to wait for others in a transaction of the host's, which is
                checked first; None in one of our own.
            more: whether others may follow in this transaction, whose keys nobody knows yet: all
                who insert unique jobs are kept out then, since no order of locks would hold.

        Raises:
            TransientError: others were in the way for too long.
            UnfitTransaction: the host's would not see what others have inserted.

        """

    def find_same(
        self, connection: Connection, jobs: Sequence[Job], now: datetime | None
    ) -> dict[int, int]:
        """Look for jobs that are the same as unique ones.

        Returns:
            By the place of each for which there is one, that one's id.

        """

    def read_jobs(
        self, connection: Connection, ids: Sequence[int], *, lock: bool
    ) -> dict[int, Job]:
        """Read those jobs that are there, by id, perhaps locking them against changes.

        Raises:
            InvalidJob: a row holds what no job can hold.

        """

    def replace_fields(
        self,
        connection: Connection,
        job_id: int,
        job: Job,
        fields: Sequence[str],
        now: datetime | None,
    ) -> None:
        """Write these fields of a job into the row of another one."""

    def get_job(self, connection: Connection, job_id: int) -> Job | None:
        """Read a job, None if there is none.

        Raises:
            InvalidJob: the row holds what no job can hold.

        """

    def claim_of(self, connection: Connection, job_id: int) -> tuple[str, str | None] | None:
        """Give a job's state and the fence of its latest claim as `to_text` writes it, if any."""

    def find_jobs(
        self, connection: Connection, chosen: Chosen, states: Sequence[JobState]
    ) -> list[int]:
        """Give the ids of the chosen jobs that are in one of these states, in one look.

        They go up. Nothing is locked.
        """

    def all_jobs(self, connection: Connection, chosen: Chosen) -> list[dict[str, Any]]:
        """Give the rows of the chosen jobs, by id unless another order was chosen.

        Mirrors `Oban.Engine.all_jobs/2`; `Job.from_row` reads them.
        """

    def cancel_jobs(
        self,
        connection: Connection,
        ids: Sequence[int],
        holding: Sequence[ColumnElement[bool]],
        now: datetime | None,
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        """Cancel those of these jobs that have not ended. Mirrors `cancel_all_jobs/2`.

        Rows are locked in the order of their ids, so that two calls can't lock each other out.

        Args:
            connection: to run on.
            ids: whose jobs, not very many at once.
            holding: conditions that have to hold of a row once it is locked.
            now: a virtual clock's time.
            wait: whether to wait for rows that others have locked, instead of leaving them out.

        Returns:
            those that were changed, with their states before.

        Raises:
            JobLocked: it waited for as long as it may.

        """

    def retry_jobs(
        self,
        connection: Connection,
        ids: Sequence[int],
        holding: Sequence[ColumnElement[bool]],
        now: datetime | None,
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        """Make those available that are not and don't run; see `cancel_jobs`.

        Each can be tried at least once more. Mirrors `Oban.Engine.retry_all_jobs/2`.
        """

    def delete_jobs(
        self,
        connection: Connection,
        ids: Sequence[int],
        holding: Sequence[ColumnElement[bool]],
        *,
        wait: bool,
    ) -> list[ChangedJob]:
        """Delete those that don't run; see `cancel_jobs`. Mirrors `delete_all_jobs/2`."""

    def lock_job(self, connection: Connection, job_id: int) -> Job | None:
        """Lock and read a job, None if there is none or somebody else has it locked.

        Raises:
            InvalidJob: the row holds what no job can hold.

        """

    def update_job(self, connection: Connection, job_id: int, values: dict[str, Any]) -> None:
        """Write these columns of a locked job. Mirrors `Oban.Engine.update_job/3`."""

    def turn_message(
        self,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
    ) -> TurnMessage | None:
        """Give a turn as a message, None where `take_turn` is the only way.

        Args:
            claimant: as in `take_turn`, and so are the others.
            queue: whose jobs.
            acks: what ended.
            limit: how many jobs to claim at most.
            now: a virtual clock's time.

        """

    def take_turn(
        self,
        connection: Connection,
        claimant: Claimant,
        queue: str,
        acks: Sequence[Ack],
        limit: int,
        now: datetime | None,
        *,
        careful: bool = False,
    ) -> Turn:
        """Write acknowledgements and claim jobs, in one statement where that is faster.

        Mirrors `fetch_jobs`, `complete_job`, `discard_job`, `error_job`, `snooze_job` and
        `cancel_job` of `Oban.Engine`. An acknowledgement counts only where the row is still
        `executing` with its `attempted_at` and this claimant (a killed one also where the row is
        `cancelled`); a row that shows its outcome already is settled. Jobs are claimed by
        priority, scheduled_at and id, locked ones passed over, none with all attempts used up.

        Args:
            connection: to run on.
            claimant: who acknowledges and claims.
            queue: whose jobs.
            acks: what ended; may be empty.
            limit: how many jobs to claim at most; may be 0.
            now: a virtual clock's time.
            careful: leave out acknowledgements whose row somebody has locked, as `blocked`,
                where it waits for them otherwise; costs a little more. Default False.

        """

    def complete_job(
        self,
        connection: Connection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        now: datetime | None,
    ) -> bool:
        """Complete a job that runs, in its worker's own transaction; False if the claim is gone."""

    def record_error(
        self,
        connection: Connection,
        claimant: Claimant,
        job_id: int,
        attempted_at: datetime,
        error: dict[str, Any],
    ) -> bool:
        """Append to a running job's errors, its state left alone; False if the claim is gone."""

    def release_jobs(
        self,
        connection: Connection,
        claimant: Claimant,
        queue: str,
        held: Sequence[int],
        now: datetime | None,
    ) -> list[int]:
        """Give back what is claimed in the table but held by nobody, its attempt too.

        Args:
            connection: to run on.
            claimant: whose claims.
            queue: the queue that they are of.
            held: ids that are held; all others of the claimant's are released.
            now: a virtual clock's time.

        Returns:
            the ids that are available again.

        """

    def claimed_ids(self, connection: Connection, claimant: Claimant, queue: str) -> list[int]:
        """List what the table shows as claimed by a claimant, of one queue."""

    def beat(
        self, connection: Connection, beats: Sequence[ProducerBeat], now: datetime | None
    ) -> BeatReport:
        """Show that producers live, all in one statement, and compare notes."""

    def forget_producer(self, connection: Connection, claimant: Claimant) -> None:
        """Remove a producer that has ended, unless the table says that it still has jobs."""

    def database_now(self, connection: Connection, now: datetime | None) -> datetime:
        """Read the database's clock, aware and in UTC; `now` stands in for it if given."""
