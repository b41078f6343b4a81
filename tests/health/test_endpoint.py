"""The endpoint of a running instance, asked as probes do and by worse."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from oban_actors import Job, ServerCrashed
from oban_actors.messages import Look
from oban_actors.stager import Stager
from tests.health.client import ANY, Answered, address, connect, get, say, wait_until_ready
from tests.support.databases import Database
from tests.support.events import recording
from tests.support.instances import Starter, starter, wait_until_leader
from tests.support.proxy import TcpProxy
from tests.support.waiting import wait_until


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
    misled = get(where, "/tree", host="evil.example")
    assert misled.status == 421
    assert b"health.hosts" in misled.raw
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


def test_a_follower_knows_who_leads(start_oban: Starter) -> None:
    """Readiness needs no leadership of one's own."""
    leader = start_oban.leading()
    follower = start_oban(health=ANY, node="other")
    ready = wait_until_ready(follower)

    wait_until_leader(leader)
    assert not ready.body["checks"]["leader"]["leader"].startswith("other/")
