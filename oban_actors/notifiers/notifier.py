"""What all notifiers have in common: listeners, and the messages that they all answer."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from oban_actors.actors import Continue, Failure, GenServer, Ref, Sender
from oban_actors.config import Config
from oban_actors.errors import DatabaseError, WireError
from oban_actors.messages import Listen, Notify, Reconnect, TryLock, Unlisten, Unlock
from oban_actors.notifiers.delivery import Delivery
from oban_actors.notifiers.wire import check_channel, encode

logger = logging.getLogger("oban_actors")

UNKNOWN = object()
"""What `answer` gives for a message that is not a notifier's."""


class Notifier(GenServer, ABC):
    """Tells listeners what comes on their channels, and sends for those who have no transaction.

    Subscriptions stand in the registry, so that they outlive a crash: whoever comes next
    finds all listeners there, and tells them to look for themselves. Mirrors `Oban.Notifier`.

    Args:
        config: the instance's options.

    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Be ready for messages; connecting comes after, so that it delays nobody's start."""
        self.thread = threading.get_ident()
        self.delivery = Delivery(self.config, self.runtime.registry)
        return Continue()

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Do what is asked, and answer when it is done."""
        result = self.answer(message, sender)
        return super().handle_call(message, sender) if result is UNKNOWN else result

    def handle_info(self, message: Any) -> None:
        """Do what is told."""
        result = self.answer(message, None)
        if result is UNKNOWN:
            super().handle_info(message)
        elif isinstance(result, Failure):
            logger.warning("could not handle %s: %s", type(message).__name__, result.error)

    # For each kind of notifier

    def answer(self, message: Any, sender: Sender | None) -> Any:
        """Handle a message, asked or told; `UNKNOWN` if it is not for a notifier."""
        match message:
            case Listen(channels, ref):
                return self._subscribe(channels, ref, sender)
            case Unlisten(channels, ref):
                for channel in channels:
                    self.runtime.registry.unsubscribe(channel, ref)
                self.adjust(None)
                return True
            case Notify():
                return self._notify(message)
            case Reconnect():
                return self.reconnect()
            case TryLock() | Unlock():
                return False
            case _:
                return UNKNOWN

    def adjust(self, sender: Sender | None) -> Any:
        """Listen to the channels that have listeners now.

        Args:
            sender: who waits for it, or None.

        Returns:
            whether they are listened to, or `NOREPLY` for an answer later.

        """
        return True

    def reconnect(self) -> None:
        """Give the connection up and make another; listeners are told to look themselves."""
        self.delivery.reconnected()

    @abstractmethod
    def publish(self, message: Notify) -> None:
        """Send what is to reach all nodes, in a transaction of its own."""

    # Helpers

    def _subscribe(self, channels: Sequence[str], ref: Ref, sender: Sender | None) -> Any:
        try:
            for channel in _checked(self.config, channels):
                self.runtime.registry.subscribe(channel, ref)
        except WireError as error:
            return Failure(error)
        return self.adjust(sender)

    def _notify(self, message: Notify) -> Failure | None:
        try:
            if message.published:
                # Listeners get what would have come from the database.
                for text in [encode(payload) for payload in message.payloads]:
                    self.delivery.deliver(message.channel, text)
            else:
                self.publish(message)
        except (WireError, DatabaseError) as error:
            return Failure(error)
        return None


def _checked(config: Config, channels: Sequence[str]) -> list[str]:
    if isinstance(channels, str):
        raise WireError(f"expected a list of channels, got: {channels!r}")
    return [check_channel(config, channel) for channel in channels]
