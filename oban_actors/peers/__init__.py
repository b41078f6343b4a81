"""Which node leads: one at a time for each instance name, by a lease in `oban_peers`."""

from oban_actors.actors import ChildSpec
from oban_actors.config import Config
from oban_actors.notifiers import Publisher
from oban_actors.peers.database import DatabasePeer
from oban_actors.peers.fence import duty_idle, holds_lease, lease_gate
from oban_actors.peers.identity import row_identity
from oban_actors.peers.isolated import IsolatedPeer
from oban_actors.peers.resigning import Trouble, is_own, let_another_lead
from oban_actors.repo import Repo

__all__ = [
    "DatabasePeer",
    "IsolatedPeer",
    "Trouble",
    "duty_idle",
    "holds_lease",
    "is_own",
    "lease_gate",
    "let_another_lead",
    "peer_spec",
    "row_identity",
]


def peer_spec(config: Config, repo: Repo, publisher: Publisher) -> ChildSpec:
    """Describe the Peer that the config asks for; every tree has one, named `peer`.

    Args:
        config: the instance's options.
        repo: the way to the database.
        publisher: how notifications are written in a transaction.

    """
    if config.peer is None or config.peer.kind == "isolated":
        return IsolatedPeer.child_spec(config, name="peer")
    return DatabasePeer.child_spec(config, repo, publisher, config.peer, name="peer")
