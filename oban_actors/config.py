"""Config: every option of an instance, checked once, then frozen."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self
from uuid import uuid4

from oban_actors import config_options as check
from oban_actors.actors.clock import SYSTEM_CLOCK, Clock
from oban_actors.errors import ConfigError
from oban_actors.options import (
    EngineKind,
    HealthOptions,
    NotifierOptions,
    PeerOptions,
    PulseOptions,
    QueueOptions,
    StagerOptions,
    TestingMode,
)
from oban_actors.validation import OPTIONS

__all__ = [
    "Config",
    "HealthOptions",
    "NotifierOptions",
    "PeerOptions",
    "PulseOptions",
    "QueueOptions",
    "StagerOptions",
]


def default_node() -> str:
    """Name this node: `OBAN_NODE`, else `DYNO`, else the host's name. Mirrors `Oban.Config`."""
    for variable in ("OBAN_NODE", "DYNO"):
        if node := os.environ.get(variable):
            return node
    return socket.gethostname() or "localhost"


def _new_identity() -> str:
    return uuid4().hex


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything an instance was told, checked. Mirrors `Oban.Config`.

    Made by `build`. Times may be given as a number of seconds or as a timedelta; they are kept
    as seconds. Options of a part may be given as a mapping.

    Attributes:
        name: the instance's, shared by all its nodes; default `Oban`.
        node: this node's, default `default_node()`. Nodes need not differ in it.
        identity: unique for each instance of each process, so what holds leases and claims;
            not an option.
        prefix: PostgreSQL schema of the tables, default `public`; SQLite has none.
        stager: how due jobs are made available; None: not by this node.
        peer: how the leader is found; None: this node never leads. May be given as the kind.
        notifier: how nodes hear of each other. May be given as the kind.
        pulse: how often this node shows that it lives.
        health: where this node answers by HTTP how it is, default None: nowhere. May be given
            as the port.
        engine: `postgres`, `sqlite`, or `auto` (default): as the database is.
        plugins: objects with `child_spec()`; `validate()` is called, where there is one.
        queues: by name, given as `{"mailers": 10}` or `{"mailers": {"limit": 10}}`.
        imports: modules with workers, imported when the tree starts; default none.
        shutdown_grace_period: seconds that running jobs have to end in, default 15; also at the
            interpreter's exit, where the tree was not stopped before.
        insert_notify: whether inserting tells queues of jobs that can run, and the leader of those
            due soon, default True; without, jobs begin up to the leader's `stager.interval` later.
        clock: where time is read, default the system's.
        statement_timeout: seconds that one SQL statement may take, default 30.
        lock_timeout: seconds that a statement may wait for a lock, default 5.
        connect_timeout: seconds that connecting may take, default 5.
        pool_size: most connections in the instance's pool, default 4.
        elixir_indexes: whether `migrate()` makes Elixir's two GIN indexes, default False.
        unique_keys: keys of args by which jobs are unique and for which `migrate()` makes an
            index on PostgreSQL, each a key or a list of those that go together; default none.
        unique_meta_keys: likewise keys of meta.
        testing: `disabled` (default); `manual`: no queues, plugins, peer, stager or health run,
            whatever else was given; `inline`: likewise, and a job runs in the thread that
            inserts it.

    Raises:
        ConfigError: an option's value can't be used.

    """

    name: str = "Oban"
    node: str = field(default_factory=default_node)
    identity: str = field(default_factory=_new_identity)
    prefix: str = "public"
    stager: StagerOptions | None = field(default_factory=StagerOptions)
    peer: PeerOptions | None = field(default_factory=PeerOptions)
    notifier: NotifierOptions = field(default_factory=NotifierOptions)
    pulse: PulseOptions = field(default_factory=PulseOptions)
    health: HealthOptions | None = None
    engine: EngineKind = "auto"
    plugins: tuple[Any, ...] = field(default=(), hash=False, repr=False)
    queues: Mapping[str, QueueOptions] = field(default_factory=dict, hash=False)
    imports: tuple[str, ...] = ()
    shutdown_grace_period: float = 15.0
    insert_notify: bool = True
    clock: Clock = field(default=SYSTEM_CLOCK, hash=False, repr=False)
    statement_timeout: float = 30.0
    lock_timeout: float = 5.0
    connect_timeout: float = 5.0
    pool_size: int = 4
    elixir_indexes: bool = False
    unique_keys: tuple[tuple[str, ...], ...] = ()
    unique_meta_keys: tuple[tuple[str, ...], ...] = ()
    testing: TestingMode = "disabled"

    @classmethod
    def build(cls, **options: Any) -> Self:
        """Check options and make a config of them.

        Args:
            **options: what differs from the defaults, see the attributes.

        Raises:
            ConfigError: an option is unknown or its value can't be used; the message names
                its path, what was expected and what came, or the nearest known option.

        """
        OPTIONS.known(options, [name for name in _CHECKS if name != "identity"])
        return cls(**options)

    def __post_init__(self) -> None:
        for each in fields(self):
            checked = _CHECKS[each.name](each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, checked)
        if self.testing != "disabled":
            for name, none in _NOT_IN_TESTS.items():
                object.__setattr__(self, name, none)
        kind, engine = self.notifier.kind, self.engine
        if kind in ("postgres", "sqlite") and engine not in ("auto", kind):
            expected = f"one for the engine {engine!r}"
            raise OPTIONS.refusal("notifier.kind", expected, kind)
        if self.notifier.listen_url is not None and engine == "sqlite":
            raise ConfigError("option 'notifier.listen_url' needs the engine 'postgres'")

        if self.health is not None and self.health.patience < 2 * self.statement_timeout:
            least = f"at least twice 'statement_timeout', {2 * self.statement_timeout:g} seconds"
            raise OPTIONS.refusal("health.patience", least, self.health.patience)

        check.fit("plugins", self.plugins, self)

    def renew_identity(self) -> None:
        """Be another instance's from here on: that of a forked child."""
        object.__setattr__(self, "identity", _new_identity())

    @property
    def ident(self) -> str:
        """What a notification for this node alone is addressed to."""
        return f"{self.name}.{self.node}"

    def channel(self, name: str) -> str:
        """Name the database's channel for one of ours, such as `public.oban_insert`."""
        return f"{self.prefix}.oban_{name}"

    def matches_ident(self, ident: object) -> bool:
        """Tell whether a notification so addressed is for this node; None is for all."""
        return ident is None or ident in ("any", self.ident)


# Whatever takes jobs up by itself, or would have a port in every test.
_NOT_IN_TESTS: Mapping[str, Any] = {
    "queues": MappingProxyType({}),
    "plugins": (),
    "peer": None,
    "stager": None,
    "health": None,
}

_CHECKS: Mapping[str, check.Check] = {
    "name": check.name,
    "node": check.node,
    "identity": check.node,
    "prefix": check.prefix,
    "stager": check.stager,
    "peer": check.peer,
    "notifier": check.notifier,
    "pulse": check.pulse,
    "health": check.health,
    "engine": check.engine,
    "plugins": check.plugins,
    "queues": check.queues,
    "imports": check.imports,
    "shutdown_grace_period": check.grace,
    "insert_notify": OPTIONS.boolean,
    "clock": check.clock,
    "statement_timeout": OPTIONS.seconds,
    "lock_timeout": OPTIONS.seconds,
    "connect_timeout": OPTIONS.seconds,
    "pool_size": check.positive,
    "elixir_indexes": OPTIONS.boolean,
    "unique_keys": check.unique_keys,
    "unique_meta_keys": check.unique_keys,
    "testing": check.testing,
}
