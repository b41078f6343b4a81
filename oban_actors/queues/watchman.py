"""Watchman: lets a queue's jobs end when the queue does."""

import logging
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import GenServer, Reason
from oban_actors.actors.clock import real_monotonic
from oban_actors.config import Config
from oban_actors.messages import CancelClaims, Shutdown
from oban_actors.queues.roster import Roster

logger = logging.getLogger("oban_actors")

CANCEL_TIME = 1.0
"""Seconds that jobs have to end in once they are told to, the grace period being over."""

SLACK = 2.0
"""Seconds beyond grace and cancelling within which it must have ended."""


class Watchman(GenServer):
    """The last of its queue to start and so the first to end: it waits for the jobs.

    Mirrors `Oban.Queue.Watchman`.

    Args:
        config: the instance's options; the grace period is its.
        roster: the queue's claims.

    """

    def __init__(self, config: Config, roster: Roster) -> None:
        super().__init__()
        self.config = config
        self.roster = roster

    def terminate(self, reason: Reason) -> None:
        """Wait for running jobs, then tell the rest to end, then name those that did not."""
        queue = self.roster.queue
        # Where somebody crashed, this one too, the queue does not end, but begins anew.
        if self.roster.shutdown_at is None or reason.abnormal:
            return
        if not all(self.whereis((part, queue)) for part in ("foreman", "producer")):
            return
        began = self.roster.begin_shutdown()
        self.tell(("producer", queue), Shutdown())
        until = began + self.config.shutdown_grace_period
        drained = self.roster.wait_drained(until, patient=False)
        if not drained:
            # With many queues most Producers have told theirs in time, while this one waited.
            untold = [each for each in self.roster.running() if not each.running.cancelled]
            self.tell(("foreman", queue), CancelClaims(untold, "shutdown"))
            since = real_monotonic() if untold else min(until, real_monotonic())
            self.roster.wait_drained(since + CANCEL_TIME)
        self._report(began, drained=drained)

    def _report(self, began: float, *, drained: bool) -> None:
        orphaned = sorted(claim.id for claim in self.roster.running())
        # Other queues may have kept it from its end since.
        elapsed = (self.roster.drained_at or real_monotonic()) - began
        if orphaned:
            logger.warning("queue %s ended with jobs that did not: %s", self.roster.queue, orphaned)
        about: dict[str, Any] = {
            "conf": self.config,
            "queue": self.roster.queue,
            "orphaned": orphaned,
        }
        telemetry.execute("oban.queue.shutdown", {"elapsed": round(elapsed * 1e9)}, about)
