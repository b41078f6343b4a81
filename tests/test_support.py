"""The harness itself: servers leave nothing behind, the proxy goes silent, checks tell."""

import inspect
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests import conftest
from tests.bench.report import Report
from tests.support import programs
from tests.support.events import Recorder
from tests.support.leaks import no_leaked_threads
from tests.support.ports import HOST, free_port
from tests.support.postgres import PostgresServer, StopMode
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until

KNOCK = struct.pack("!ii", 8, 80_877_103)
"""Asks a PostgreSQL server whether it speaks TLS; it answers "N"."""


@pytest.fixture
def proxy(own_server: PostgresServer) -> Iterator[TcpProxy]:
    """A proxy in front of a server of our own."""
    with TcpProxy(own_server.port) as proxy:
        yield proxy


def test_server_whose_port_is_taken_meanwhile_gets_another() -> None:
    """Two that are made at the same time may have been given the same one."""
    server = PostgresServer()
    with socket.create_server((HOST, 0)) as other:
        taken = server.port = other.getsockname()[1]
        with server, psycopg.connect(server.conninfo()) as connection:
            assert connection.info.port == server.port != taken


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_server_restarts_in_every_mode(own_server: PostgresServer, mode: StopMode) -> None:
    """It comes back on the same port, which is never PostgreSQL's own."""
    port = own_server.port

    own_server.restart(mode)

    assert (own_server.port, own_server.running) == (port, True)
    assert port != 5432
    assert _answer(own_server.conninfo(), "SELECT 1") == 1


def test_server_listens_on_its_socket_too(own_server: PostgresServer) -> None:
    """Its directory serves as a host name."""
    assert _answer(own_server.conninfo(), "SELECT 1", host=str(own_server.directory)) == 1


