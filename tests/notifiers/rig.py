"""Notifiers for tests: trees of a Notifier alone, and actors that listen."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import psycopg
import sqlalchemy as sa

from oban_actors.actors import GenServer, Ref, Sender, Supervisor
from oban_actors.config import Config
from oban_actors.messages import Listen, Notification, Reconnected, Unlisten
from oban_actors.notifiers import make_publisher, notifier_spec
from oban_actors.notifiers.delivery import Delivery
from oban_actors.repo import Repo
from oban_actors.repo.migrator import migrate
from tests.support.databases import Database
from tests.support.waiting import wait_until

NotifierKind = Literal["postgres", "sqlite", "isolated"]


class Collector(GenServer):
    """Keeps what it is told."""

    def __init__(self, messages: list[Any]) -> None:
        super().__init__()
        self._messages = messages

    def handle_info(self, message: Any) -> None:
        """Keep it."""
        self._messages.append(message)

    def handle_call(self, message: Any, sender: Sender) -> None:
        """Answer once all that came before is kept."""


class Ear:
    """An actor that listens, seen from a test."""

    def __init__(self, node: "Node", *channels: str, name: str | None = None) -> None:
        self.node = node
        self.messages: list[Any] = []
        self.ref: Ref = Collector.start_link((self.messages,), runtime=node.root.runtime, name=name)
        if channels:
            assert node.ask(Listen(channels, self.ref)) is True

    def payloads(self, channel: str | None = None) -> list[Mapping[str, Any]]:
        """Payloads heard so far, on one channel or on any."""
        return [
            m.payload
            for m in list(self.messages)
            if isinstance(m, Notification) and channel in (None, m.channel)
        ]

    def wait_for(self, *payloads: Mapping[str, Any]) -> None:
        """Wait until all these came, be it between others."""
        wait_until(
            lambda: all(payload in self.payloads() for payload in payloads),
            message=f"{payloads}",
        )

    def wait_for_message(self, message: Any, count: int = 1) -> None:
        """Wait until it was told this so many times."""
        wait_until(lambda: self.messages.count(message) >= count, message=f"{message}")

    def wait_for_reconnected(self) -> None:
        """Wait until it is told to look for itself."""
        self.wait_for_message(Reconnected())

    def forget(self) -> None:
        """Forget what came, including what is still on its way through the inbox."""
        self.ref.ask("what came before", timeout=30)
        self.messages.clear()

    def leave(self, *channels: str) -> None:
        """Stop listening."""
        self.node.ask(Unlisten(channels, self.ref))

    def stop(self) -> None:
        """End the actor."""
        self.ref.stop()


class Node:
    """One process's worth: config, repo, publisher, and a tree with the Notifier in it."""

    def __init__(self, database: Database, kind: NotifierKind, **options: Any) -> None:
        notifier = {"kind": kind} | options.pop("notifier", {})
        self.kind = kind
        self.config = Config.build(prefix=database.prefix, notifier=notifier, **options)
        self.repo = Repo(database.url, self.config)
        if self.repo.dialect == "sqlite":
            migrate(self.repo)
        self.root = Supervisor.start([notifier_spec(self.config, self.repo)])
        self.publisher = make_publisher(self.config, self.root.runtime.registry, self.repo.dialect)
        self._ears: list[Ear] = []

    @property
    def notifier(self) -> Any:
        """The living actor itself, for faults that can only be put in from below."""
        ref = wait_until(lambda: self.root.whereis("notifier"), message="a notifier")
        return ref.actor_inbox.process.actor

    def hear(self, *channels: str, name: str | None = None) -> Ear:
        """Start an actor that listens; it does when this returns."""
        ear = Ear(self, *channels, name=name)
        self._ears.append(ear)
        return ear

    def ask(self, message: Any) -> Any:
        """Ask the Notifier, generously."""
        wait_until(lambda: self.root.whereis("notifier"), message="a notifier")
        return self.root.ask("notifier", message, timeout=30)

    def tell(self, message: Any) -> None:
        """Tell the Notifier."""
        assert self.root.tell("notifier", message)

    def publish(self, channel: str, *payloads: Mapping[str, Any]) -> None:
        """Publish in a transaction of its own."""
        self.repo.transaction(lambda c: self.publisher.publish(c, channel, payloads))

    def inject(self, channel: str, texts: Sequence[str]) -> None:
        """Put texts on the wire as somebody else's program might."""
        if self.kind == "isolated":
            delivery = Delivery(self.config, self.root.runtime.registry)
            for text in texts:
                delivery.deliver(channel, text)
            return
        if self.kind == "postgres":
            statement, channel = "SELECT pg_notify(:channel, :text)", self.config.channel(channel)
        else:
            statement = (
                "INSERT INTO oban_actors_notifications (channel, payload) VALUES (:channel, :text)"
            )
        rows = [{"channel": channel, "text": text} for text in texts]

        def work(connection: sa.Connection) -> None:
            for row in rows:
                connection.execute(sa.text(statement), row)

        self.repo.transaction(work)

    def crash(self) -> None:
        """Let the Notifier crash, and wait until the next one is there."""
        before = self.root.whereis("notifier")
        assert before is not None
        self.notifier.adjust = _raise
        self.root.tell("notifier", Unlisten([], before))
        wait_until(lambda: self.root.whereis("notifier") not in (None, before), message="another")

    def close(self) -> None:
        """Stop everything."""
        for ear in self._ears:
            ear.stop()
        self.root.stop()
        self.repo.close()


class Rig:
    """Nodes on one database."""

    def __init__(self, database: Database, kind: NotifierKind, stack: ExitStack) -> None:
        self.database = database
        self.kind = kind
        self._stack = stack

    def node(self, **options: Any) -> Node:
        """Start a node."""
        node = Node(self.database, self.kind, **options)
        self._stack.callback(node.close)
        return node


@contextmanager
def rig_for(database: Database, kind: NotifierKind) -> Iterator[Rig]:
    """Give a rig whose nodes end with the block."""
    with ExitStack() as stack:
        yield Rig(database, kind, stack)


def backends(conninfo: str, name: str) -> list[int]:
    """Server processes of listening connections of the instances of a name."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = %s",
            [f"oban_actors {name} listen"],
        )
        return [row[0] for row in rows]


def terminate(conninfo: str, pids: Sequence[int]) -> None:
    """End server processes."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [pids])


def crash_once(node: Node, kind: type) -> threading.Event:
    """Let the Notifier crash over the next message of this type; set when it has."""
    crashed = threading.Event()
    notifier = node.notifier
    for name in ("handle_info", "handle_call"):
        handle = getattr(notifier, name)

        def failing(message: Any, *rest: Any, handle: Any = handle) -> Any:
            if isinstance(message, kind):
                crashed.set()
                raise RuntimeError(f"a bug in handling {kind.__name__}")  # noqa: TRY004 (a bug put in)
            return handle(message, *rest)

        setattr(notifier, name, failing)
    return crashed


def _raise(*_: Any) -> Any:
    raise RuntimeError("a bug")
