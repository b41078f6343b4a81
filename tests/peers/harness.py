"""Nodes with nothing but a notifier and a Peer, and the row that they compete for."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from oban_actors.actors import SYSTEM_CLOCK, Clock, GenServer, Ref, Runtime, Supervisor
from oban_actors.actors.process import process_of
from oban_actors.config import Config
from oban_actors.errors import ActorError
from oban_actors.messages import (
    Election,
    GetLeader,
    GetLease,
    IsLeader,
    LeaseView,
    Listen,
    Notification,
)
from oban_actors.notifiers import make_publisher, notifier_spec
from oban_actors.peers import DatabasePeer, holds_lease, peer_spec, row_identity
from oban_actors.peers.elections import Elections
from oban_actors.peers.lease import Lease
from oban_actors.repo import Repo
from oban_actors.repo.migrator import migrate
from tests.support.databases import Database
from tests.support.waiting import wait_until

LONG = {"lease": 600.0, "renew": 200.0}
"""A lease whose lapse no test waits for."""


class Node:
    """One node in this process."""

    def __init__(self, database: Database, clock: Clock, options: dict[str, Any]) -> None:
        self.config = Config.build(prefix=database.prefix, clock=clock, **options)
        self.repo = Repo(database.url, self.config)
        self.runtime = Runtime(clock)
        self.publisher = make_publisher(self.config, self.runtime.registry, self.repo.dialect)
        self.root = Supervisor.start(
            [
                notifier_spec(self.config, self.repo),
                peer_spec(self.config, self.repo, self.publisher),
            ],
            runtime=self.runtime,
            max_restarts=100,
        )

    @property
    def identity(self) -> str:
        """How it is named in the table."""
        return row_identity(self.config)

    @property
    def peer(self) -> Ref:
        """The Peer that lives now."""
        ref = wait_until(lambda: self.root.whereis("peer"))
        assert ref is not None
        return ref

    @property
    def leads(self) -> bool:
        """Whether it says that it leads; a Peer that just dies does not."""
        try:
            return self.root.ask("peer", IsLeader(), timeout=30) is True
        except ActorError:
            return False

    @property
    def leader(self) -> str | None:
        """Who leads, as it knows."""
        found: str | None = self.root.ask("peer", GetLeader(), timeout=30)
        return found

    @property
    def lease(self) -> LeaseView:
        """All it knows of the lease."""
        view: LeaseView = self.root.ask("peer", GetLease(), timeout=30)
        return view

    @property
    def state(self) -> Lease:
        """What its Peer's decisions rest on, from beneath."""
        actor = process_of(self.peer).actor
        assert isinstance(actor, DatabasePeer)
        return actor._lease

    @property
    def elections(self) -> Elections:
        """What its Peer acts with, for a step of its own."""
        return Elections(self.config, self.repo, self.publisher)

    def elect(self) -> bool:
        """Have an election now."""
        return self.root.ask("peer", Election(), timeout=30) is True

    def holds_lease(self) -> bool:
        """Whether it may act as the leader."""
        return self.repo.transaction(
            lambda connection: holds_lease(connection, self.config, self.repo.now())
        )

    def stop(self) -> None:
        """Stop it in order."""
        self.root.stop(60)
        self.runtime.close()
        self.repo.close()


class Listener(GenServer):
    """Keeps the payloads that come on one channel of a node."""

    def __init__(self) -> None:
        super().__init__()
        self.payloads: list[Any] = []

    def handle_info(self, message: Any) -> None:
        """Keep it."""
        if isinstance(message, Notification):
            self.payloads.append(message.payload)


@contextmanager
def listening(node: Node, channel: str) -> Iterator[list[Any]]:
    """Give the payloads that a node hears on a channel, as they come."""
    ref = Listener.start_link(runtime=node.runtime)
    node.runtime.registry.subscribe(channel, ref)
    node.root.ask("notifier", Listen([channel], ref), timeout=30)
    try:
        payloads: list[Any] = ref.proxy().payloads.get()
        yield payloads
    finally:
        ref.stop()


class Cluster:
    """Nodes on one database, and a look at the row from outside."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.nodes: list[Node] = []
        config = Config.build(prefix=database.prefix, name="outside")
        self.repo = Repo(database.url, config)
        migrate(self.repo)
        postgres = database.kind == "postgresql"
        self.table = f'"{database.prefix}".oban_peers' if postgres else "oban_peers"
        self._now = self.repo.sql_now.replace("%", "%%") if postgres else self.repo.sql_now

    def start(self, *, clock: Clock = SYSTEM_CLOCK, **options: Any) -> Node:
        """Start a node."""
        node = Node(self.database, clock, options)
        self.nodes.append(node)
        return node

    def execute(self, sql: str, **values: Any) -> list[Any]:
        """Run a statement on `{table}`, with `{now}` and `{later}` (in `seconds`) as in ours."""
        later = (
            "{now} + make_interval(secs => :seconds)"
            if self.database.kind == "postgresql"
            else "strftime('%Y-%m-%dT%H:%M:%f000Z', {now}, :seconds || ' seconds')"
        )
        text = sql.replace("{later}", later).replace("{now}", self._now)
        text = text.replace("{table}", self.table)

        def work(connection: sa.Connection) -> list[Any]:
            result = connection.execute(sa.text(text), values | {"now": None})
            return list(result) if result.returns_rows else []

        return self.repo.transaction(work)

    def insert(self, node: str, seconds: float, name: str = "Oban") -> None:
        """Insert a row that expires in so many seconds."""
        self.execute(
            "INSERT INTO {table} (name, node, started_at, expires_at) "
            "SELECT :name, :node, {now}, {later}",
            name=name,
            node=node,
            seconds=seconds,
        )

    def holder(self) -> str | None:
        """Who holds the lease, by the table."""
        rows = self.execute("SELECT node FROM {table} WHERE name = 'Oban'")
        return rows[0][0] if rows else None

    def wait_for_leader(self) -> Node:
        """Wait until exactly one leads."""
        wait_until(lambda: sum(node.leads for node in self.nodes) == 1, message="one leader")
        return next(node for node in self.nodes if node.leads)

    def stop(self, node: Node) -> None:
        """Stop a node in order."""
        self.nodes.remove(node)
        node.stop()

    def close(self) -> None:
        """Stop everything."""
        for node in self.nodes:
            node.stop()
        self.repo.close()


@contextmanager
def clustered(database: Database) -> Iterator[Cluster]:
    """Give a cluster without nodes, and stop those it got."""
    cluster = Cluster(database)
    try:
        yield cluster
    finally:
        cluster.close()


def moment(value: datetime | str) -> str:
    """Write a time of the table in a way that sorts."""
    return value if isinstance(value, str) else value.isoformat(timespec="microseconds")
