"""A process that sends back on `pong` what it hears on `ping`, until it is told to stop."""

import sys
from typing import Any

from oban_actors.actors import GenServer
from oban_actors.messages import Listen, Notification
from tests.notifiers.rig import Node
from tests.support.databases import Database


class Echo(GenServer):
    """Answers."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def handle_info(self, message: Any) -> None:
        """Send it back."""
        if isinstance(message, Notification):
            self._node.publish("pong", message.payload)


def main(url: str) -> None:
    """Run until a line comes in."""
    node = Node(Database("sqlite", url), "sqlite", node="echo")
    echo = Echo.start_link((node,), runtime=node.root.runtime)
    node.ask(Listen(["ping"], echo))
    node.publish("pong", {"n": "ready"})
    sys.stdin.readline()
    echo.stop()
    node.close()


if __name__ == "__main__":
    main(sys.argv[1])
