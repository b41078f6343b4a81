"""The endpoint of a running instance, asked as probes do and by worse."""

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Address, ConfigError, Job, Oban, ServerCrashed, StartFailed
from oban_actors.actors import Ref
from oban_actors.health import Vitals, conversation, judging
from oban_actors.health import server as health_server
from oban_actors.messages import Look
from oban_actors.stager import Stager
from tests.health.client import Answered, address, connect, get, say
from tests.support.databases import Database
from tests.support.events import recording
from tests.support.instances import Starter, starter, wait_until_leader
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

ANY = {"port": 0, "interval": 0.05}


def wait_until_ready(oban: Oban) -> Answered:
    """Wait for 200, and give that answer."""
    where = address(oban)
    wait_until(lambda: get(where, "/ready").status == 200, message="ready")
    return get(where, "/ready")


def test_a_healthy_node(start_oban: Starter) -> None:
    """It lives, gets ready, and shows its tree."""
    with recording("oban.health.init") as heard:
        oban = start_oban(health=ANY, queues={"alpha": 1})
    where = address(oban)

    told = heard.wait_for("oban.health.init").metadata
    assert (told["host"], told["port"]) == ("127.0.0.1", where.port)
    ready = wait_until_ready(oban)
    assert ready.body["status"] == "ready"
    assert set(ready.body["checks"]) == {"running", "database", "schema", "leader", "listen"}
    assert ready.body["checks"]["leader"]["leader"].startswith(oban.config.node)
    assert ready.body["checks"]["listen"]["status"] == "solitary"
    live = get(where, "/live")
    assert (live.status, live.body["status"], live.body["late"]) == (200, "ok", [])
    tree = get(where, "/tree")
    assert tree.status == 200
    assert tree.body["id"] == "oban" or tree.body["actor"] == "oban"
    assert [each["id"] for each in tree.body["children"]][:3] == ["health", "notifier", "queues"]
    for answer in (ready, live, tree):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_only_what_is_there_is_answered(start_oban: Starter) -> None:
    """Other paths, methods and names are refused, and nothing that was sent comes back."""
    where = address(start_oban(health=ANY))

    assert get(where, "/live", "HEAD").raw == b""
    assert get(where, "/live", "HEAD").status == 200
    assert get(where, "/live?probe=1").status == 200
    assert get(where, "/<script>").status == 404
    assert get(where, "/live", "DELETE").status == 405
    assert get(where, "/tree", host="evil.example").status == 421
    refused = say(where, b"GET /marker-in-path HTTP/1.1\r\nHost: marker-in-host\r\n\r\n")
    assert b"marker" not in refused
    assert say(where, b"GET /live HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n").startswith(
        b"HTTP/1.1 431 "
    )


def test_no_arguments_of_jobs_are_shown(start_oban: Starter) -> None:
    """An actor that crashed over a secret shows the kind of its error."""
    oban = start_oban(health=ANY)
    job = Job.new(worker="tests.Worker", args={"token": "hunter2"})
    with pytest.raises(ServerCrashed):
        oban.ask("stager", job)
    where = address(oban)

    def crashed() -> Any:
        return "crashed: UnexpectedMessage" in get(where, "/tree").raw.decode()

    wait_until(crashed)
    assert b"hunter2" not in get(where, "/tree").raw


