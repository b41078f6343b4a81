"""Lifeline: rescues the jobs of nodes that have died, by their beats and not by age."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

from oban_actors.actors import ActorError, ChildSpec
from oban_actors.carrying import Carried, Carry, Work
from oban_actors.config import Config
from oban_actors.messages import GetLeader, Rescue
from oban_actors.options import Seconds
from oban_actors.peers import Trouble
from oban_actors.peers.identity import owner
from oban_actors.plugins.actor import PluginActor
from oban_actors.plugins.plugin import Duty, Plugin, PluginContext, PluginResult, PluginRun
from oban_actors.plugins.rescuing import Rescuer, Terms
from oban_actors.plugins.watch import Watch
from oban_actors.validation import OPTIONS

logger = logging.getLogger("oban_actors")

BEATS = 6
"""Beats, at least, that a node must have been able to miss before it is taken for dead."""

LOOKS = 4
"""Looks, at least, in the time of a watch."""

PATIENCE = 1.25
"""Intervals after which it looks by itself, if no beat has brought a look."""

FIRST_DELAY = 1.0
"""Seconds, at most, until the first look: what a watch lasts begins with it."""


@dataclass(frozen=True, kw_only=True)
class Lifeline(Plugin):
    """Makes jobs available again whose node has died while it ran them.

    Every node looks at the producers' beats. One whose beat this node has itself seen unchanged, or
    absent, for a whole watch of unbroken contact with the database is dead: its jobs are available
    again, their attempts kept, or discarded where no attempt is left. The leader goes first, the
    others an interval later. Claims of nodes that don't beat, Elixir's, are given up by age. Jobs
    that wait with no attempt left, which no fetch takes, are discarded. Told or asked `Rescue()` it
    looks at once. Mirrors `Oban.Lifeline`, which goes by age alone.

    Its looks are part of the node's own beats, and transactions of their own where beats are rarer
    or don't come.

    Attributes:
        interval: seconds between two looks, default 10; at most a quarter of `watch`.
        rescue_after: seconds after which claims are given up whose nodes don't beat, default 3600.
        watch: seconds without a beat after which a node is dead, default 60; at least six times
            the `pulse.interval` of any node.
        limit: most jobs that one transaction changes, default 1,000.

    """

    duty: ClassVar[Duty] = "own"
    message: ClassVar[type[Any]] = Rescue
    nothing: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"rescued_count": 0, "rescued_jobs": (), "discarded_count": 0, "discarded_jobs": ()}
    )

    interval: Seconds = 10.0  # type: ignore[assignment]  # seconds once it was checked
    rescue_after: Seconds = 3600.0
    watch: Seconds = 60.0
    limit: int = 1_000
    _rescuer: Rescuer | None = field(default=None, init=False, repr=False, compare=False)

    def validate(self) -> None:
        """Check the options.

        Raises:
            ConfigError: one can't be used.

        """
        interval = OPTIONS.seconds("interval", self.interval)
        watch = OPTIONS.seconds("watch", self.watch)
        if interval * LOOKS > watch:
            most = f"at most a quarter of 'watch', {watch / LOOKS:g} seconds"
            raise OPTIONS.refusal("interval", most, self.interval)
        self.keep(
            interval=interval,
            rescue_after=OPTIONS.seconds("rescue_after", self.rescue_after),
            watch=watch,
            limit=OPTIONS.integer("limit", self.limit, low=1),
        )

    def validate_in(self, config: Config) -> None:
        """Check the watch beside the instance's own beats.

        Raises:
            ConfigError: a node that lives could be taken for dead.

        """
        beat = config.pulse.interval
        if float(self.watch) < BEATS * beat:  # type: ignore[arg-type]  # checked
            least = f"at least six times 'pulse.interval', {BEATS * beat:g} seconds"
            raise OPTIONS.refusal("watch", least, self.watch)

    def fresh(self) -> "Lifeline":
        """Give one that has seen nothing yet, as an actor does: its watch is its own."""
        fresh = replace(self)
        fresh.keep(_rescuer=fresh._make())
        return fresh

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Look, and rescue.

        Returns:
            `rescued_count`, `rescued_jobs`, `discarded_count` and `discarded_jobs`, each job with
            `id`, `queue` and its former `state`; and where there are some `failed`, the uuids of
            producers whose jobs could not be rescued this time.

        """
        return self.rescuer.perform(run)

    def next_delay(self, context: PluginContext) -> float:
        """Say when it looks next: at once while there is more to do, in time for the next death."""
        interval = float(self.interval)  # type: ignore[arg-type]  # checked
        rescuer = self._rescuer
        if rescuer is None or not rescuer.looked:
            return min(interval, FIRST_DELAY)
        if rescuer.more:
            return 0.0
        due = rescuer.watch.due_in(context.config.clock.boottime(), rescuer.lag)
        return interval if due is None else min(interval, due + interval / 1000)

    def child_spec(self, context: PluginContext) -> ChildSpec:
        """Describe the actor that runs it."""
        return LifelineActor.child_spec(self, context, Trouble(), name=("plugin", self.id))

    @property
    def rescuer(self) -> Rescuer:
        """What it remembers."""
        if self._rescuer is None:
            self.keep(_rescuer=self._make())
        assert self._rescuer is not None  # noqa: S101 (for the type checker)
        return self._rescuer

    def _make(self) -> Rescuer:
        terms = Terms(
            interval=float(self.interval),  # type: ignore[arg-type]  # checked
            rescue_after=float(self.rescue_after),  # type: ignore[arg-type]  # checked
            limit=self.limit,
        )
        return Rescuer(terms, Watch(float(self.watch)))  # type: ignore[arg-type]  # checked


class LifelineActor(PluginActor):
    """Runs `Lifeline`: with the beats of this node, and by itself when they don't come.

    Args:
        plugin: what is run.
        context: the instance's parts.
        trouble: see `PluginActor`.

    """

    plugin: Lifeline

    def __init__(
        self, plugin: Lifeline, context: PluginContext, trouble: Trouble | None = None
    ) -> None:
        super().__init__(plugin, context, trouble)
        self._asked: Work | None = None

    def handle_info(self, message: Any) -> None:
        """Take a look that a beat has brought; an older one than was asked for last is no use."""
        if not isinstance(message, Carried):
            super().handle_info(message)
        elif message.work is self._asked:
            self.plugin.rescuer.carried = message
            super().handle_info(Rescue())

    def _leads(self) -> bool:
        leads = super()._leads()
        # Who leads goes first, if it is one of ours: an Elixir leader knows of no beats.
        self.plugin.rescuer.first = leads or not self._python_leads()
        return leads

    def _python_leads(self) -> bool:
        try:
            holder = self.ask("peer", GetLeader())
        except ActorError as error:
            logger.debug("no answer from the peer, so that nobody is known to lead: %s", error)
            return False
        return isinstance(holder, str) and owner(holder) is not None

    def _next_delay(self, result: PluginResult) -> float:
        delay, interval = super()._next_delay(result), float(self.plugin.interval)  # type: ignore[arg-type]  # checked
        self._asked = None
        if delay < interval or self.context.config.pulse.interval > interval:
            return delay
        self._asked = self.plugin.rescuer.looking(self.context)
        self.tell("pulse", Carry(self._asked, self.actor_ref))
        return interval * PATIENCE
