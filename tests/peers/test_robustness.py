"""What must not end leadership for good: crashes, bad messages, and a database that goes away."""

import logging
from typing import Any

import pytest

from oban_actors.actors import GenServer
from oban_actors.actors.lifecycle import kill
from oban_actors.actors.process import process_of
from oban_actors.errors import ServerCrashed
from oban_actors.messages import (
    Election,
    GetLeader,
    GetLease,
    IsLeader,
    LockLost,
    Notification,
    Reconnected,
)
from oban_actors.peers import DatabasePeer
from tests.peers.harness import LONG, Cluster, clustered, listening
from tests.queues.work import crashes, jobs, renew
from tests.support.databases import Database
from tests.support.instances import Starter
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

TOLD = [
    Election(),
    Reconnected(),
    LockLost(1),
    Notification("leader", {"down": "Oban"}, 7),
    Notification("leader", {"down": "Other"}, 7),
    Notification("leader", {"lock": "web.9"}),
    Notification("actors", {"name": "Oban", "beat": "web.9/oban_actors:x", "next": 1.0}, 7),
    Notification("actors", {"name": "Oban", "beat": 7, "next": None}, 7),
    Notification(
        "actors",
        {"name": "Oban", "beat": "web.9/oban_actors:x", "next": 1.0, "renewed": "long"},
        7,
    ),
    Notification(
        "actors",
        {"name": "Oban", "beat": "web.9/oban_actors:x", "next": 10**400, "renewed": 10**400},
        7,
    ),
    Notification(
        "actors", {"name": "Oban", "beat": "web.9/oban_actors:x", "next": True, "renewed": True}, 7
    ),
    Notification("actors", {"name": "Oban", "pulse": "web.9", "token": "t"}, 7),
    Notification("sonar", {"node": "web.9", "ping": True}, 7),
    Notification("sonar", {"node": 7, "ping": True}, 7),
    Notification("gossip", {}, 7),
]
ASKED = [Election(), IsLeader(), GetLeader(), GetLease()]


@pytest.mark.parametrize("message", TOLD, ids=repr)
def test_any_message_may_come_twice_and_late(cluster: Cluster, message: object) -> None:
    """No message, however often or when it comes, does harm in the end."""
    node = cluster.start(peer={"mode": "equal"})
    peer = node.peer
    for _ in range(2):
        peer.tell(message)
    wait_until(node.elect)
    for _ in range(2):
        peer.tell(message)

    wait_until(node.elect)
    assert node.peer is peer


@pytest.mark.parametrize(
    "number", [f"1{'0' * 400}", f"-1{'0' * 400}", "1e999", "-1e999", "NaN", "Infinity", "true"]
)
def test_a_follower_hears_any_number(pg_cluster: Cluster, number: str) -> None:
    """In a beat of its leader's, as another program may write it: it follows on."""
    leader = pg_cluster.start(peer=LONG)
    assert leader.leads
    node = pg_cluster.start(peer=LONG)
    assert not node.leads
    peer, channel = node.peer, leader.config.channel("actors")

    with listening(node, "actors") as heard:
        for about in (f'"next": 1, "renewed": {number}', f'"next": {number}, "renewed": 5'):
            beat = f'{{"name": "Oban", "beat": "{leader.identity}", {about}}}'
            pg_cluster.execute("SELECT pg_notify(:channel, :beat)", channel=channel, beat=beat)
        last = '{"name": "Oban", "last": 1}'
        pg_cluster.execute("SELECT pg_notify(:channel, :last)", channel=channel, last=last)
        wait_until(lambda: any("last" in payload for payload in heard))

    assert not node.leads
    assert node.peer is peer


def test_an_unknown_message_is_dropped_and_an_unknown_question_is_a_bug(cluster: Cluster) -> None:
    """Told nonsense it goes on; asked nonsense it dies, and its successor leads."""
    node = cluster.start(peer=LONG)
    peer = node.peer
    peer.tell("nonsense")
    assert node.leads
    with pytest.raises(ServerCrashed):
        peer.ask("nonsense", timeout=30)

    wait_until(lambda: node.leads)
    assert node.peer is not peer


@pytest.mark.parametrize("message", TOLD, ids=repr)
def test_a_crash_at_any_message_told_is_survived(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, message: object
) -> None:
    """The row is given up, and the successor takes it."""
    node = cluster.start(peer={**LONG, "mode": "equal"})
    assert node.leads
    peer, handle = node.peer, DatabasePeer.handle_info

    def crash(self: DatabasePeer, got: Any) -> None:
        handle(self, got)
        if got is message and self.actor_ref is peer:
            raise RuntimeError("crash")

    monkeypatch.setattr(DatabasePeer, "handle_info", crash)
    peer.tell(message)

    wait_until(lambda: node.peer is not peer and node.elect())


@pytest.mark.parametrize("message", ASKED, ids=repr)
def test_a_crash_at_any_question_is_survived(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, message: object
) -> None:
    """Whoever asked is told, and the successor leads."""
    node = cluster.start(peer=LONG)
    assert node.leads
    peer, handle = node.peer, DatabasePeer.handle_call

    def crash(self: DatabasePeer, got: Any, sender: Any) -> Any:
        if got is message and self.actor_ref is peer:
            raise RuntimeError("crash")
        return handle(self, got, sender)

    monkeypatch.setattr(DatabasePeer, "handle_call", crash)
    with pytest.raises(ServerCrashed):
        peer.ask(message, timeout=30)

    wait_until(lambda: node.peer is not peer and node.elect())


