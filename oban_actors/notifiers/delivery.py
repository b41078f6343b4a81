"""From a payload on the wire to the actors that listen."""

import logging

from oban_actors.actors import Ref, Registry, send
from oban_actors.actors.clock import real_monotonic
from oban_actors.config import Config
from oban_actors.errors import WireError
from oban_actors.messages import Notification, Reconnected
from oban_actors.notifiers.wire import decode

logger = logging.getLogger("oban_actors")

QUIET_FOR = 60.0
"""Seconds between two log records of unreadable payloads, however many come."""


class Delivery:
    """Tells an instance's listeners what comes.

    Args:
        config: whose prefix and ident.
        registry: where the listeners are.

    """

    def __init__(self, config: Config, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._dropped = 0
        self._quiet_until = 0.0

    def deliver(self, channel: str, text: str, pid: int | None = None) -> bool:
        """Tell the listeners of a channel, if the payload can be read and is for this node.

        Args:
            channel: without the prefix.
            text: as it stands on the wire.
            pid: the database session that sent it, where that is known.

        Returns:
            whether anybody listens.

        """
        listeners = self._registry.subscribers(channel)
        if not listeners:
            return False
        try:
            payload = decode(text)
        except WireError as error:
            self._drop(channel, error)
            return True
        if self._config.matches_ident(payload.get("ident")):
            notification = Notification(channel, payload, pid)
            for ref in listeners:
                send(ref, notification)
        return True

    def reconnected(self) -> None:
        """Tell each listener, once, that it may have missed something."""
        listeners: dict[str, Ref] = {}
        for channel in self._registry.channels():
            listeners |= {ref.actor_urn: ref for ref in self._registry.subscribers(channel)}
        for ref in listeners.values():
            send(ref, Reconnected())

    def _drop(self, channel: str, error: WireError) -> None:
        # Not what it holds: that may be secret, and is as long as the sender likes.
        self._dropped += 1
        now = real_monotonic()
        if now < self._quiet_until:
            return
        more, self._dropped = self._dropped - 1, 0
        self._quiet_until = now + QUIET_FOR
        logger.warning(
            "dropped a notification on %r: %s (and %d since the last such message)",
            channel,
            error,
            more,
        )