def test_killed_server_comes_back_with_its_data(own_server: PostgresServer) -> None:
    """A kill cuts connections, and what was committed is there after the next start."""
    with psycopg.connect(own_server.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        own_server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not own_server.running

    own_server.start()

    assert _answer(own_server.conninfo(), "SELECT number FROM kept") == 7
    with psycopg.connect(own_server.conninfo(), autocommit=True) as connection:
        connection.execute("DROP TABLE kept")


def test_paused_server_is_silent(own_server: PostgresServer) -> None:
    """Frozen, it answers nobody; resumed, it answers what was asked meanwhile."""
    with socket.create_connection((HOST, own_server.port)) as client:
        own_server.pause()
        client.sendall(KNOCK)
        assert _silent(client)

        own_server.resume()

        assert client.recv(1) == b"N"


def test_server_that_cannot_start_says_why() -> None:
    """The error carries the server's log."""
    with (
        pytest.raises(RuntimeError, match="max_connections"),
        PostgresServer(settings={"max_connections": "none"}),
    ):
        pass


def test_newest_programs_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the machine's programs the newest, and only a directory that has all of them."""
    monkeypatch.setattr(programs, "_machine", lambda: sorted(tmp_path.iterdir()))
    for name, number, extra in (("a", "9.6", True), ("b", "16.10", True), ("c", "17.1", False)):
        place = tmp_path / name
        place.mkdir()
        for program in ("postgres", "initdb") if extra else ("postgres",):
            (place / program).write_text(f"#!/bin/sh\necho postgres {number}\n")
            (place / program).chmod(0o755)

    assert programs.program_directory.__wrapped__() == tmp_path / "b"


def test_embedded_programs_are_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are taken where the machine has none, and where there are none at all that is said."""
    place = tmp_path / "bin"
    place.mkdir()
    for program in ("postgres", "initdb"):
        (place / program).write_text("#!/bin/sh\necho postgres 17.1\n")
        (place / program).chmod(0o755)
    monkeypatch.setattr(programs, "_machine", list)
    monkeypatch.setattr(programs, "_embedded", lambda: [place])
    assert programs.program_directory.__wrapped__() == place

    monkeypatch.setattr(programs, "_embedded", list)

    with pytest.raises(FileNotFoundError, match="make test"):
        programs.program_directory.__wrapped__()


def test_a_server_that_is_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started beside it."""
    url = "postgresql://someone@127.0.0.1:5999/somewhere"
    monkeypatch.setenv("OBAN_TEST_DATABASE_URL", url)
    monkeypatch.setattr(conftest, "PostgresServer", None)

    made = inspect.unwrap(conftest.postgres_server)()

    assert next(made).conninfo("mine") == "postgresql://someone@127.0.0.1:5999/mine"


def test_no_server_is_on_the_usual_port() -> None:
    """Nor on any that a service of the machine's may want."""
    assert all(free_port() >= 10_000 for _ in range(200))


def test_proxy_forwards(own_server: PostgresServer, proxy: TcpProxy) -> None:
    """Through it the server is as it is, and a connection that ended is forgotten."""
    with psycopg.connect(make_conninfo(own_server.conninfo(), port=proxy.port)) as connection:
        assert connection.execute("SELECT repeat('x', 1000000)").fetchone() == ("x" * 1_000_000,)
        assert proxy.connections == 1

    wait_until(lambda: proxy.connections == 0)


def test_frozen_proxy_is_silent(own_server: PostgresServer, proxy: TcpProxy) -> None:
    """Neither bytes nor the end of a connection get through until it thaws."""
    with (
        socket.create_connection((HOST, proxy.port)) as asking,
        socket.create_connection((HOST, proxy.port)) as ended,
    ):
        for client in (asking, ended):
            client.sendall(KNOCK)
            assert client.recv(1) == b"N"
        proxy.freeze()
        asking.sendall(KNOCK)
        own_server.stop("immediate")
        assert _silent(asking)
        assert _silent(ended)
        with socket.create_connection((HOST, proxy.port)) as late:
            assert _silent(late)

        proxy.thaw()

        for client in (asking, ended):
            client.settimeout(30)
            assert client.recv(1) == b""


def test_proxy_drops_connections(proxy: TcpProxy) -> None:
    """All are cut, even while it is frozen, and new ones are taken."""
    with socket.create_connection((HOST, proxy.port), timeout=30) as client:
        wait_until(lambda: proxy.connections == 1)
        proxy.freeze()

        proxy.drop()

        assert client.recv(1) == b""
    proxy.thaw()
    with socket.create_connection((HOST, proxy.port), timeout=30) as client:
        client.sendall(KNOCK)
        assert client.recv(1) == b"N"


def test_proxy_without_a_server_hangs_up(own_server: PostgresServer, proxy: TcpProxy) -> None:
    """Where nobody listens behind it, a client sees its connection end."""
    own_server.stop()

    with socket.create_connection((HOST, proxy.port), timeout=30) as client:
        assert client.recv(1) == b""


def test_recorder_waits_for_events() -> None:
    """It finds what came before and what comes later, and names what came instead."""
    recorder = Recorder()
    recorder.handle("oban.plugin.stop", {"duration": 1}, {"plugin": "a"})
    late = threading.Timer(0.05, recorder.handle, ("oban.plugin.stop", {}, {"plugin": "b"}))
    late.start()

    found = recorder.wait_for("oban.plugin.stop", lambda event: event.metadata["plugin"] == "b")

    late.join()
    assert found.metadata == {"plugin": "b"}
    assert recorder.wait_for("oban.plugin.stop").measurements == {"duration": 1}
    assert len(recorder.wait_for_count(2, "oban.plugin.stop")) == 2
    with pytest.raises(AssertionError, match=r"oban\.plugin\.stop"):
        recorder.wait_for("oban.plugin.start", timeout=0)
    recorder.clear()
    assert recorder.all() == []


def test_wait_until_names_what_it_waited_for() -> None:
    """It returns the first true answer, else fails with the message and the last answer."""
    answers = iter([None, 0, "here"])

    assert wait_until(lambda: next(answers)) == "here"
    with pytest.raises(AssertionError, match="the train, last: 0"):
        wait_until(lambda: 0, timeout=0.01, message="the train")


def test_leaked_thread_is_named() -> None:
    """A thread that outlives the block is an error, a daemon too."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="straggler", daemon=True)

    with pytest.raises(AssertionError, match="straggler"), no_leaked_threads(timeout=0.05):
        thread.start()

    end.set()
    thread.join()


def test_bench_prints_table_and_figures() -> None:
    """Figures are aligned under their headings; samples become percentiles."""
    report = Report(group="actors")
    report.add("tell", 212_345.6, "1/s", goal="> 150000")
    report.add_samples("lateness", [float(number) for number in range(1, 101)], "ms", goal="< 200")

    lines = report.table().splitlines()

    assert lines[0].split() == ["what", "figure", "unit", "goal"]
    assert lines[1].split() == ["actors:", "tell", "212,346", "1/s", ">", "150000"]
    assert [line.split()[3] for line in lines[2:]] == ["50.5", "100", "100"]
    assert report.plain()["figures"][2]["goal"] == "< 200"


def _answer(conninfo: str, query: LiteralString, **options: str | int) -> object:
    with psycopg.connect(make_conninfo(conninfo, **options)) as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def _silent(client: socket.socket) -> bool:
    client.settimeout(0.2)
    try:
        client.recv(1)
    except TimeoutError:
        client.settimeout(30)
        return True
    return False