def test_a_crash_in_the_first_election_is_survived(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor starts it again."""
    begin, crashes = DatabasePeer.handle_continue, iter([RuntimeError("crash")])

    def crash(self: DatabasePeer, arg: Any) -> None:
        for error in crashes:
            raise error
        begin(self, arg)

    monkeypatch.setattr(DatabasePeer, "handle_continue", crash)
    node = cluster.start()

    wait_until(lambda: node.leads)


def test_a_peer_that_crashes_hands_over(cluster: Cluster) -> None:
    """Its `terminate` resigns, so that another, or its successor, leads at once."""
    first = cluster.start(peer=LONG)
    assert first.leads
    second = cluster.start(peer=LONG)
    assert not second.leads
    with pytest.raises(ServerCrashed):
        first.peer.ask("nonsense", timeout=30)

    cluster.wait_for_leader()


def test_a_notifier_that_crashes_ends_no_leadership(cluster: Cluster) -> None:
    """The lease holds without it, and `down` is heard again once it is back."""
    first = cluster.start(peer=LONG)
    assert first.leads
    second = cluster.start(peer=LONG)
    assert not second.leads
    for node in (first, second):
        before = node.root.whereis("notifier")
        assert before is not None
        with pytest.raises(ServerCrashed):
            before.ask("nonsense", timeout=30)
        wait_until(lambda node=node, before=before: node.root.whereis("notifier") is not before)  # type: ignore[misc]  # from below, or wrong on purpose
    wait_until(first.elect)
    second.elect()

    cluster.stop(first)

    wait_until(lambda: second.leads)


def test_works_without_a_notifier(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody by that name: the lease alone decides."""
    monkeypatch.setattr(GenServer, "whereis", lambda _self, _name: None)
    node = cluster.start(peer=LONG)

    assert node.leads
    assert cluster.holder() == node.identity


def test_a_missing_table_disables_leadership(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, the tree lives, and once the table appears there is a leader."""
    cluster.execute("ALTER TABLE {table} RENAME TO oban_peers_away")
    with caplog.at_level(logging.WARNING, logger="oban_actors"):
        node = cluster.start()
        assert not node.leads
        assert not node.elect()
        peer = node.peer
    said = [one for one in caplog.records if "leadership is disabled" in one.getMessage()]
    assert len(said) == 1

    cluster.execute(
        f"ALTER TABLE {cluster.table.replace('oban_peers', 'oban_peers_away')} RENAME TO oban_peers"
    )

    assert node.elect()
    assert node.peer is peer


def test_a_table_that_vanishes_ends_leadership(cluster: Cluster) -> None:
    """Whoever can't renew doesn't lead."""
    node = cluster.start()
    assert node.leads
    cluster.execute("ALTER TABLE {table} RENAME TO oban_peers_away")

    assert not node.elect()
    assert not node.leads


def test_a_leader_that_can_not_renew_concedes(pg_cluster: Cluster, pg_url: str) -> None:
    """Others hold its row: it can't know, so it doesn't lead; then it leads again."""
    node = pg_cluster.start(peer={"advisory_lock": False})
    assert node.leads
    with pg_cluster.repo.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT 1 FROM {pg_cluster.table} FOR UPDATE")
        assert not node.elect()
        assert not node.leads
        connection.exec_driver_sql("ROLLBACK")

    wait_until(lambda: node.leads)


def test_a_peer_killed_in_a_transaction_frees_its_thread(pg_cluster: Cluster) -> None:
    """Its statement is cancelled, and its successor leads when the row is free."""
    node = pg_cluster.start(peer={"advisory_lock": False})
    assert node.leads
    peer = node.peer
    process = process_of(peer)
    with pg_cluster.repo.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT 1 FROM {pg_cluster.table} FOR UPDATE")
        peer.tell(Election())
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: pg_cluster.execute(waiting))
        kill(process)
        assert process.thread is not None
        process.thread.join(30)
        assert not process.thread.is_alive()
        assert not process.abandoned
        connection.exec_driver_sql("ROLLBACK")

    wait_until(lambda: node.peer is not peer and node.leads)


@pytest.mark.slow
def test_a_database_that_goes_away_and_comes_back(
    own_database: Database, own_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """No crash, no leader meanwhile, and one when it is back; its absence is said once."""
    with clustered(own_database) as cluster:
        nodes = [cluster.start(), cluster.start()]
        cluster.wait_for_leader()
        peers = [node.peer for node in nodes]

        with caplog.at_level(logging.WARNING, logger="oban_actors"):
            own_server.stop("immediate")
            wait_until(lambda: not any(node.elect() for node in nodes))
            own_server.start()
            wait_until(lambda: any(node.leads for node in nodes))

        cluster.wait_for_leader()
        assert [node.peer for node in nodes] == peers
        said = [one for one in caplog.records if "election failed" in one.getMessage()]
        assert 1 <= len(said) <= 2 * len(nodes)


@pytest.mark.parametrize("column", ["node", "started_at", "expires_at"])
def test_a_lease_that_is_no_text_ends_no_tree(
    start_sqlite: Starter, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    """Nobody can be elected beside it, which is said; jobs run all the same."""
    work = renew()
    values = dict.fromkeys(("node", "started_at", "expires_at"), "'2999-01-01T00:00:00.000000Z'")
    values[column] = "cast(x'ff' AS TEXT)"
    start_sqlite.make()
    start_sqlite.tables.execute(
        f"INSERT INTO {{peers}} (name, {', '.join(values)}) VALUES ('Oban', "
        f"{', '.join(values.values())})"
    )
    oban = start_sqlite(queues={"alpha": 1})
    for _ in range(3):
        oban.ask("peer", Election(), timeout=30)
    oban.insert(jobs("sync", 1)[0])

    wait_until(lambda: len(work.ran) == 1)
    assert crashes(oban) == []
    assert "decode to UTF-8" in caplog.text
