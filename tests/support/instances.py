"""Start instances for tests, and actors that stand beside them."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from oban_actors import ActorError, IsLeader, Job, Listen, Oban, Stage
from oban_actors.actors import GenServer, Ref, Runtime
from oban_actors.actors.process import process_of
from oban_actors.messages import Notification
from oban_actors.notifiers import PostgresNotifier
from tests.support.databases import Database
from tests.support.waiting import wait_until


class Collector(GenServer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.messages: list[Any] = []

    def handle_info(self, message: Any) -> None:
        """Keep it."""
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()


class Heard:
    """What a collector was told, seen from a test."""

    def __init__(self, ref: Ref) -> None:
        self.ref = ref
        self._messages: list[Any] = ref.proxy().messages.get()

    def payloads(self, channel: str) -> list[Any]:
        """Payloads that came on a channel."""
        return [m.payload for m in list(self._messages) if _on(m, channel)]

    def told(self, kind: type) -> list[Any]:
        """What came of one kind."""
        return [m for m in list(self._messages) if isinstance(m, kind)]

    def wait_for(self, channel: str, count: int = 1) -> list[Any]:
        """Wait until so many payloads came on a channel."""
        wait_until(lambda: len(self.payloads(channel)) >= count, message=f"{count} on {channel}")
        return self.payloads(channel)


def _on(message: object, channel: str) -> bool:
    return isinstance(message, Notification) and message.channel == channel


class Tables:
    """The tables of a test's database, as a program beside the instance sees them."""

    def __init__(self, database: Database) -> None:
        schema = database.prefix if database.kind == "postgresql" else None
        self.engine = sa.create_engine(database.url, poolclass=sa.NullPool)
        self.jobs = f'"{schema}".oban_jobs' if schema else "oban_jobs"
        self.peers = f'"{schema}".oban_peers' if schema else "oban_peers"
        self.schema = schema

    def execute(self, statement: str, **values: Any) -> list[Any]:
        """Run one statement in a transaction of its own; `{jobs}` and `{peers}` are the tables."""
        with self.engine.begin() as connection:
            return self.on(connection, statement, **values)

    def on(self, connection: sa.Connection, statement: str, **values: Any) -> list[Any]:
        """Run one statement on a connection."""
        text = statement.replace("{jobs}", self.jobs).replace("{peers}", self.peers)
        result = connection.execute(sa.text(text), values)
        return list(result) if result.returns_rows else []

    def states(self) -> dict[int, str]:
        """Each job's state by its id."""
        return {row[0]: row[1] for row in self.execute("SELECT id, state FROM {jobs}")}

    def count(self, state: str) -> int:
        """How many jobs are in a state."""
        return int(self.execute("SELECT count(*) FROM {jobs} WHERE state = :s", s=state)[0][0])


class Starter:
    """Makes instances on one database and stops them at the end of the test."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tables = Tables(database)
        self._made: list[Oban] = []
        self._collectors: list[Ref] = []

    def make(self, **options: Any) -> Oban:
        """Make an instance with its tables there, not started."""
        oban = Oban(self.database.url, prefix=self.database.prefix, **options)
        oban.migrate()
        self._made.append(oban)
        return oban

    def __call__(self, **options: Any) -> Oban:
        """Make an instance and start it."""
        return self.make(**options).start()

    def leading(self, **options: Any) -> Oban:
        """Start an instance and wait until it leads."""
        oban = self(**options)
        wait_until_leader(oban)
        if oban.config.stager is not None:
            wait_until_listening(oban)
            wait_until_staged(oban)
        return oban

    def hear(self, oban: Oban, *channels: str) -> Heard:
        """Start an actor that listens to an instance's channels."""
        ref = Collector.start_link(runtime=oban._runtime)
        self._collectors.append(ref)
        oban.ask("notifier", Listen(channels, ref), timeout=30)
        return Heard(ref)

    def close(self) -> None:
        """Stop everything."""
        for ref in self._collectors:
            ref.stop()
        for oban in reversed(self._made):
            oban.stop()
            oban.repo.close()
        self.tables.engine.dispose()


@contextmanager
def starter(database: Database) -> Iterator[Starter]:
    """Give a starter that ends with the block."""
    one = Starter(database)
    try:
        yield one
    finally:
        one.close()


def wait_until_leader(oban: Oban) -> None:
    """Wait until an instance leads."""

    def leads() -> bool:
        with contextlib.suppress(ActorError):
            return bool(oban.ask("peer", IsLeader(), timeout=30))
        return False

    wait_until(leads, message="leadership")


def wait_until_listening(oban: Oban) -> None:
    """Wait until the notifier's first connection stands and all were told of it, or it failed."""

    def connected() -> bool:
        ref = oban.whereis("notifier")
        actor: Any = process_of(ref).actor if ref is not None else None
        return not isinstance(actor, PostgresNotifier) or bool(actor._link or actor._failing)

    wait_until(connected, message="the notifier listens")
    wait_until_idle(oban, "notifier")


def wait_until_staged(oban: Oban) -> None:
    """Wait until no pass is due any more that the start has led to: what follows is of the test."""

    def ahead() -> bool:
        oban.ask("stager", Stage(), timeout=30)
        ref = oban.whereis("stager")
        timer = getattr(process_of(ref).actor, "_timer", None) if ref is not None else None
        return timer is not None and timer.live and timer.due > oban._runtime.clock.monotonic()

    wait_until(ahead, message="no pass is due")


def wait_until_idle(oban: Oban, name: Any) -> None:
    """Wait until an actor has done what it was at, also what comes after the event of a run."""

    def idle() -> bool:
        node = oban.tree().find(name)
        return node is not None and node.state == "idle"

    wait_until(idle, message=f"{name} idle")


def scheduled(seconds: float, *, queue: str = "alpha", **options: Any) -> Job:
    """Make a job that is due in so many seconds."""
    return Job.new(worker="tests.Worker", args={}, queue=queue, schedule_in=seconds, **options)


def available(queue: str = "alpha") -> Job:
    """Make a job that can run now."""
    return Job.new(worker="tests.Worker", args={}, queue=queue)


def named_actor(oban: Oban, name: Any, make: Callable[[], type[GenServer]] | None = None) -> Ref:
    """Start an actor under a name of an instance, as a stand-in."""
    cls = make() if make else Collector
    return cls.start_link(name=name, runtime=oban._runtime)


__all__ = [
    "Collector",
    "Heard",
    "Runtime",
    "Starter",
    "Tables",
    "available",
    "named_actor",
    "scheduled",
    "starter",
    "wait_until_leader",
]
