"""The messages of the tree's actors: public, so a host or a test may send them too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from oban_actors.actors import Ref
from oban_actors.claim import Claim
from oban_actors.options import QueueOptions
from oban_actors.running import EndReason

Status = Literal["unknown", "isolated", "solitary", "clustered"]
"""What the notifications that come back say of the cluster.

`isolated`: not even our own; `solitary`: only our own; `clustered`: others' too.
"""


@dataclass(frozen=True, slots=True)
class Election:
    """To the Peer: seek or renew the leadership now. Asked, it answers whether it leads."""


@dataclass(frozen=True, slots=True)
class IsLeader:
    """Asks the Peer whether this instance leads. Mirrors `Oban.Peer.leader?/1`."""


@dataclass(frozen=True, slots=True)
class GetLeader:
    """Asks the Peer which node leads, as it knows. Mirrors `Oban.Peer.get_leader/1`."""


@dataclass(frozen=True, slots=True)
class GetLease:
    """Asks the Peer for all it knows of the lease, a `LeaseView`."""


@dataclass(frozen=True, slots=True)
class Resign:
    """To the Peer: if this instance leads, leave leadership to others for a while.

    It removes its row, tells the others, who elect at once, and leaves a free lease alone for so
    long. If nobody takes it, it leads again. Asked, it answers whether it did: not where it does
    not lead, nor again within 15 seconds, which get twice as many each time, up to an hour.

    Args:
        seconds: for how long.
        why: for the log.

    """

    seconds: float = 5.0
    why: str = "it was asked to resign"


@dataclass(frozen=True, slots=True)
class LeaseView:
    """The lease as one Peer knows it.

    Attributes:
        leader: whether this instance leads.
        holder: who holds it, as read last, or None.
        term: when this instance's term began, by the database's clock.
        trusted_for: seconds for which the lease is surely held without another renewal.
        locked: whether an advisory lock backs it.

    """

    leader: bool
    holder: str | None
    term: datetime | None
    trusted_for: float
    locked: bool


@dataclass(frozen=True, slots=True)
class Listen:
    """To the Notifier: send `ref` a `Notification` for whatever comes on these channels.

    Asked, it answers whether they are listened to now; if not, they are once it can connect.
    Mirrors `Oban.Notifier.listen/2`.

    Args:
        channels: without the prefix.
        ref: the actor that listens, until it says `Unlisten` or ends.

    Raises:
        WireError: a channel's name can't be one; raised in whoever asks.

    """

    channels: Sequence[str]
    ref: Ref


@dataclass(frozen=True, slots=True)
class Unlisten:
    """To the Notifier: send `ref` nothing more of these channels.

    Mirrors `Oban.Notifier.unlisten/2`.

    Args:
        channels: without the prefix.
        ref: the actor that listened.

    """

    channels: Sequence[str]
    ref: Ref


@dataclass(frozen=True, slots=True)
class Notify:
    """To the Notifier: send these payloads. Mirrors `Oban.Notifier.notify/3`.

    Args:
        channel: the channel, without the prefix.
        payloads: JSON objects of at most 7,999 bytes each.
        published: they stood in a transaction that has committed, other nodes hear of them
            from the database: tell this node's listeners without the detour; default False.

    Raises:
        WireError: a payload or the channel can't be sent; none was. Raised in whoever asks.
        DatabaseError: the database failed; likewise.

    """

    channel: str
    payloads: Sequence[Mapping[str, Any]]
    published: bool = False


@dataclass(frozen=True, slots=True)
class Notification:
    """From the Notifier to its listeners: a payload came.

    Attributes:
        channel: the channel, without the prefix.
        payload: the JSON object.
        pid: the database session that sent it, where that is known.

    """

    channel: str
    payload: Mapping[str, Any]
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Reconnected:
    """From the Notifier to its listeners: something may have been missed, look for yourself."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """To the Notifier: give the connection up, it seems dead, and make another."""


@dataclass(frozen=True, slots=True)
class TryLock:
    """Asks the Notifier for a session's advisory lock on its connection; never waits for it."""

    key: int


