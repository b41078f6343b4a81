"""What the demo sees of its jobs: how late each was, how it ended, who was told."""

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from oban_actors import Job, Listen, Notification, Oban, telemetry
from oban_actors.actors import SYSTEM_CLOCK, GenServer
from oban_actors.engines import StagedJob

RECENT = 3

WORDS = {
    "failure": "failed and is tried again",
    "discard": "failed for good",
    "snoozed": "is snoozed",
    "cancelled": "is cancelled",
}

_STATES = sa.text("SELECT id, state FROM oban_jobs")
_COUNT = sa.text("SELECT queue, state, count(*) FROM oban_jobs GROUP BY queue, state")


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late jobs were, in milliseconds.

    Attributes:
        values: each job's, in ascending order.

    """

    values: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """Give the smallest value that so many percent of the jobs did not exceed."""
        return self.values[max(0, math.ceil(len(self.values) * percent / 100) - 1)]

    def __str__(self) -> str:
        if not self.values:
            return "none yet"
        return (
            f"p50 {self.percentile(50):.1f} ms  p99 {self.percentile(99):.1f} ms  "
            f"max {self.values[-1]:.1f} ms"
        )


class Watch:
    """Listens to telemetry, and counts the rows in the table.

    A job is late by the time from its `scheduled_at` to the moment at which it is available, as
    the Stager's pass tells when it is over, and to that at which its worker begins, counted for
    its first run. SQLite reads the clock of this machine, as we do here.

    Args:
        oban: the instance whose jobs are watched.

    """

    def __init__(self, oban: Oban) -> None:
        self.passes = 0
        self.runs: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.done = threading.Event()
        self._oban = oban
        self._lock = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._available_at: dict[int, datetime] = {}
        self._began_at: dict[int, datetime] = {}
        self._ended: Counter[int] = Counter()
        self._results: dict[int, object] = {}
        self._news: list[str] = []
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._began = SYSTEM_CLOCK.monotonic()
        self._tables = sa.create_engine(oban.repo.engine.url, poolclass=sa.NullPool)

    def expect(self, jobs: Iterable[Job]) -> None:
        """Watch these jobs, as they stand in the table."""
        with self._lock:
            self._jobs |= {job.id: job for job in jobs if job.id is not None}

    def __enter__(self) -> Self:
        events = [
            "oban.plugin.stop",
            "oban.job.start",
            "oban.job.stop",
            "oban.job.exception",
        ]
        telemetry.attach_many(self, events, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        telemetry.detach(self)
        self._tables.dispose()

    # What came of it

    @property
    def total(self) -> int:
        """How many jobs are watched."""
        return len(self._jobs)

    @property
    def last_due(self) -> datetime:
        """When the last of them is due."""
        return max(job.scheduled_at for job in self._jobs.values() if job.scheduled_at)

    def elapsed(self) -> float:
        """Seconds since the watch began."""
        return SYSTEM_CLOCK.monotonic() - self._began

    def lateness(self) -> Lateness:
        """How late those were that have begun."""
        return self._late(self._began_at)

    def staging(self) -> Lateness:
        """How late those were available that are."""
        return self._late(self._available_at)

    def _late(self, moments: Mapping[int, datetime]) -> Lateness:
        with self._lock:
            late = [
                (at - due).total_seconds()
                for id_, at in moments.items()
                if (due := self._jobs[id_].scheduled_at) is not None
            ]
        return Lateness(tuple(sorted(seconds * 1000 for seconds in late)))

    def ended_twice(self) -> int:
        """How many jobs met an end more than once, which none must."""
        with self._lock:
            return sum(count > 1 for count in self._ended.values())

    def results(self) -> dict[str, object]:
        """What the workers of completed jobs gave, by the path that each had."""
        with self._lock:
            return {self._jobs[id_].args["path"]: given for id_, given in self._results.items()}

    def unmet(self, expected: Callable[[Job], str]) -> list[Job]:
        """List the jobs that are not in the state that they should be in, as the table has it."""
        with self._tables.connect() as connection:
            found = dict(map(tuple, connection.execute(_STATES)))
        return [job for id_, job in self._jobs.items() if found.get(id_) != expected(job)]

    def states(self) -> dict[str, Counter[str]]:
        """Read from the table how many jobs of each queue are in which state."""
        found: dict[str, Counter[str]] = {}
        with self._tables.connect() as connection:
            for queue, state, count in connection.execute(_COUNT):
                found.setdefault(queue, Counter())[state] = count
        return dict(sorted(found.items(), key=lambda each: -each[1].total()))

    def recent_passes(self) -> Sequence[str]:
        """Describe the last passes that staged something, the newest last."""
        with self._lock:
            return list(self._recent)

    def news(self) -> Sequence[str]:
        """Give what else happened since the last call."""
        with self._lock:
            told, self._news = self._news, []
        return told

    def note(self, what: str) -> None:
        """Add to the news."""
        with self._lock:
            self._news.append(f"{self.elapsed():5.2f} s  {what}")

    # Hearing

    def _hear(
        self, event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        if metadata["conf"] is not self._oban.config:
            return
        if event == "oban.plugin.stop":
            self._pass_ended(measurements, metadata.get("staged_jobs", ()))
        elif event == "oban.job.start":
            with self._lock:
                self._began_at.setdefault(metadata["id"], SYSTEM_CLOCK.now())
        else:
            self._run_ended(metadata)

    def _run_ended(self, metadata: Mapping[str, Any]) -> None:
        state = metadata["state"]
        with self._lock:
            self.runs[state] += 1
            if state in ("success", "cancelled", "discard"):
                self._ended[metadata["id"]] += 1
            if state == "success":
                self._results[metadata["id"]] = metadata["result"]
            over = len(self._ended) == len(self._jobs)
        if state != "success":
            self.note(f"job {metadata['id']} {WORDS[state]}: {metadata['error'] or 'for a while'}")
        if over:
            self.done.set()

    def _pass_ended(self, measurements: Mapping[str, Any], staged: Sequence[StagedJob]) -> None:
        if not staged:
            return
        queues = ", ".join(sorted({job.queue for job in staged}))
        took, now = measurements["duration"] / 1e6, SYSTEM_CLOCK.now()
        with self._lock:
            self.passes += 1
            for job in staged:
                self._available_at.setdefault(job.id, now)
            self._recent.append(
                f"{self.elapsed():5.2f} s  staged {len(staged):>3} in {took:5.1f} ms  {queues}"
            )


class Ear(GenServer):
    """An actor of the host's, beside Oban: hears which queues are told that they have work.

    Args:
        oban: the instance to listen to.
        watch: whom to tell.

    """

    def __init__(self, oban: Oban, watch: Watch) -> None:
        super().__init__()
        self.oban = oban
        self.watch = watch

    def init(self) -> None:
        """Listen."""
        self.oban.ask("notifier", Listen(["insert"], self.actor_ref))

    def handle_info(self, message: Any) -> None:
        """Count."""
        if isinstance(message, Notification):
            self.watch.told[message.payload["queue"]] += 1


class NewsHandler(logging.Handler):
    """Makes what the tree logs part of the news, so that it does not tear the display."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.WARNING)
        self.watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        """Add it, without its traceback."""
        self.watch.note(f"{record.levelname.lower()}: {record.getMessage()}")
