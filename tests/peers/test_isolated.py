"""IsolatedPeer: leads as it is told, and asks nobody."""

import pytest

from oban_actors.actors import UnexpectedMessage
from oban_actors.config import Config
from oban_actors.errors import ServerCrashed
from oban_actors.messages import Election, GetLeader, GetLease, IsLeader
from oban_actors.peers import IsolatedPeer, row_identity
from oban_actors.peers.isolated import IsolatedPeer as Peer


@pytest.mark.parametrize(
    ("peer", "leads"),
    [("isolated", True), ({"kind": "isolated", "leader": False}, False), (None, False)],
)
def test_leads_as_told(peer: object, *, leads: bool) -> None:
    """Every question gets the same answer, and an election changes nothing."""
    config = Config.build(peer=peer)
    ref = IsolatedPeer.start(config)

    ref.tell(Election())
    assert ref.ask(Election()) is leads
    assert ref.ask(IsLeader()) is leads
    assert ref.ask(GetLeader()) == (row_identity(config) if leads else None)
    assert ref.ask(GetLease()).leader is leads
    ref.stop()


def test_does_not_understand_everything() -> None:
    """A question that it does not know ends it, as any actor."""
    ref = Peer.start(Config.build(peer="isolated"))

    with pytest.raises(ServerCrashed) as caught:
        ref.ask("nonsense")
    assert isinstance(caught.value.__cause__, UnexpectedMessage)
