"""A claim: one job while this node has it, from its fetch to its acknowledgement."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

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
        delay: seconds until it is due again, for retryable and scheduled.
        killed: it was cancelled by somebody while it ran, so its row may be cancelled already.

    """

    job_id: int
    attempted_at: datetime
    state: JobState
    error: dict[str, Any] | None = None
    delay: float = 0.0
    killed: bool = False


class Claim:
    """One claimed job, and what became of it.

    Attributes:
        job: the job as it was fetched; its `running` is this run.
        worker: what runs it; None where no worker of its name is registered.
        attempted_at: the fence.
        running: shared with the job.
        ack: what is to be written; None while it runs.
        verdict: how it ended; None while it runs.
        result: what the worker returned, or the cause given with a Cancel or Snooze.
        error: what it raised, or an error that stands for what went wrong; None for none.
        started_ns: when it began, monotonic.
        duration_ns: how long it took.
        thread: which thread runs it, None before it begins.
        stuck: it ran out of its time and its thread goes on.
        handed: it was given to those who run it.
        recorded: its time-out stands among the row's errors already.

    """

    __slots__ = (
        "ack",
        "attempted_at",
        "duration_ns",
        "error",
        "handed",
        "job",
        "recorded",
        "result",
        "running",
        "started_ns",
        "stuck",
        "thread",
        "verdict",
        "worker",
    )

    def __init__(self, job: Job, worker: Any, running: Running) -> None:
        self.job = job
        self.worker = worker
        self.running = running
        self.attempted_at: datetime = job.attempted_at  # type: ignore[assignment]  # claimed
        self.ack: Ack | None = None
        self.verdict: Verdict | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.started_ns = 0
        self.duration_ns = 0
        self.thread: int | None = None
        self.stuck = False
        self.handed = False
        self.recorded = False

    @property
    def id(self) -> int:
        """The job's id."""
        return self.job.id or 0

    def __repr__(self) -> str:
        return f"<Claim {self.job!r} {self.verdict or 'running'}>"
