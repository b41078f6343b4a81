"""PluginActor: runs a plugin when it is time, or when it is told to."""

import logging
import math
import threading
from collections.abc import Mapping
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import ActorError, Continue, GenServer, Reason, Sender, Timer
from oban_actors.errors import DatabaseError
from oban_actors.messages import IsLeader
from oban_actors.peers import Trouble, is_own, let_another_lead
from oban_actors.plugins.plugin import (
    LeadershipLost,
    Plugin,
    PluginContext,
    PluginResult,
    PluginRun,
)
from oban_actors.validation import shown

logger = logging.getLogger("oban_actors")

FAILED_DELAY = 1.0
"""Seconds until another try after the database failed; doubled each time."""


CRASHED_DELAY = 15.0
CRASHED_MOST = 300.0
"""Seconds until the first run after one that crashed; doubled each time, and at most.

One that crashes in each run would else take all other plugins with it, again and again, as their
supervisor gives up.
"""


class PluginActor(GenServer):
    """Runs a plugin; see `Plugin` for how.

    Args:
        plugin: what is run.
        context: the instance's parts.
        trouble: what it has come to on this node, also under other actors before it.

    """

    def __init__(
        self, plugin: Plugin, context: PluginContext, trouble: Trouble | None = None
    ) -> None:
        super().__init__()
        self.plugin = plugin
        self.context = context
        self._trouble = Trouble() if trouble is None else trouble
        self._timer: Timer | None = None
        self._failures = 0
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Put the first run off, so that a slow database delays nobody's start."""
        self._thread = threading.get_ident()
        self.plugin = self.plugin.fresh()
        return Continue()

    def handle_continue(self, arg: Any) -> None:
        """Arm the timer: the first run comes after one interval, after a crash rather later."""
        telemetry.execute("oban.plugin.init", {}, self._about())
        self._arm(self._first_delay())

    def handle_info(self, message: Any) -> None:
        """Run, and arm the timer for the next run."""
        if not isinstance(message, self.plugin.message):
            super().handle_info(message)
            return
        _, delay = self.run()
        # Not before: a run that takes longer than the delay would leave ever more messages behind.
        self._arm(delay)

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Run once and answer with the `PluginResult`."""
        if not isinstance(message, self.plugin.message):
            return super().handle_call(message, sender)
        result, delay = self.run()
        self._arm_sooner(delay)
        return result

    def terminate(self, reason: Reason) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.context.repo.cancel(self._thread)

    # A run

    def run(self) -> tuple[PluginResult, float]:
        """Do one run in its span, and find out in how many seconds the next one comes."""
        leads = self._leads()
        with telemetry.span("oban.plugin", self._about()) as event:
            try:
                result = self._run(leader=leads)
                event.set(**{**self.plugin.nothing, **result.extra, "leader": result.leader})
                if result.error is not None:
                    event.set(error=result.error)
                self._note(result.error)
                delay = self._next_delay(result)
            except Exception as error:
                self._trouble.crashes += 1
                self._fail(error, leader=leads)
                raise
        if result.error is None and not self._idle(result):
            self._trouble.worked()
        return result, delay

    def _run(self, *, leader: bool) -> PluginResult:
        if self.plugin.duty == "shared" and not leader:
            return PluginResult(leader=False)
        try:
            run = PluginRun(self.context, self.plugin.duty, leader)
            extra = _told(self.plugin, self.plugin.perform(run))
        except LeadershipLost:
            return PluginResult(leader=False)
        except DatabaseError as error:
            if is_own(error):
                self._fail(error, leader=leader)
            return PluginResult(leader, error=error)
        return PluginResult(leader, extra)

    def _fail(self, error: Exception, *, leader: bool) -> None:
        """Take it that another node may fare better; after some times let one lead."""
        if self.plugin.duty == "shared" and leader and self._trouble.failed():
            let_another_lead(self, self.plugin.id, error)

    def _leads(self) -> bool:
        try:
            return self.ask("peer", IsLeader()) is True
        except ActorError as error:
            logger.debug("no answer from the peer, so no leader: %s", error)
            return False

    def _idle(self, result: PluginResult) -> bool:
        return self.plugin.duty == "shared" and not result.leader

    def _first_delay(self) -> float:
        crashes = self._trouble.crashes
        later = min(CRASHED_DELAY * 2.0 ** min(crashes - 1, 16), CRASHED_MOST) if crashes else 0.0
        if self._trouble.undated:
            # It would crash again, at once.
            return later
        try:
            return max(self._delay(), later)
        except Exception:
            self._trouble.crashes += 1
            raise

    def _delay(self) -> float:
        """Ask the plugin; whether it could say outlives this actor."""
        self._trouble.undated = True
        delay = _seconds(self.plugin, self.plugin.next_delay(self.context))
        self._trouble.undated = False
        return delay

    def _next_delay(self, result: PluginResult) -> float:
        delay = self._delay()
        if self._failures:
            backoff = FAILED_DELAY * 2.0 ** min(self._failures - 1, 16)
            return min(delay, backoff) if delay else backoff
        # At once is for whoever does something.
        return self.plugin.interval if self._idle(result) and not delay else delay

    def _arm_sooner(self, seconds: float) -> None:
        due = self.runtime.clock.monotonic() + seconds
        if self._timer is None or not self._timer.live or due < self._timer.due:
            self._arm(seconds)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.send_after(self.plugin.message(), seconds)

    def _about(self) -> dict[str, Any]:
        return {"conf": self.context.config, "plugin": type(self.plugin)}

    def _note(self, error: DatabaseError | None) -> None:
        if error is not None and not self._failures:
            logger.warning("%s failed and will be tried again: %s", self.plugin.id, error)
        elif error is None and self._failures:
            logger.info("%s works again", self.plugin.id)
        self._failures = 0 if error is None else self._failures + 1


def _seconds(plugin: Plugin, returned: object) -> float:
    """Check what `next_delay` returned, of which a timer's own error would not tell."""
    if isinstance(returned, int) or (isinstance(returned, float) and not math.isnan(returned)):
        return returned
    raise TypeError(
        f"{type(plugin).__name__}.next_delay: expected seconds, as a number, got: {shown(returned)}"
    )


def _told(plugin: Plugin, returned: object) -> Mapping[str, Any]:
    """Check what `perform` returned, which Python's own error would not name."""
    if returned is None:
        return {}
    if isinstance(returned, Mapping) and all(isinstance(key, str) for key in returned):
        return returned
    raise TypeError(
        f"{type(plugin).__name__}.perform: expected a mapping of names to what is to be said of "
        f"the run, or None, got: {shown(returned)}"
    )
