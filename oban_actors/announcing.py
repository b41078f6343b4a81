"""Telling whoever waits for jobs, in the transaction that made or changed them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from oban_actors.claim import Ack
from oban_actors.config import Config
from oban_actors.engines.staging import LONGEST_QUEUE
from oban_actors.job import Job, JobState
from oban_actors.notifiers import Publisher
from oban_actors.notifiers.wire import seconds_of

AHEAD = 60.0
"""Seconds ahead for which the leader is told of a job, where its interval is not known."""

_PUT_OFF = frozenset({JobState.SCHEDULED, JobState.RETRYABLE})


class Announcer:
    """Notifies queues of jobs that can run, and the leader of those that soon can.

    The leader has to be told of what is due within its own interval, which need not be this
    node's. Whoever hears its beats tells so by `hear`; without that a minute is taken.

    Args:
        config: the instance's options.
        publisher: how notifications are written in a transaction.

    Attributes:
        interval: the leader's, in seconds; None while it is not known.

    """

    def __init__(self, config: Config, publisher: Publisher) -> None:
        self.config = config
        self.publisher = publisher
        self._leader: str | None = None
        self.interval: float | None = None

    def hear(self, payload: Mapping[str, Any]) -> None:
        """Learn the leader's interval from what came on the channel `actors`."""
        node, seconds = payload.get("beat"), seconds_of(payload, "next")
        if payload.get("name") != self.config.name or not isinstance(node, str):
            return
        if node != self._leader:
            self._leader, self.interval = node, None
        # Its Peer beats too, more often, where that renews the lease; the Stager once an interval.
        if "renewed" not in payload and seconds is not None:
            self.interval = seconds

    def forget(self) -> None:
        """Take it that beats were missed: somebody else may lead."""
        self._leader = self.interval = None

    def announce(self, connection: sa.Connection, jobs: Sequence[Job]) -> None:
        """Tell of jobs that were just inserted, as their rows stand."""
        self.wake(connection, (job.queue for job in jobs if job.state == JobState.AVAILABLE))
        self.announce_due(connection, jobs)

    def announce_due(self, connection: sa.Connection, jobs: Sequence[Job]) -> None:
        """Tell the leader of the first of them that is put off and soon due."""
        moments = (self.moment_ahead(job, job.inserted_at) for job in jobs)
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is not None:
            self.tell_due(connection, due)

    def wake(self, connection: sa.Connection, queues: Iterable[object]) -> None:
        """Tell queues that they have work, each one once."""
        # Another program may have written what is no queue's name, and nobody waits for that.
        named = (
            queue
            for queue in dict.fromkeys(queues)
            if isinstance(queue, str) and len(queue) <= LONGEST_QUEUE
        )
        payloads = [{"queue": queue} for queue in named]
        if payloads:
            self.publisher.publish(connection, "insert", payloads)

    def tell_due(self, connection: sa.Connection, due: datetime) -> None:
        """Tell the leader when a job is due, so that it looks in time."""
        moment = due.astimezone(UTC).isoformat(timespec="microseconds")
        payload = {"name": self.config.name, "due": moment.replace("+00:00", "Z")}
        self.publisher.publish(connection, "actors", [payload])

    def moment_ahead(self, job: Job, now: datetime | None) -> datetime | None:
        """Give when a job is due, if the leader has to be told; its passes find later ones.

        Args:
            job: as its row stands.
            now: the database's time.

        """
        if job.state not in _PUT_OFF:
            return None
        if job.scheduled_at is None or now is None:
            return None
        soon = (job.scheduled_at - now).total_seconds() <= self._horizon
        return job.scheduled_at if soon else None

    def delay_ahead(self, acks: Iterable[Ack]) -> float | None:
        """Give seconds until the first of some put off jobs is due, if the leader has to be told.

        Args:
            acks: what was written; a snoozed or failed job is put off.

        """
        delays = (max(0.0, ack.delay) for ack in acks if ack.state in _PUT_OFF)
        soonest = min(delays, default=None)
        return None if soonest is None or soonest > self._horizon else soonest

    @property
    def _horizon(self) -> float:
        own = self.config.stager.interval if self.config.stager else 0.0
        peer = self.config.peer
        if own and peer is not None and peer.kind != "database" and peer.leader:
            # It leads itself, and nobody beats.
            return own
        return max(own, AHEAD if self.interval is None else self.interval)
