"""The supervisors of one instance: which actors it has, and in which order they start."""

import threading
from collections.abc import Sequence
from typing import Any

from oban_actors import telemetry
from oban_actors.actors import SYSTEM_CLOCK, ChildSpec, Reason, Supervisor
from oban_actors.config import Config
from oban_actors.estate import Estate
from oban_actors.health import health_spec
from oban_actors.inserting import Inserter
from oban_actors.notifiers import Publisher, notifier_spec
from oban_actors.peers import peer_spec
from oban_actors.plugins import Plugin, PluginContext
from oban_actors.pulse import LastBeat, Pulse
from oban_actors.queues.parts import Parts
from oban_actors.queues.supervisor import Queues
from oban_actors.stager import Stager

STOP_TIME = 80.0
"""Seconds beyond the grace period that an end may take in which the database is silent."""

PLUGIN_RESTARTS = 5
PLUGIN_SECONDS = 60.0

_AFTER_QUEUES = ("health", "notifier", "pulse")
"""Children that end after the queues have."""


class Instance(Supervisor):
    """The root of an instance's tree: its children stop in reverse order, the pulse later.

    First nothing new is staged, then leadership is resigned, then the queues drain, and the pulse
    ends after them; the Notifier, which all of them need, goes last. Mirrors `Oban`'s own
    supervisor.

    Args:
        children: in start order.
        config: the instance's options.
        estate: what its children work with; opened as the tree starts, closed as it ends.

    """

    def __init__(self, children: Sequence[ChildSpec], config: Config, estate: Estate) -> None:
        super().__init__(children, strategy="one_for_one", max_restarts=3, max_seconds=5.0)
        self.config = config
        self.estate = estate
        self._process.work_here = estate.workforce.job_here
        self._process.exit_time = config.shutdown_grace_period + STOP_TIME

    def init(self) -> None:
        """Check the tables, then start the children."""
        # Not before: whoever starts a tree that runs already gets this far not.
        self.estate.open(self._process)
        try:
            self.estate.repo.verify()
            super().init()
        except BaseException:
            self.estate.close(self._process)
            raise
        times = {"system_time": SYSTEM_CLOCK.system_time_ns()}
        about = {"conf": self.config, "pid": self.actor_ref}
        telemetry.execute("oban.supervisor.init", times, about)

    def terminate(self, reason: Reason) -> None:
        """End the children, then what they shared."""
        self._beat_until_drained()
        super().terminate(reason)
        self.estate.close(self._process)

    def on_kill(self) -> None:
        """Kill the children, then close what they shared: this one's thread may come to it late."""
        try:
            super().on_kill()
        finally:
            self.estate.close(self._process)

    def _beat_until_drained(self) -> None:
        # A node that shows no beat while its jobs end, however long they take, would be taken for
        # dead, and they would run twice. In reverse, what stands before the queues ends after them.
        after = {id_: child for id_, child in self._children.items() if id_ in _AFTER_QUEUES}
        self._children = after | self._children


def children(parts: Parts, publisher: Publisher, inserter: Inserter) -> list[ChildSpec]:
    """Describe an instance's children in start order.

    Args:
        parts: what they share.
        publisher: how notifications are written in a transaction.
        inserter: how plugins insert jobs.

    """
    config, repo, engine = parts.config, parts.repo, parts.engine
    rosters = parts.workforce.rosters
    # First to start and last to end, so that it answers meanwhile too.
    health = [] if config.health is None else [health_spec(config, repo, config.health)]
    specs: list[ChildSpec] = [
        *health,
        notifier_spec(config, repo),
        Queues.child_spec(parts, name="queues"),
        peer_spec(config, repo, publisher),
        Pulse.child_spec(
            config, repo, engine, publisher, rosters, LastBeat(), parts.announcer, name="pulse"
        ),
    ]
    if config.stager is not None:
        specs.append(
            Stager.child_spec(
                config, repo, engine, publisher, config.stager, threading.Event(), name="stager"
            )
        )
    if config.plugins:
        context = PluginContext(config, repo, engine, publisher, inserter)
        specs.append(
            Supervisor.child_spec(
                [_plugin_spec(plugin, context) for plugin in config.plugins],
                name="plugins",
                max_restarts=PLUGIN_RESTARTS,
                max_seconds=PLUGIN_SECONDS,
            )
        )
    return specs


def _plugin_spec(plugin: Any, context: PluginContext) -> ChildSpec:
    # Other than a plugin, an actor of the host's needs nothing of the instance's.
    spec: ChildSpec = (
        plugin.child_spec(context) if isinstance(plugin, Plugin) else plugin.child_spec()
    )
    return spec