@dataclass(frozen=True, slots=True)
class Unlock:
    """To the Notifier: give the advisory lock back."""

    key: int


@dataclass(frozen=True, slots=True)
class LockLost:
    """From the Notifier to the Peer: the lock went with its connection."""

    key: int


@dataclass(frozen=True, slots=True)
class Beat:
    """To the Pulse: beat now. Asked, it answers when it has."""


@dataclass(frozen=True, slots=True)
class GetStatus:
    """Asks the Pulse for the `Status`. Mirrors `Oban.Notifier.status/1`."""


@dataclass(frozen=True, slots=True)
class Switched:
    """From the Pulse to the Stager: the status changed."""

    status: Status


@dataclass(frozen=True, slots=True)
class GetAddress:
    """Asks the health endpoint for its `Address`; None while it can't listen."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the health endpoint listens.

    Attributes:
        host: as it was configured.
        port: the real one, also where 0 was configured.

    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Look:
    """To the Checkup: look now how this node is. Asked, it answers with its `Vitals`."""


@dataclass(frozen=True, slots=True)
class Perform:
    """To a plugin's actor: do a run now. Asked, it answers with a `PluginResult`."""


@dataclass(frozen=True, slots=True)
class Prune:
    """To the Pruner: delete what is old enough now. Asked, it answers with a `PluginResult`."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """To the Lifeline: look who has died, and rescue. Asked, it answers with a `PluginResult`."""


@dataclass(frozen=True, slots=True)
class Evaluate:
    """To Cron: insert what is due now. Asked, it answers with a `PluginResult`."""


@dataclass(frozen=True, slots=True)
class Reindex:
    """To the Reindexer: rebuild the indexes now. Asked, it answers with a `PluginResult`."""


@dataclass(frozen=True, slots=True)
class Stage:
    """To the Stager: make due jobs available now. Asked, it answers with a `StageResult`."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """To a Producer: fetch and start what there is room for. Asked, it answers when it has."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """To a Producer: compare the claims in the table with those held, then fetch."""


@dataclass(frozen=True, slots=True)
class Check:
    """Asks a Producer for its `QueueView`. Mirrors `Oban.check_queue/2`."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """To a Producer: fetch nothing more, and acknowledge what ends."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue as this node runs it. Mirrors the map that `Oban.check_queue/2` gives.

    There is no `refresh_interval`: the Pulse beats for all queues of a node.

    Attributes:
        queue: its name.
        name: the instance's.
        node: this node's.
        uuid: what its claims carry in `attempted_by`, behind the node.
        limit: most jobs that run at once.
        paused: whether it fetches nothing.
        running: ids of the jobs that run here.
        stuck: ids of those that are out of time and go on.
        unwritten: how many have ended and wait to be acknowledged.
        started_at: when the queue was started here.
        updated_at: when it was paused, resumed or scaled last.
        shutting_down: whether it is about to end.
        shutdown_started_at: since when it is; None while it isn't.

    """

    queue: str
    name: str
    node: str
    uuid: str
    limit: int
    paused: bool
    running: tuple[int, ...]
    stuck: tuple[int, ...]
    unwritten: int
    started_at: datetime
    updated_at: datetime
    shutting_down: bool
    shutdown_started_at: datetime | None


@dataclass(frozen=True, slots=True)
class StartQueue:
    """Asks Queues to run a queue, unless it does. Mirrors `Oban.start_queue/2`.

    Args:
        queue: its name.
        options: how.

    """

    queue: str
    options: QueueOptions


@dataclass(frozen=True, slots=True)
class StopQueue:
    """To Queues: let a queue's jobs end, then stop it. Mirrors `Oban.stop_queue/2`."""

    queue: str


@dataclass(frozen=True, slots=True)
class CancelClaims:
    """To a Foreman, or to Queues if there is none: tell these runs of a queue to end, and why.

    Args:
        claims: whose runs.
        reason: why.
        lost: whether others may run their jobs, now or soon: what goes on in a process is killed a
            second later; default False.

    """

    claims: Sequence[Claim]
    reason: EndReason
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Watch:
    """To a Foreman: a run has begun that has a deadline."""

    claim: Claim
