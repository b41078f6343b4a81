"""Recorder: what telemetry tells, as counts and times."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

from oban_actors import telemetry
from oban_actors.job import Job
from oban_actors.metrics import catalogue
from oban_actors.metrics.catalogue import Metric
from oban_actors.metrics.labels import Labels
from oban_actors.stager import Stager

Tell = Callable[[Metric, float, tuple[str, ...]], object]
"""Adds to a counter, or observes in a histogram: how much, and the values of the labels."""

EVENTS = (
    "oban.job.stop",
    "oban.job.exception",
    "oban.job.stale",
    "oban.engine.insert_job.stop",
    "oban.engine.insert_all_jobs.stop",
    "oban.plugin.stop",
    "oban.peer.election.stop",
)


class Recorder:
    """Hears what happens in the trees of this program, and tells it as metrics.

    Args:
        tell: takes each figure, in any thread.
        name: of the only instance to be heard; None: all.

    Attributes:
        leads: by an instance's identity, whether it led when it said so last.

    """

    def __init__(self, tell: Tell, name: str | None = None) -> None:
        self.labels = Labels()
        self.leads: dict[str, bool] = {}
        self._tell = tell
        self._name = name
        self._id = f"oban_actors.metrics-{uuid4()}"

    def attach(self) -> None:
        """Hear from now on."""
        telemetry.attach_many(self._id, EVENTS, self.handle)

    def detach(self) -> None:
        """Hear no more."""
        telemetry.detach(self._id)

    def handle(
        self, event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Take one event; telemetry's handler."""
        config = metadata["conf"]
        if self._name not in (None, config.name):
            return
        match event.split(".")[1]:
            case "job":
                self._ran(event, measurements, metadata)
            case "engine":
                found = metadata["jobs"] if "jobs" in metadata else [metadata["job"]]
                self._inserted(config.name, found)
            case "plugin":
                self._passed(config.name, measurements, metadata)
            case "peer":
                self._elected(config, metadata)

    def _ran(
        self, event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        name, job = metadata["conf"].name, metadata["job"]
        place = (name, self.labels.queue(job.queue), self.labels.worker(job.worker))
        state = "stale" if event.endswith(".stale") else metadata["state"]
        self._tell(catalogue.JOBS, 1, (*place, state))
        self._tell(catalogue.DURATION, measurements["duration"] / 1e9, place)
        waited = max(measurements["queue_time"], 0)
        self._tell(catalogue.QUEUE_TIME, waited / 1e9, place)

    def _inserted(self, name: str, jobs: Iterable[Job]) -> None:
        counts: dict[tuple[str, str], int] = {}
        for job in jobs:
            if not job.conflict:
                place = (self.labels.queue(job.queue), self.labels.worker(job.worker))
                counts[place] = counts.get(place, 0) + 1
        for place, count in counts.items():
            self._tell(catalogue.INSERTED, count, (name, *place))

    def _passed(
        self, name: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        plugin = metadata["plugin"]
        if metadata.get("error") is not None:
            self._tell(catalogue.FAILURES, 1, (name, plugin.__name__))
        if plugin is Stager and metadata.get("leader"):
            self._tell(catalogue.STAGING, measurements["duration"] / 1e9, (name,))
            self._tell(catalogue.STAGED, metadata.get("staged_count", 0), (name,))

    def _elected(self, config: Any, metadata: Mapping[str, Any]) -> None:
        leads = bool(metadata.get("leader"))
        if leads != bool(metadata.get("was_leader")):
            self._tell(catalogue.CHANGES, 1, (config.name,))
        self.leads[config.identity] = leads