def test_an_actor_that_hangs_is_no_life(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named once its message is older than the patience, and forgotten when it goes on."""
    freed = threading.Event()
    monkeypatch.setattr(Stager, "on_kill", lambda _: freed.set())
    monkeypatch.setattr(Stager, "handle_continue", lambda *_: freed.wait(60))
    oban = start_oban(health={"port": 0, "patience": 1.0}, statement_timeout=0.5)
    where = address(oban)

    wait_until(lambda: get(where, "/live").status == 503)
    late = get(where, "/live").body["late"]
    assert [(each["id"], each["handling"]) for each in late] == [("stager", "Continue")]
    freed.set()
    wait_until(lambda: get(where, "/live").status == 200)


def test_tables_that_changed_are_told(start_oban: Starter) -> None:
    """A column that is gone makes the node unready, until it is back."""
    oban = start_oban(health={"port": 0, "interval": 3600})
    where = address(oban)
    wait_until(lambda: oban.ask("checkup", Look(), timeout=30) and get(where, "/ready").body)
    start_oban.tables.execute("ALTER TABLE {jobs} RENAME COLUMN tags TO labels")
    oban.ask("checkup", Look(), timeout=30)

    answer = get(where, "/ready")
    assert answer.status == 503
    assert "no column tags" in answer.body["checks"]["schema"]["error"]
    assert answer.body["checks"]["database"]["ok"] is True
    start_oban.tables.execute("ALTER TABLE {jobs} RENAME COLUMN labels TO tags")

    def well() -> Any:
        oban.ask("checkup", Look(), timeout=30)
        return get(where, "/ready").status == 200

    wait_until(well)


def test_requests_cost_the_database_nothing(start_oban: Starter) -> None:
    """Hundreds of them run no statement: what is told was looked at before."""
    oban = start_oban.leading(health={"port": 0, "interval": 3600})
    where = address(oban)

    def well() -> Any:
        oban.ask("checkup", Look(), timeout=30)
        return get(where, "/ready").status == 200

    wait_until(well)
    threads: list[str] = []

    def note(*_: object) -> None:
        threads.append(threading.current_thread().name)

    sa.event.listen(oban.repo.engine, "before_cursor_execute", note)
    for _ in range(300):
        assert get(where, "/ready").status == 200
        assert get(where, "/live").status == 200

    assert [name for name in threads if name in ("oban-health", "oban-checkup")] == []


@pytest.mark.db
def test_a_database_that_hangs_is_told_in_time(pg: Database) -> None:
    """Each request is answered at once: alive, and soon not ready; ready again afterwards."""
    url = sa.make_url(pg.url)
    assert url.port is not None
    with TcpProxy(url.port, url.host or "127.0.0.1") as proxy:
        behind = url.set(host=proxy.host, port=proxy.port).render_as_string(hide_password=False)
        with starter(Database("postgresql", behind, pg.prefix)) as start:
            oban = start(health=ANY, connect_timeout=1, statement_timeout=1)
            where = address(oban)
            wait_until_ready(oban)
            proxy.freeze()
            wait_until(lambda: get(where, "/ready").status == 503)
            checks = wait_until(lambda: _failing(get(where, "/ready"), "database"))
            assert checks["database"]["error"] == "DatabaseUnavailable"
            assert get(where, "/live").status == 200
            proxy.thaw()
            wait_until_ready(oban)


def _failing(answer: Answered, name: str) -> Any:
    checks = answer.body["checks"]
    return None if checks[name]["ok"] else checks


def test_a_port_that_is_taken_is_an_error_of_the_configuration(start_oban: Starter) -> None:
    """Nothing starts, and the message names option, address and reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        oban = start_oban.make(health=port)
        with pytest.raises(ConfigError, match=rf"'health': can't listen on 127.0.0.1 port {port}:"):
            oban.start()
    assert not oban.alive
    oban.start()  # the port is free again, and so is everything else
    assert address(oban).port == port


def descriptors() -> int:
    """Count this process's open files."""
    return len(list(Path("/proc/self/fd").iterdir()))


def replaced(oban: Oban, old: Ref) -> bool:
    """Whether another server has taken its place."""
    return oban._runtime.registry.whereis("health") not in (None, old)


def test_a_crash_leaves_port_and_answers(start_oban: Starter) -> None:
    """Its successor listens on the same port, also one that the system chose, and leaks nothing."""
    oban = start_oban(health=ANY)
    wait_until_ready(oban)
    where = address(oban)
    before = descriptors()
    for _ in range(2):
        old = oban.whereis("health")
        with pytest.raises(ServerCrashed):
            oban.ask("health", object())
        wait_until(lambda: replaced(oban, old))  # noqa: B023 (asked within the turn)
        assert address(oban) == where
        wait_until_ready(oban)

    wait_until(lambda: descriptors() <= before + 2)


def test_a_checkup_that_crashed_looks_again(start_oban: Starter) -> None:
    """What it saw stays, and its successor goes on."""
    oban = start_oban(health=ANY)
    wait_until_ready(oban)
    with pytest.raises(ServerCrashed):
        oban.ask("checkup", object())

    def looks() -> Any:
        with contextlib.suppress(Exception):
            return isinstance(oban.ask("checkup", Look(), timeout=30), Vitals)

    wait_until(looks)
    wait_until_ready(oban)


def test_clients_that_dawdle_keep_nobody_out(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More silent connections than there is room for, and others are answered all the same."""
    monkeypatch.setattr(health_server, "PATIENCE", 3600.0)
    where = address(start_oban(health=ANY))
    silent = [connect(where) for _ in range(health_server.MOST_CONNECTIONS + 10)]
    try:
        silent[-1].sendall(b"GET /li")
        assert get(where, "/live").status == 200
        # The oldest had to make room.
        assert silent[0].recv(1) == b""
    finally:
        for one in silent:
            one.close()
    monkeypatch.setattr(health_server, "PATIENCE", 0.05)
    with connect(where) as slow:
        slow.sendall(b"GET /live HTTP/1.1\r\n")
        assert slow.recv(1) == b""


def test_a_client_that_talks_on_or_goes_harms_nobody(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies, pipelined requests and resets end with their connection, long before its time."""
    monkeypatch.setattr(health_server, "PATIENCE", 3600.0)
    where = address(start_oban(health=ANY))
    twice = b"GET /live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n" * 2

    assert say(where, twice).count(b"HTTP/1.1 200 OK") == 1
    with connect(where) as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        rude.sendall(twice)
    assert get(where, "/live").status == 200


def test_a_bug_in_an_answer_ends_no_actor(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can ask could end the whole tree otherwise; it is logged and told."""
    oban = start_oban(health=ANY)
    where, actor = address(oban), oban.whereis("health")

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(judging, "alive", broken)
    answer = get(where, "/live")

    assert (answer.status, answer.body) == (500, {"error": "see the log"})
    assert oban.whereis("health") == actor
    assert "could not answer" in caplog.text


def test_a_bug_in_the_reading_ends_one_connection(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And no actor either."""
    oban = start_oban(health=ANY)
    where, actor = address(oban), oban.whereis("health")

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(conversation, "parse", broken)
        assert say(where, b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    assert "could not serve a connection" in caplog.text
    assert oban.whereis("health") == actor
    assert get(where, "/live").status == 200


def test_out_of_descriptors_it_refrains_and_comes_back(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not spin over a connection that it can't take, and takes it later."""
    oban = start_oban(health=ANY)
    where = address(oban)
    real, tries = socket.socket.accept, []

    def full(self: socket.socket) -> Any:
        if threading.current_thread().name != "oban-health":
            return real(self)
        tries.append(self)
        if len(tries) == 1:
            raise OSError(24, "Too many open files")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", full)
    assert get(where, "/live").status == 200
    assert len(tries) == 2
    assert "can't accept" in caplog.text


def test_it_answers_while_the_tree_ends(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive until the last actor has ended, not ready from the first moment on; then closed."""
    freed = threading.Event()
    ends = Stager.terminate
    monkeypatch.setattr(Stager, "on_kill", lambda _: freed.set())

    def slow_end(self: Stager, reason: Any) -> None:
        freed.wait(30)
        ends(self, reason)

    monkeypatch.setattr(Stager, "terminate", slow_end)
    oban = start_oban(health=ANY)
    where = address(oban)
    wait_until_ready(oban)
    stopping = threading.Thread(target=oban.stop)
    stopping.start()
    try:
        wait_until(lambda: get(where, "/ready").status == 503)
        assert get(where, "/ready").body["checks"]["running"]["phase"] == "stopping"
        assert get(where, "/live").body == get(where, "/live").body | {"phase": "stopping"}
        assert get(where, "/live").status == 200
    finally:
        freed.set()
        stopping.join()
    with pytest.raises(ConnectionRefusedError):
        connect(where)


def test_it_answers_while_the_tree_starts(
    start_oban: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive and not ready, while a part takes its time to begin."""
    freed = threading.Event()
    begins = Stager.init

    def slow_start(self: Stager) -> Any:
        freed.wait(30)
        return begins(self)

    monkeypatch.setattr(Stager, "init", slow_start)
    oban = start_oban.make(health=ANY)
    with recording("oban.health.init") as heard:
        starting = threading.Thread(target=oban.start)
        starting.start()
        try:
            heard.wait_for("oban.health.init")
            where = address(oban)
            live, ready = get(where, "/live"), get(where, "/ready")
            assert (live.status, live.body["phase"]) == (200, "starting")
            assert (ready.status, ready.body["checks"]["running"]["ok"]) == (503, False)
        finally:
            freed.set()
            starting.join()
    wait_until_ready(oban)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_keeps_no_port(start_oban: Starter) -> None:
    """A child that lives on does not hold the port of a parent whose tree has ended."""
    oban = start_oban(health=ANY)
    port = address(oban).port
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (another process)
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        oban.stop()
        socket.create_server(("127.0.0.1", port)).close()
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_follower_knows_who_leads(start_oban: Starter) -> None:
    """Readiness needs no leadership of one's own."""
    leader = start_oban.leading()
    follower = start_oban(health=ANY, node="other")
    ready = wait_until_ready(follower)

    wait_until_leader(leader)
    assert not ready.body["checks"]["leader"]["leader"].startswith("other/")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "'health.port': expected an integer from 0 to 65535, got: True"),
        (65_536, "'health.port': expected an integer from 0 to 65535"),
        ({}, "'health': missing required option 'port'"),
        ("4000", "'health': expected a mapping of options, a port, None or False"),
        ({"port": 1, "hots": []}, "unknown option 'hots' for health, did you mean 'hosts'?"),
        ({"port": 1, "host": ""}, "'health.host': expected a non-blank string"),
        ({"port": 1, "hosts": "a"}, "'health.hosts': expected a list of names of hosts"),
        ({"port": 1, "hosts": [1]}, "'health.hosts[0]': expected a non-blank string"),
        ({"port": 1, "interval": 0}, "'health.interval': expected a positive number"),
        ({"port": 1, "patience": 59}, "'health.patience': expected at least twice"),
    ],
)
def test_wrong_options_are_refused(given: Any, message: str) -> None:
    """By name, before anything starts."""
    with pytest.raises(ConfigError) as refused:
        Oban("sqlite:///jobs.db", health=given)
    assert message in str(refused.value)


def test_a_port_is_enough(sqlite: Database) -> None:
    """And None or False mean no endpoint."""
    assert Oban(sqlite.url, health=4000).config.health.port == 4000
    assert Oban(sqlite.url, health={"port": 1, "hosts": ["A.b"]}).config.health.hosts == ("a.b",)
    assert Oban(sqlite.url, health=False).config.health is None
    assert Oban(sqlite.url).config.health is None
    assert Oban(sqlite.url, health=4000, testing="manual").config.health is None


@pytest.mark.parametrize("asked", ["127.0.0.1", "::1"])
def test_all_addresses_at_once(start_oban: Starter, asked: str) -> None:
    """`::` is every address of either kind."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    where = address(start_oban(health={"port": 0, "host": "::"}))

    assert get(Address(asked, where.port), "/live").status == 200


def test_a_host_that_is_nobodys_is_refused(start_oban: Starter) -> None:
    """An address that this machine has not can't be listened on."""
    oban = start_oban.make(health={"port": 0, "host": "203.0.113.7"})
    with pytest.raises((ConfigError, StartFailed), match=r"can't listen on 203\.0\.113\.7"):
        oban.start()
