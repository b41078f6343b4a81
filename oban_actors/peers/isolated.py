"""IsolatedPeer: leads, or not, as it was told."""

from typing import Any

from oban_actors.actors import GenServer, Sender
from oban_actors.config import Config
from oban_actors.messages import Election, GetLeader, GetLease, IsLeader, LeaseView, Resign
from oban_actors.peers.identity import row_identity


class IsolatedPeer(GenServer):
    """A Peer that asks nobody: for tests, and for nodes that never lead.

    Mirrors `Oban.Peers.Isolated`.

    Args:
        config: its `peer.leader` says whether this node leads; without a peer it does not.

    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._leads = config.peer is not None and config.peer.leader
        self._node = row_identity(config)

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Answer as it was told."""
        holder = self._node if self._leads else None
        match message:
            case IsLeader() | Election():
                return self._leads
            case GetLeader():
                return holder
            case GetLease():
                trusted = float("inf") if self._leads else 0.0
                return LeaseView(self._leads, holder, None, trusted, locked=False)
            case Resign():
                return False
            case _:
                return super().handle_call(message, sender)

    def handle_info(self, message: Any) -> None:
        """There is nothing to elect."""
        if not isinstance(message, Election | Resign):
            super().handle_info(message)
