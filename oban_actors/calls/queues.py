"""The calls that steer queues: of this node, of another one, or of the whole cluster."""

import logging
from typing import Any, cast

from oban_actors.actors import ActorError, NoProcess
from oban_actors.calls.base import Calls
from oban_actors.config_options import node as node_name
from oban_actors.config_options import positive, queue, queue_name
from oban_actors.errors import ConfigError
from oban_actors.messages import Check, Listen, QueueView, StartQueue
from oban_actors.validation import OPTIONS, shown

logger = logging.getLogger("oban_actors")

ALL = "*"
_HERE_ONLY = ("executor", "dispatch_cooldown")

LISTEN_TIME = 2.0
"""Seconds that a signal waits for this node to listen to signals."""


class QueueCalls(Calls):
    """Pause, resume, scale, start, stop and look at queues.

    But for looking they are signals, sent through the database: every node of the cluster that
    runs such a queue follows. Their effect lasts until the node starts anew.
    """

    def pause_queue(self, queue: str, *, local_only: bool = False, node: str | None = None) -> None:
        """Fetch no more of a queue's jobs; those that run go on. Mirrors `Oban.pause_queue/2`.

        Args:
            queue: its name; `*` is all.
            local_only: whether only this node does so.
            node: the node that does so; all by default.

        Raises:
            ConfigError: the name or the node is none, or both a node and `local_only` are given.
            DatabaseError: the signal could not be sent.

        """
        self._signal("pause", _name_or_all(queue), local_only=local_only, node=node)

    def resume_queue(
        self, queue: str, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """Fetch a paused queue's jobs again; see `pause_queue`. Mirrors `Oban.resume_queue/2`."""
        self._signal("resume", _name_or_all(queue), local_only=local_only, node=node)

    def pause_all_queues(self, *, local_only: bool = False, node: str | None = None) -> None:
        """Pause all queues; see `pause_queue`. Mirrors `Oban.pause_all_queues/2`."""
        self._signal("pause", ALL, local_only=local_only, node=node)

    def resume_all_queues(self, *, local_only: bool = False, node: str | None = None) -> None:
        """Resume all queues; see `pause_queue`. Mirrors `Oban.resume_all_queues/2`."""
        self._signal("resume", ALL, local_only=local_only, node=node)

    def scale_queue(
        self, queue: str, limit: int, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """Run more or fewer of a queue's jobs at once. Mirrors `Oban.scale_queue/2`.

        Args:
            queue: its name.
            limit: most jobs that run at once on each node, at least 1.
            local_only: as in `pause_queue`.
            node: as in `pause_queue`.

        Raises:
            ConfigError: the name or the limit is none, or both a node and `local_only` are given.
            DatabaseError: the signal could not be sent.

        """
        name = queue_name("queue", queue)
        how = {"limit": positive("limit", limit)}
        self._signal("scale", name, local_only=local_only, node=node, **how)

    def start_queue(
        self,
        name: str,
        limit: int,
        *,
        local_only: bool = False,
        node: str | None = None,
        **options: Any,
    ) -> None:
        """Run one more queue, where it does not run. Mirrors `Oban.start_queue/2`.

        Args:
            name: the queue's.
            limit: most jobs that run at once on each node, at least 1.
            local_only: whether only this node does so.
            node: the node that does so; all by default.
            **options: the others of `QueueOptions`; an executor and a cooldown can't be sent to
                other nodes, so they need `local_only`.

        Raises:
            ConfigError: an option is unknown or wrong.
            DatabaseError: the signal could not be sent.
            NoProcess: with `local_only`, the tree does not run.

        """
        path = f"queues.{queue_name('queue', name)}"
        how = queue(path, {"limit": limit, **options})
        if local_only and node is None:
            self._ask_queues(StartQueue(name, how))
            return
        for option in (each for each in _HERE_ONLY if each in options):
            expected = "none without local_only=True, since it can't be sent to other nodes"
            raise OPTIONS.refusal(f"{path}.{option}", expected, options[option])
        sent = {"limit": how.limit} | ({"paused": True} if how.paused else {})
        self._signal("start", name, local_only=local_only, node=node, **sent)

    def stop_queue(self, queue: str, *, local_only: bool = False, node: str | None = None) -> None:
        """Let a queue's jobs end, then stop it; see `pause_queue`. Mirrors `Oban.stop_queue/2`."""
        name = queue_name("queue", queue)
        self._signal("stop", name, local_only=local_only, node=node)

    def check_queue(self, queue: str) -> QueueView | None:
        """Look at a queue of this node, None where it does not run here.

        Mirrors `Oban.check_queue/2`.

        Raises:
            CallTimeout: its producer did not answer in time.

        """
        self._refuse_fork()
        ref = self._runtime.registry.whereis(("producer", queue_name("queue", queue)))
        if ref is None:
            return None
        try:
            return cast("QueueView", ref.ask(Check()))
        except NoProcess:
            return None

    def check_all_queues(self) -> list[QueueView]:
        """Look at all queues of this node. Mirrors `Oban.check_all_queues/1`."""
        self._refuse_fork()
        names = self._runtime.registry.names()
        queues = sorted(
            name[1] for name in names if isinstance(name, tuple) and name[0] == "producer"
        )
        return [view for name in queues if (view := self.check_queue(str(name))) is not None]

    def _signal(
        self, action: str, name: str, *, local_only: bool, node: str | None, **how: Any
    ) -> None:
        self._refuse_fork()
        if local_only and node is not None:
            got = f"local_only=True and node={shown(node)}"
            raise ConfigError(f"expected either local_only or a node, got both: {got}")
        ident = "any"
        if local_only:
            ident = self.config.ident
        elif node is not None:
            ident = f"{self.config.name}.{node_name('node', node)}"
        payload = {"action": action, "ident": ident, "queue": name, **how}
        self._hear_first()
        self.repo.transaction(
            lambda connection: self._publisher.publish(connection, "signal", [payload])
        )

    def _hear_first(self) -> None:
        # A node that has just started may not listen yet, and would miss what it sends itself.
        registry = self._runtime.registry
        notifier, queues = registry.whereis("notifier"), registry.whereis("queues")
        if notifier is None or queues is None:
            return
        try:
            notifier.ask(Listen(("signal",), queues), timeout=LISTEN_TIME)
        except ActorError as error:
            logger.debug("a signal is sent before this node listens: %s", error)

    def _ask_queues(self, message: StartQueue) -> None:
        self._refuse_fork()
        ref = self._runtime.registry.whereis("queues")
        if ref is None:
            raise NoProcess("queues", message)
        ref.ask(message)


def _name_or_all(queue: str) -> str:
    return queue if queue == ALL else queue_name("queue", queue)
