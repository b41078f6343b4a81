"""Every metric there is: its name, its unit, its labels."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "histogram", "gauge", "total"]
"""`counter` and `histogram` are told as it happens; `gauge` and `total` are read when asked for."""

SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds of the histograms' buckets, in seconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: with dots, as OpenTelemetry has it; with underscores, as Prometheus has it, where
            the unit is added to it.
        kind: what it is.
        about: what it says.
        labels: besides `oban`, the instance's name.
        unit: as UCUM has it; empty for a count.

    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels, that of the instance first."""
        return ("oban", *self.labels)


JOBS = Metric("oban.jobs", "counter", "Runs that ended", ("queue", "worker", "state"))
DURATION = Metric(
    "oban.job.duration", "histogram", "How long runs took", ("queue", "worker"), unit="s"
)
QUEUE_TIME = Metric(
    "oban.job.queue_time",
    "histogram",
    "How long jobs waited from when they were due until they were claimed",
    ("queue", "worker"),
    unit="s",
)
INSERTED = Metric("oban.jobs.inserted", "counter", "Jobs inserted", ("queue", "worker"))
STAGED = Metric("oban.jobs.staged", "counter", "Due jobs made available by this node")
STAGING = Metric(
    "oban.staging.duration",
    "histogram",
    "How long this node's passes of staging took while it led",
    unit="s",
)
FAILURES = Metric(
    "oban.plugin.failures", "counter", "Runs of a plugin that the database failed", ("plugin",)
)
CHANGES = Metric(
    "oban.leader.changes", "counter", "How often this node became leader, or ceased to be"
)
LEADER = Metric("oban.leader", "gauge", "Whether this node leads: 1 or 0")
AGE = Metric(
    "oban.queue.age", "gauge", "For how long the oldest available job waits", ("queue",), unit="s"
)
INBOX = Metric("oban.actor.inbox", "gauge", "Messages that wait for an actor", ("actor",))
OLDEST = Metric(
    "oban.actor.oldest_message",
    "gauge",
    "For how long an actor's oldest message waits",
    ("actor",),
    unit="s",
)
RESTARTS = Metric("oban.actor.restarts", "total", "Restarts of an actor after a crash", ("actor",))
ABANDONED = Metric(
    "oban.actors.abandoned", "gauge", "Actors that would not end and were left to themselves"
)

TOLD = (JOBS, DURATION, QUEUE_TIME, INSERTED, STAGED, STAGING, FAILURES, CHANGES)
READ = (LEADER, AGE, INBOX, OLDEST, RESTARTS, ABANDONED)
