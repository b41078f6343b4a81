"""Cron: inserts jobs when their expressions say so, each due minute's exactly once."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Self

from oban_actors.actors import ChildSpec
from oban_actors.messages import Evaluate, Notification, Reconnected
from oban_actors.notifiers import listen
from oban_actors.peers import Trouble
from oban_actors.plugins.actor import PluginActor
from oban_actors.plugins.cron_entry import MISSED, Entry, Missed
from oban_actors.plugins.cron_evaluator import Evaluator
from oban_actors.plugins.cron_steps import WATCH, Boot
from oban_actors.plugins.plugin import Duty, Plugin, PluginContext, PluginRun
from oban_actors.plugins.schedule import DEFAULT_ZONE, time_zone
from oban_actors.validation import OPTIONS

WATCH_BEATS = 2.5
"""Beats without which a node counts as dead."""

logger = logging.getLogger("oban_actors")


@dataclass(frozen=True)
class Cron(Plugin):
    """Inserts jobs at the minutes that cron expressions name.

    Every node with an entry looks after it, whoever leads: a run is claimed in the database by
    entry and due minute, in the transaction that inserts its job. So each due minute is inserted
    exactly once, however many nodes there are and whatever becomes of them. Told or asked
    `Evaluate()` it looks at once. Mirrors `Oban.Cron`.

    Attributes:
        crontab: entries `(expression, worker)` or `(expression, worker, options)`. The worker is
            a function or class with `@worker`, or its name; options: see `EntryOptions`.
        timezone: in which expressions are read, default `Etc/UTC`.
        missed: what becomes of runs that were due more than five minutes ago while no node was
            there to insert them: `once` (default) inserts the latest, unless the next one has
            been due too; `all` each of them, at most the latest 1,000; `skip` none.
        entries: the crontab, checked.

    Raises:
        ConfigError: an entry or option can't be used; it is named.

    """

    duty: ClassVar[Duty] = "own"
    message: ClassVar[type[Any]] = Evaluate
    nothing: ClassVar[Mapping[str, Any]] = MappingProxyType({"jobs": (), "inserted_count": 0})

    crontab: Sequence[Sequence[Any]] = ()
    timezone: str = DEFAULT_ZONE
    missed: Missed = "once"
    entries: tuple[Entry, ...] = field(default=(), init=False, repr=False)
    evaluator: Evaluator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check all of it, so that a mistake is known where it stands."""
        time_zone("cron.timezone", self.timezone)
        missed: Missed = OPTIONS.one_of("cron.missed", self.missed, MISSED)  # type: ignore[assignment]  # one of them
        given: Any = self.crontab
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            raise OPTIONS.refusal("cron.crontab", "a list of entries", given)
        entries = tuple(
            Entry.parse(f"cron.crontab[{index}]", each, self.timezone, missed)
            for index, each in enumerate(given)
        )
        keys = [entry.key for entry in entries]
        OPTIONS.unique("cron.crontab", keys, "entries, of which all but one need a name")
        self.keep(entries=entries, evaluator=Evaluator(entries, Boot()))
        self._warn()

    def _warn(self) -> None:
        # Once, here: an instance may be made of a plugin several times.
        for entry in self.entries:
            if entry.schedule.either:
                logger.warning(
                    "cron entry %r restricts both day of month and weekday: it is due where "
                    "either matches, as cron has it; for Oban both have to",
                    entry.key,
                )

    def fresh(self) -> Self:
        """Give one that begins anew, as an actor does."""
        made = copy.copy(self)
        made.keep(evaluator=Evaluator(self.entries, Boot()))
        return made

    def perform(self, run: PluginRun) -> Mapping[str, Any]:
        """Insert what is due.

        Returns:
            `jobs`: those that were inserted, or were there in the place of unique ones;
            `inserted_count`: how many of them are new.

        """
        jobs = self.evaluator.evaluate(run)
        return {"jobs": jobs, "inserted_count": sum(not job.conflict for job in jobs)}

    def next_delay(self, context: PluginContext) -> float:
        """Say when it looks next: when the next entry is due, or within an hour."""
        return self.evaluator.next_delay(context)

    def child_spec(self, context: PluginContext) -> ChildSpec:
        """Describe the actor that runs it; what is known of the boot outlives a crash of it."""
        signs = [context.config.pulse.interval]
        if context.config.peer is not None:
            signs.append(context.config.peer.renew)
        boot = Boot(max(WATCH, WATCH_BEATS * max(signs)))
        return CronActor.child_spec(self, context, boot, Trouble(), name=("plugin", self.id))


class CronActor(PluginActor):
    """Runs `Cron`: at its start, when an entry is due, and after each reconnect.

    Args:
        plugin: what is run.
        context: the instance's parts.
        boot: whether this node's start is that of all.
        trouble: see `PluginActor`.

    """

    def __init__(
        self, plugin: Cron, context: PluginContext, boot: Boot, trouble: Trouble | None = None
    ) -> None:
        super().__init__(plugin, context, trouble)
        self.boot = boot

    def handle_continue(self, arg: Any) -> None:
        """Listen first, then look."""
        super().handle_continue(arg)
        if isinstance(self.plugin, Cron):
            self.plugin.evaluator.boot = self.boot
        # For `Reconnected` alone, which all listeners get: where little else comes.
        listen(self, ["leader"])
        if not self._trouble.crashes:
            self.tell(self.actor_ref, Evaluate())

    def handle_info(self, message: Any) -> None:
        """Evaluate; also when the timer may have been stopped with the machine."""
        match message:
            case Reconnected():
                super().handle_info(Evaluate())
            case Notification():
                pass
            case _:
                super().handle_info(message)
