"""A claim: one job while this node has it, from its fetch to its acknowledgement."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, Self

from oban_actors.job import Job, JobState
from oban_actors.running import Running

Verdict = Literal["success", "snoozed", "cancelled", "discard", "failure"]
"""How a run ended, by the names that Oban's telemetry has for it."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who has a job: what stands in its `attempted_by`.

    Attributes:
        node: the node's name.
        uuid: the producer's identity, of our own uuid version.

    """

    node: str
    uuid: str


@dataclass(slots=True)
class Ack:
    """What is to be written when a run has ended.

    It counts only for the claim it belongs to: the row must still be `executing` with this
    `attempted_at` and this claimant's `attempted_by`.

    Attributes:
        job_id: the job's.
        attempted_at: when it was claimed, as the database wrote it: the fence.
        state: what it becomes: completed, cancelled, discarded, retryable or scheduled (snoozed).
        error: an element for the row's `errors`, None for none.
        delay: seconds until it is due again, for retryable and scheduled; for discarded, should
            its row have an attempt left all the same.
        killed: it ends cancelled, and somebody may have cancelled its row while it ran: the error
            is added all the same.
        completed: its worker completed it in a transaction of its own, so its row may be completed
            already, and this counts only where that was not committed.

    """

    job_id: int
    attempted_at: datetime
    state: JobState
    error: dict[str, Any] | None = None
    delay: float = 0.0
    killed: bool = False
    completed: bool = False


class Source(Protocol):
    """Where the jobs of claimed rows come from."""

    def read(self, row: Any) -> Job:
        """Make a job of a row.

        Raises:
            UnreadableRow: it holds what no job can hold.

        """


class _Read:
    def read(self, row: Any) -> Job:
        job: Job = row
        return job


_READ = _Read()


class Claim:
    """One claimed job, and what became of it.

    A fetch brings rows, and each is read by whoever runs its job (`open`): so the next statement
    does not wait for that, and what is in line weighs little.

    Args:
        job_id: the job's.
        attempted_at: the fence.
        worker: what runs it; None where no worker of its name is registered.
        running: its run, shared with the job.
        source: reads the row.
        row: what was fetched.

    Attributes:
        id: the job's; `worker`, `attempted_at` and `running` as given.
        attempt: as the row says, whatever the worker makes of its job; 0 before it was read.
        max_attempts: likewise, one more than `attempt` before.
        scheduled_at: likewise, None before.
        ack: what is to be written; None while it runs.
        verdict: how it ended; None while it runs.
        result: what the worker returned, or the cause given with a Cancel or Snooze.
        error: what it raised, or an error that stands for what went wrong; None for none.
        started_ns: when it began, monotonic.
        duration_ns: how long it took.
        thread: which thread of this process runs it, None before it begins.
        stuck: it ran out of its time and its thread goes on.
        lost: others may run its job, now or soon.
        aborted: its process was killed here.
        handed: it was given to those who run it.
        recorded: its time-out stands among the row's errors already.
        overdue: the element that says so there, None before it was made.

    """

    __slots__ = (
        "_job",
        "_row",
        "_source",
        "aborted",
        "ack",
        "attempt",
        "attempted_at",
        "duration_ns",
        "error",
        "handed",
        "id",
        "lost",
        "max_attempts",
        "overdue",
        "recorded",
        "result",
        "running",
        "scheduled_at",
        "started_ns",
        "stuck",
        "thread",
        "verdict",
        "worker",
    )

    def __init__(
        self,
        job_id: int,
        attempted_at: datetime,
        worker: Any,
        running: Running,
        source: Source,
        row: Any,
    ) -> None:
        self.id = job_id
        self.attempted_at = attempted_at
        self.worker = worker
        self.running = running
        self.attempt = 0
        self.max_attempts = 1
        self.scheduled_at: datetime | None = None
        self._job: Job | None = None
        self._source: Source | None = source
        self._row = row
        self.ack: Ack | None = None
        self.verdict: Verdict | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.started_ns = 0
        self.duration_ns = 0
        self.thread: int | None = None
        self.stuck = False
        self.lost = False
        self.aborted = False
        self.handed = False
        self.recorded = False
        self.overdue: dict[str, Any] | None = None

    @classmethod
    def of(cls, job: Job, worker: Any, running: Running) -> Self:
        """Make one of a job that is there already.

        Args:
            job: claimed, with its id and `attempted_at`.
            worker: what runs it, None for nobody.
            running: its run.

        """
        claim = cls(job.id or 0, job.attempted_at, worker, running, _READ, job)  # type: ignore[arg-type]  # it is claimed
        claim.open()
        return claim

    @property
    def job(self) -> Job:
        """The job as it was fetched; its `running` is this run.

        Raises:
            LookupError: it is not there yet, or no longer.

        """
        if self._job is None:
            raise LookupError(f"job {self.id} has not been read, or is not kept any more")
        return self._job

    def open(self) -> Job:
        """Read the job for its run, if nobody has.

        Raises:
            UnreadableRow: it holds what no job can hold.

        """
        if self._job is None and self._source is not None:
            self.stand_in(self._source.read(self._row))
        return self.job

    def acknowledge(
        self,
        state: JobState,
        error: dict[str, Any] | None = None,
        *,
        delay: float = 0.0,
        killed: bool = False,
    ) -> None:
        """Note what is to be written, now that its run has ended; see `Ack`."""
        own = self.running.completed
        self.ack = Ack(
            self.id, self.attempted_at, state, error, delay, killed=killed, completed=own
        )

    def stand_in(self, job: Job) -> None:
        """Take a job in place of the one that can't be read."""
        self._job, self._source, self._row = job, None, None
        self.attempt, self.max_attempts = job.attempt, job.max_attempts
        self.scheduled_at = job.scheduled_at

    def forget(self) -> None:
        """Keep the job no longer: nobody wants to hear how it ended."""
        self._job = None

    @property
    def forgotten(self) -> bool:
        """Whether its job is not kept any more."""
        return self._job is None and self._source is None

    def __repr__(self) -> str:
        return f"<Claim {self._job or self.id} {self.verdict or 'running'}>"
