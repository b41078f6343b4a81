"""The Notifier within one process, for tests and for programs that are alone."""

from typing import Any

from oban_actors.config import Config
from oban_actors.messages import Notify
from oban_actors.notifiers.notifier import Notifier
from oban_actors.notifiers.publisher import IsolatedPublisher
from oban_actors.repo import Repo


class IsolatedNotifier(Notifier):
    """Tells the listeners of its own instance and nobody else. Mirrors `Oban.Notifiers.Isolated`.

    What stands in a transaction is told by the publisher itself, right after the commit.

    Args:
        config: the instance's options.
        repo: not used; notifiers are made alike.

    """

    def __init__(self, config: Config, repo: Repo | None = None) -> None:
        super().__init__(config)

    def handle_continue(self, arg: Any) -> None:
        """Wake the listeners of the one that crashed before."""
        self.delivery.reconnected()

    def publish(self, message: Notify) -> None:
        """Tell the listeners at once."""
        publisher = IsolatedPublisher(self.config, self.runtime.registry)
        publisher.publish_now(message.channel, message.payloads)
