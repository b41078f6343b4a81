"""The endpoint under bad clients, crashes and bugs: it goes on answering."""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Oban, ServerCrashed
from oban_actors.actors import Ref
from oban_actors.health import Vitals, conversation, judging
from oban_actors.health import server as health_server
from oban_actors.messages import Look
from tests.health.client import ANY, address, connect, get, say, wait_until_ready
from tests.support.instances import Starter
from tests.support.waiting import wait_until


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
