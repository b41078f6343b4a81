"""LISTEN and NOTIFY, and a server or a network that goes away."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from oban_actors.actors.clock import real_monotonic
from oban_actors.errors import DatabaseError
from oban_actors.messages import (
    Listen,
    LockLost,
    Notification,
    Notify,
    Reconnect,
    TryLock,
    Unlock,
)
from oban_actors.notifiers import link as links
from oban_actors.notifiers.link import Link
from oban_actors.notifiers.postgres import _Connected
from oban_actors.notifiers.select_mailbox import Readable, Tick
from tests.notifiers.rig import Node, Rig, backends, crash_once, rig_for, terminate
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

END = {"the": "end"}
KEYS = itertools.count(7_000_000)
LOCKED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"

pytestmark = pytest.mark.db


@pytest.fixture
def pg_rig(pg: Database) -> Iterator[Rig]:
    """Nodes on the server that all tests share."""
    with rig_for(pg, "postgres") as rig:
        yield rig


@pytest.fixture
def own_rig(own_database: Database) -> Iterator[Rig]:
    """Nodes on a server that the test may stop."""
    with rig_for(own_database, "postgres") as rig:
        yield rig


@contextmanager
def through_proxy(server: PostgresServer, rig: Rig) -> Iterator[tuple[TcpProxy, dict[str, Any]]]:
    """Give a proxy, and options that make a node listen through it."""
    with TcpProxy(server.port) as proxy:
        url = rig.database.url.replace(f":{server.port}/", f":{proxy.port}/")
        listen_url = url.replace("postgresql+psycopg:", "postgresql:")
        yield proxy, {"notifier": {"listen_url": listen_url}, "connect_timeout": 2.0}


def hears(node: Node, ear: Any) -> None:
    """Wait until an ear hears what is sent from now on."""
    numbers = itertools.count()

    def heard() -> bool:
        node.publish("signal", {"try": next(numbers)})
        return any("try" in payload for payload in ear.payloads())

    wait_until(heard, timeout=60, message="to hear again")


def test_a_notification_says_which_session_sent_it(pg_rig: Rig, pg_conninfo: str) -> None:
    """So that two of one transaction can be known as such."""
    node = pg_rig.node()
    ear = node.hear("signal")

    with psycopg.connect(pg_conninfo, autocommit=True) as session:
        session.execute("SELECT pg_notify(%s, '{}')", [node.config.channel("signal")])
        pid = session.info.backend_pid
        wait_until(ear.payloads)

    message = ear.messages[-1]
    assert isinstance(message, Notification)
    assert message.pid == pid


def test_it_listens_on_demand(pg_rig: Rig) -> None:
    """To what has listeners, from the first to the last of them."""
    node = pg_rig.node()
    assert node.notifier._heard == set()
    one, two = node.hear("signal"), node.hear("signal", "leader")
    assert node.notifier._heard == {node.config.channel("signal"), node.config.channel("leader")}

    one.leave("signal")
    two.leave("leader")
    assert node.notifier._heard == {node.config.channel("signal")}
    two.leave("signal")
    assert node.notifier._heard == set()


def test_it_stops_to_listen_for_the_dead(pg_rig: Rig) -> None:
    """Once something comes for them."""
    node = pg_rig.node()
    node.hear("signal").stop()

    node.publish("signal", END)

    wait_until(lambda: node.notifier._heard == set())


def test_strange_channels_are_quoted(pg_rig: Rig) -> None:
    """A name is a name, whatever it holds."""
    node = pg_rig.node()
    name = 'x"; DROP; --é'
    ear = node.hear(name)

    node.publish(name, END)

    ear.wait_for(END)


def test_nothing_is_lost_while_channels_change(pg_rig: Rig) -> None:
    """What comes amid the answer to a LISTEN is kept, in its order."""
    node, other = pg_rig.node(node="a"), pg_rig.node(node="b")
    ear = node.hear("insert")

    for n in range(200):
        other.publish("insert", {"n": n})
        node.tell(Listen([f"c{n}"], ear.ref))
    other.publish("insert", END)

    ear.wait_for(END)
    assert ear.payloads() == [*({"n": n} for n in range(200)), END]


@pytest.mark.parametrize("kind", [Readable, Tick, _Connected])
def test_crashed_over_its_own_messages(pg_rig: Rig, kind: type) -> None:
    """They too are followed by a Notifier that has all listeners."""
    node = pg_rig.node(name=f"n{next(KEYS)}")
    ear = node.hear("signal")
    ear.forget()
    crashed = crash_once(node, kind)

    node.tell({Readable: Readable(), Tick: Tick(), _Connected: _Connected(None)}[kind])  # type: ignore[arg-type]  # never looked at

    assert crashed.wait(30)
    ear.wait_for_reconnected()
    hears(node, ear)


def test_the_old_connection_goes_with_a_crash(pg_rig: Rig, pg_conninfo: str) -> None:
    """However often it happens, there is one."""
    node = pg_rig.node(name=f"n{next(KEYS)}")
    ear = node.hear("signal")
    for _ in range(3):
        before = backends(pg_conninfo, node.config.name)
        ear.forget()
        node.crash()
        ear.wait_for_reconnected()
        wait_until(lambda: not set(before) & set(backends(pg_conninfo, node.config.name)))  # noqa: B023 (called at once)
    assert len(backends(pg_conninfo, node.config.name)) == 1


def test_a_terminated_session_is_replaced(pg_rig: Rig, pg_conninfo: str) -> None:
    """It is no crash; listeners are told, and hear again."""
    node = pg_rig.node(name=f"n{next(KEYS)}")
    ear = node.hear("signal", "leader")
    notifier = node.notifier
    for _ in range(3):
        ear.forget()
        terminate(pg_conninfo, backends(pg_conninfo, node.config.name))
        ear.wait_for_reconnected()
        hears(node, ear)
    assert node.notifier is notifier


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server(own_server: PostgresServer, own_rig: Rig, mode: Any) -> None:
    """While it is away asks are answered, once it is back listeners are told and hear."""
    node = own_rig.node()
    ear = node.hear("signal")
    notifier = node.notifier
    ear.forget()

    own_server.stop(mode)
    wait_until(lambda: node.ask(Listen(["signal"], ear.ref)) is False)
    assert node.ask(TryLock(7)) is False
    with pytest.raises(DatabaseError):
        node.ask(Notify("signal", [END]))
    own_server.start()

    ear.wait_for_reconnected()
    hears(node, ear)
    assert node.notifier is notifier


def test_refused_at_the_start(own_server: PostgresServer, own_rig: Rig) -> None:
    """The tree stands at once, and the Notifier connects when it can."""
    own_server.stop()
    node = own_rig.node()
    ear = node.hear()
    node.tell(Listen(["signal"], ear.ref))
    wait_until(lambda: node.ask(Listen(["signal"], ear.ref)) is False)

    own_server.start()

    ear.wait_for_reconnected()
    hears(node, ear)


def test_silence_at_the_start(own_server: PostgresServer, own_rig: Rig) -> None:
    """It delays neither the tree nor other messages; who asked is answered in time."""
    with through_proxy(own_server, own_rig) as (proxy, options):
        proxy.freeze()
        node = own_rig.node(**options)
        ear = node.hear()
        assert node.ask(TryLock(7)) is False
        assert node.ask(Listen(["signal"], ear.ref)) is False

        proxy.thaw()
        ear.wait_for_reconnected()
        hears(node, ear)


def test_a_silent_connection_is_given_up_when_told(
    own_server: PostgresServer, own_rig: Rig
) -> None:
    """Whether it is half open nobody here can tell; who knows better says `Reconnect()`."""
    with through_proxy(own_server, own_rig) as (proxy, options):
        node = own_rig.node(**options)
        ear = node.hear("signal")
        first = node.notifier._link
        proxy.freeze()
        ear.forget()

        began = real_monotonic()
        assert node.ask(Reconnect()) is None
        assert real_monotonic() - began < links.ROUND_TRIP
        assert node.notifier._link is not first
        proxy.thaw()

        ear.wait_for_reconnected()
        hears(node, ear)


def test_a_silent_connection_holds_nobody_up(own_server: PostgresServer, own_rig: Rig) -> None:
    """What needs an answer from the server gives it up after a few seconds."""
    with through_proxy(own_server, own_rig) as (proxy, options):
        node = own_rig.node(**options)
        ear = node.hear("signal")
        proxy.freeze()
        ear.forget()

        assert node.ask(Listen(["leader"], ear.ref)) is False
        proxy.thaw()

        ear.wait_for_reconnected()
        hears(node, ear)


def test_a_cut_connection(own_server: PostgresServer, own_rig: Rig) -> None:
    """It is noticed by itself."""
    with through_proxy(own_server, own_rig) as (proxy, options):
        node = own_rig.node(**options)
        ear = node.hear("signal")
        ear.forget()

        proxy.drop()

        ear.wait_for_reconnected()
        hears(node, ear)


def test_a_lock_is_one_sessions(pg_rig: Rig, pg_conninfo: str) -> None:
    """Taken once, however often it is tried; refused to others at once; given back."""
    one, two = pg_rig.node(node="a"), pg_rig.node(node="b")
    key = next(KEYS)
    one.hear("signal")
    two.hear("signal")

    assert one.ask(TryLock(key)) is True
    assert one.ask(TryLock(key)) is True
    assert two.ask(TryLock(key)) is False
    assert two.ask(Unlock(key)) is False
    assert one.ask(Unlock(key)) is True
    assert two.ask(TryLock(key)) is True
    assert one.ask(TryLock(key)) is False


def test_a_lost_lock_is_told(pg_rig: Rig, pg_conninfo: str) -> None:
    """To the Peer; and another session can take it."""
    one, two = pg_rig.node(name=f"n{next(KEYS)}"), pg_rig.node(name=f"n{next(KEYS)}")
    key = next(KEYS)
    peer = one.hear("signal", name="peer")
    two.hear("signal")
    assert one.ask(TryLock(key)) is True

    terminate(pg_conninfo, backends(pg_conninfo, one.config.name))

    peer.wait_for_message(LockLost(key))
    wait_until(lambda: two.ask(TryLock(key)))


@pytest.mark.parametrize("how", ["crash", "reconnect", "kill"])
def test_a_lock_is_lost_with_its_notifier(pg_rig: Rig, how: str) -> None:
    """However that ends."""
    node = pg_rig.node()
    key = next(KEYS)
    peer = node.hear("signal", name="peer")
    assert node.ask(TryLock(key)) is True

    match how:
        case "crash":
            node.crash()
        case "reconnect":
            node.tell(Reconnect())
        case "kill":
            node.notifier.on_kill()

    peer.wait_for_message(LockLost(key))
    peer.wait_for_reconnected()
    wait_until(lambda: node.ask(TryLock(key)))


def test_no_lock_behind_a_pooler(
    pg_rig: Rig, pg_conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the server process is not the one that greeted, and the lock would be another's."""
    monkeypatch.setattr(Link, "pid", 1)
    node = pg_rig.node()
    key = next(KEYS)
    node.hear("signal")

    assert node.ask(TryLock(key)) is False
    with psycopg.connect(pg_conninfo, autocommit=True) as session:
        assert session.execute(LOCKED, [key]).fetchone() == (0,)


def test_a_key_that_is_none(pg_rig: Rig) -> None:
    """The server's refusal is the asker's, and the Notifier goes on."""
    node = pg_rig.node()
    ear = node.hear("signal")
    notifier = node.notifier

    with pytest.raises(DatabaseError):
        node.ask(TryLock(2**70))
    node.publish("signal", END)

    ear.wait_for(END)
    assert node.notifier is notifier


def test_its_publisher_works_inside_any_transaction(pg_rig: Rig, pg_conninfo: str) -> None:
    """The database's own rules hold: a failed statement later takes all back."""
    node = pg_rig.node()
    ear = node.hear("signal")

    def work(connection: Any) -> None:
        node.publisher.publish(connection, "signal", [{"n": 1}])
        connection.exec_driver_sql("SELECT 1/0")

    with pytest.raises(DatabaseError):
        node.repo.transaction(work)
    node.publish("signal", END)

    ear.wait_for(END)
    assert ear.payloads() == [END]
