"""What each part of an instance may be told; `Config` checks it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypedDict

from oban_actors.actors.clock import Clock

EngineKind = Literal["auto", "postgres", "sqlite"]
NotifierKind = Literal["auto", "postgres", "sqlite", "isolated"]
PeerKind = Literal["database", "isolated"]
ExecutorKind = Literal["threads", "processes"]
PeerMode = Literal["yield", "equal"]
TestingMode = Literal["disabled", "manual", "inline"]
Seconds = float | timedelta


class Options(TypedDict, total=False):
    """What an instance may be given; `Config` says what each one means."""

    name: str
    node: str
    prefix: str
    stager: "StagerOptions | Mapping[str, Any] | Literal[False] | None"
    peer: "PeerOptions | Mapping[str, Any] | PeerKind | Literal[False] | None"
    notifier: "NotifierOptions | Mapping[str, Any] | NotifierKind"
    pulse: "PulseOptions | Mapping[str, Any]"
    health: "HealthOptions | Mapping[str, Any] | int | Literal[False] | None"
    engine: EngineKind
    plugins: Sequence[Any] | Literal[False] | None
    queues: "Mapping[str, QueueOptions | Mapping[str, Any] | int] | Literal[False] | None"
    imports: Sequence[str]
    shutdown_grace_period: Seconds
    insert_notify: bool
    clock: Clock
    statement_timeout: Seconds
    lock_timeout: Seconds
    connect_timeout: Seconds
    pool_size: int
    elixir_indexes: bool
    unique_keys: Sequence[str | Sequence[str]]
    unique_meta_keys: Sequence[str | Sequence[str]]
    testing: TestingMode


@dataclass(frozen=True, slots=True, kw_only=True)
class StagerOptions:
    """How due jobs are made available.

    Attributes:
        interval: most seconds between two passes, default 1.
        limit: most jobs that one pass makes available, default 5,000.

    """

    interval: float = 1.0
    limit: int = 5_000


MAX_LEASE = 600.0
"""Seconds: who has not renewed a lease for this long trusts it no more, on any node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerOptions:
    """How the leader is found.

    Attributes:
        kind: `database` (default): the lease in `oban_peers`; `isolated`: as `leader` says.
        mode: `yield` (default) leaves leadership to Elixir nodes of the same name, `equal`
            competes with them.
        leader: whether an isolated peer leads, default True.
        lease: seconds that leadership lasts without renewal, default 15, at most 600.
        renew: seconds between renewals, default 5, at most half the lease.
        advisory_lock: whether the lease is backed by a lock of the listening connection, so
            that a dead leader is replaced at once; default True, PostgreSQL only.

    """

    kind: PeerKind = "database"
    mode: PeerMode = "yield"
    leader: bool = True
    lease: float = 15.0
    renew: float = 5.0
    advisory_lock: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierOptions:
    """How nodes hear of each other.

    Attributes:
        kind: `postgres`, `sqlite`, `isolated` (within the process), or `auto` (default): as
            the database is.
        listen_url: address for the listening connection of `postgres` where the database's
            own leads through a transaction pooler; default None: the database's own.

    """

    kind: NotifierKind = "auto"
    listen_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PulseOptions:
    """How often a node shows that it lives.

    Attributes:
        interval: seconds between two beats, default 10.

    """

    interval: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthOptions:
    """Where a node answers by HTTP how it is.

    Attributes:
        port: of TCP; 0: any that is free.
        host: address to listen on, default `127.0.0.1`: this machine alone can ask.
        hosts: names besides addresses and `localhost` that a request may ask for, default none,
            so that no page in somebody's browser reaches it by a name of its own.
        patience: seconds that an actor may take for one message, or a message may wait, until
            the node no longer counts as alive; default 120. At least twice `statement_timeout`,
            since a database that hangs is no reason to restart the node.
        interval: seconds between two looks at the database, default 5.

    """

    port: int
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    patience: float = 120.0
    interval: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How a queue is run by this node.

    Attributes:
        limit: most jobs that run at once.
        paused: whether it starts paused, default False.
        executor: what runs jobs that are not async: `threads` (default), `processes`, or a
            `concurrent.futures.Executor` of the host's.
        dispatch_cooldown: seconds between two looks for jobs at least, default 0.005, so that a
            burst of notifications is one look.

    """

    limit: int
    paused: bool = False
    executor: ExecutorKind | Executor = "threads"
    dispatch_cooldown: float = 0.005
