"""`oban-actors start`: nodes and parents as they are run, signalled and killed."""

import json
import re
import signal
from pathlib import Path

import pytest

from oban_actors import Job, Oban
from tests.cli.commands import Started, alive, command, kill, started
from tests.support.databases import Database
from tests.support.instances import Starter, starter
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LONG = {"OBAN_SHUTDOWN_GRACE_PERIOD": "600"}


@pytest.fixture
def oban(start_oban: Starter) -> Oban:
    """An instance that inserts; the tables are there."""
    return start_oban.make()


def insert(oban: Oban, count: int, **args: object) -> list[int]:
    """Insert jobs for the workers of `tests.cli.work`."""
    jobs = [Job.new(args, worker="tests.cli.tell", queue="alpha") for _ in range(count)]
    return [job.id or 0 for job in oban.insert_all(jobs)]


def wait_ran(one: Started, ids: list[int]) -> None:
    """Wait until these jobs have run."""
    wait_until(lambda: set(ids) <= set(one.ran()), timeout=120, message=f"{ids} in {one.err}")


def wait_both(one: Started, oban: Oban) -> None:
    """Wait until both workers have run jobs since."""
    seen: set[int] = set()

    def both() -> bool:
        ids = insert(oban, 10)
        wait_ran(one, ids)
        seen.update(one.ran()[each] for each in ids)
        return set(one.workers().values()) <= seen

    wait_until(both, timeout=120, message="jobs on both")


def inet_sockets(pid: int) -> set[str]:
    """Which TCP sockets a process has."""
    mine = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        if found := re.match(r"socket:\[(\d+)\]", str(descriptor.readlink())):
            mine.add(found[1])
    known = {
        line.split()[9]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text("utf-8").splitlines()[1:]
    }
    return mine & known


def test_a_node_runs_jobs_until_it_is_told_to_stop(
    start_oban: Starter, oban: Oban, tmp_path: Path
) -> None:
    """SIGTERM: what runs ends first, then it leaves with 0."""
    gate = tmp_path / "gate"
    with started(start_oban.database, "--queues", "alpha=5", more=LONG) as node:
        (job_id,) = insert(oban, 1, gate=str(gate))
        wait_ran(node, [job_id])
        node.process.send_signal(signal.SIGTERM)
        node.wait_for("stops on SIGTERM")
        gate.touch()

        assert node.end() == 0
        # No collection looks through all that was imported.
        (told,) = map(json.loads, node.out)
        assert told["frozen"] > 10_000
    assert start_oban.tables.states() == {job_id: "completed"}


def test_a_parent_looks_after_its_workers(start_oban: Starter, oban: Oban) -> None:
    """Both run jobs; one that is killed is replaced; SIGTERM ends them in order, within time.

    The parent itself has no connection.
    """
    with started(start_oban.database, "--queues", "alpha=2", "--processes", "2") as parent:
        parent.wait_for("worker [01] runs", 2)
        wait_both(parent, oban)
        before = parent.workers()
        kill(before[1])
        parent.wait_for(r"worker 1 was killed by SIGKILL")
        parent.wait_for("worker 1 runs", 2)
        assert parent.workers()[0] == before[0]
        assert parent.workers()[1] != before[1]
        wait_both(parent, oban)
        assert inet_sockets(parent.process.pid) == set()
        files = [str(each.readlink()) for each in Path(f"/proc/{parent.process.pid}/fd").iterdir()]
        assert not [name for name in files if "jobs.db" in name]
        if start_oban.database.kind == "postgresql":
            assert inet_sockets(parent.workers()[0])
        workers = parent.workers()
        parent.process.send_signal(signal.SIGTERM)

        assert parent.end(60) == 0
        ends = [line for line in parent.err if "ended with exit code 0" in line]
        assert [re.findall(r"worker (\d) ended", line) for line in ends] == [["1"], ["0"]]
        assert not any(map(alive, workers.values()))


def test_all_drain_while_the_last_one_ends(start_oban: Starter, oban: Oban, tmp_path: Path) -> None:
    """One grace period is for all: whoever is to end later begins nothing new meanwhile."""
    table = start_oban.tables.jobs.replace("oban_jobs", "oban_actors_producers")

    def producers() -> int:
        return int(start_oban.tables.execute(f"SELECT count(*) FROM {table}")[0][0])

    words = ("--queues", "alpha=1", "--processes", "2")
    with started(
        start_oban.database, *words, more={**LONG, "OBAN_PULSE_INTERVAL": "0.5"}
    ) as parent:
        parent.wait_for("worker [01] runs", 2)
        gates = [tmp_path / "a", tmp_path / "b"]
        ids = [insert(oban, 1, gate=str(gate))[0] for gate in gates]
        wait_ran(parent, ids)
        wait_until(lambda: producers() == 2)
        gate_of = {parent.ran()[job_id]: gate for job_id, gate in zip(ids, gates, strict=True)}
        first, last = parent.workers()[0], parent.workers()[1]
        assert set(gate_of) == {first, last}
        parent.process.send_signal(signal.SIGTERM)
        gate_of[first].touch()
        wait_until(lambda: producers() == 1, timeout=60)
        (late,) = insert(oban, 1)
        assert alive(first)
        gate_of[last].touch()

        assert parent.end(60) == 0
    states = start_oban.tables.states()
    assert states == {ids[0]: "completed", ids[1]: "completed", late: "available"}


def test_workers_end_with_a_parent_that_is_killed(
    start_oban: Starter, oban: Oban, tmp_path: Path
) -> None:
    """`kill -9`: nobody is left, and what they ran came to its end."""
    gate = tmp_path / "gate"
    with started(
        start_oban.database, "--queues", "alpha=2", "--processes", "2", more=LONG
    ) as parent:
        parent.wait_for("worker [01] runs", 2)
        # As many as both together can run, so that neither has none and ends at once.
        ids = insert(oban, 4, gate=str(gate))
        wait_ran(parent, ids)
        workers = list(parent.workers().values())
        parent.process.kill()
        parent.process.wait(30)
        # They have been told: nothing new is begun.
        wait_until(lambda: all(is_ending(start_oban, each) for each in workers), timeout=60)
        gate.touch()
        wait_until(lambda: not any(map(alive, workers)), timeout=60)
    assert set(start_oban.tables.states().values()) == {"completed"}


def is_ending(start: Starter, pid: int) -> bool:
    """Whether a worker's tree ends: its peer is gone before its queues are, and never comes."""
    return alive(pid) and not start.tables.execute("SELECT node FROM {peers}")


@pytest.mark.parametrize("words", [(), ("--processes", "1")])
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_terminal_that_closes_stops_and_never_hurries(
    start_oban: Starter, oban: Oban, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Its SIGHUPs, however many, are a stop in order: what runs has its time to end."""
    gate = tmp_path / "gate"
    with started(start_oban.database, "--queues", "alpha=1", *words, more=LONG) as node:
        (job_id,) = insert(oban, 1, gate=str(gate))
        wait_ran(node, [job_id])
        node.process.send_signal(signal.SIGHUP)
        node.wait_for("SIGHUP: workers stop" if words else "stops on SIGHUP")
        node.process.send_signal(signal.SIGHUP)
        for worker in node.workers().values():
            kill(worker, signal.SIGHUP)
        wait_until(lambda: is_draining(start_oban), timeout=60)
        assert start_oban.tables.states() == {job_id: "executing"}
        gate.touch()

        assert node.end() == 0
        assert not [line for line in node.err if "hurries" in line]
    assert start_oban.tables.states() == {job_id: "completed"}


def is_draining(start: Starter) -> bool:
    """Whether the only node's tree ends: its leadership is given back before its queues end."""
    return not start.tables.execute("SELECT node FROM {peers}")


@pytest.mark.parametrize("words", [(), ("--processes", "1")])
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_under_nohup_a_terminal_may_close(
    start_oban: Starter, oban: Oban, words: tuple[str, ...]
) -> None:
    """SIGHUP is ignored and stays so; SIGTERM stops it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started(start_oban.database, "--queues", "alpha=1", *words) as node:
            signal.signal(signal.SIGHUP, before)
            wait_ran(node, insert(oban, 1))
            node.process.send_signal(signal.SIGHUP)
            wait_ran(node, insert(oban, 1))
            node.process.send_signal(signal.SIGTERM)

            assert node.end(60) == 0
            assert not [line for line in node.err if "SIGHUP" in line]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_hurries_the_workers(
    start_oban: Starter, oban: Oban, tmp_path: Path
) -> None:
    """Jobs that would wait for ten minutes are told at once, on all workers."""
    words = ("--queues", "alpha=2", "--processes", "2")
    with started(start_oban.database, *words, more=LONG) as parent:
        parent.wait_for("worker [01] runs", 2)
        ids = insert(oban, 4, gate=str(tmp_path / "never"))
        wait_ran(parent, ids)
        parent.process.send_signal(signal.SIGTERM)
        parent.wait_for("SIGTERM: workers stop")
        parent.process.send_signal(signal.SIGINT)

        assert parent.end(60) == 0
    assert start_oban.tables.count("executing") == 0


@pytest.mark.db
def test_a_worker_that_dies_while_the_server_is_away_comes_back(
    own_server: PostgresServer, own_database: Database
) -> None:
    """It is tried again, and not counted, until the server is there; the others never ended."""
    with starter(own_database) as one:
        oban = one.make()
        words = ("--queues", "alpha=2", "--processes", "2")
        with started(own_database, *words, more={"OBAN_CONNECT_TIMEOUT": "1"}) as parent:
            parent.wait_for("worker [01] runs", 2)
            before = parent.workers()
            own_server.stop()
            kill(before[1])
            parent.wait_for("worker 1 ended with exit code 3", 2)
            own_server.start()
            parent.wait_for("worker 1 runs", 2)
            assert parent.workers()[0] == before[0]
            wait_both(parent, oban)
            parent.process.send_signal(signal.SIGTERM)

            assert parent.end(60) == 0


@pytest.mark.parametrize("words", [(), ("--processes", "1")])
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_jobs_run_in_processes_of_their_own(
    start_oban: Starter, oban: Oban, words: tuple[str, ...]
) -> None:
    """A queue's executor may be processes, however the node was started."""
    more = {"OBAN_QUEUES": '{"alpha": {"limit": 1, "executor": "processes"}}'}
    with started(start_oban.database, *words, more=more) as node:
        (job_id,) = insert(oban, 1)
        wait_ran(node, [job_id])
        wait_until(lambda: start_oban.tables.states() == {job_id: "completed"}, timeout=60)
        node.process.send_signal(signal.SIGTERM)

        assert node.end(60) == 0
        assert node.ran()[job_id] not in {node.process.pid, *node.workers().values()}


def test_a_tree_is_shown_through_its_health_port(sqlite: Database) -> None:
    """Of several workers each has a port of its own, one after the other."""
    assert command("migrate", database=sqlite).code == 0
    port = free_port()
    words = ("--queues", "alpha=2", "--processes", "2", "--health-port", str(port))
    with started(sqlite, *words) as parent:
        parent.wait_for("worker [01] runs", 2)
        first = command("tree", "--health-port", str(port))
        second = command("tree", "--url", f"http://127.0.0.1:{port + 1}", "--json")
        configured = command("tree", more={"OBAN_HEALTH_PORT": str(port)})
        parent.process.send_signal(signal.SIGTERM)

        assert parent.end(60) == 0
    assert first.code == second.code == configured.code == 0
    assert re.search(r"alpha +idle", first.out)
    assert "stager" in [each["id"] for each in second.json["children"]]


@pytest.mark.parametrize("words", [(), ("--processes", "2")])
def test_what_keeps_a_node_from_starting_is_its_exit_code(
    sqlite: Database, words: tuple[str, ...]
) -> None:
    """No tables: 4; the database refuses: 3; alone and under a parent, with the error once."""
    none = command("start", *words, database=sqlite)
    away = command("start", *words, "--database-url", "postgresql://u@127.0.0.1:1/x")

    assert none.code == 4
    assert none.err.count("error: there is no table oban_jobs") == 1
    assert away.code == 3
    assert away.err.count("error: connection failed") == 1


def test_a_worker_that_dies_too_often_ends_the_parent(sqlite: Database, tmp_path: Path) -> None:
    """A module that ends the process: the parent gives up, and says so."""
    assert command("migrate", database=sqlite).code == 0
    (tmp_path / "deadly.py").write_text(
        "import os, threading\nthreading.Timer(0.1, os._exit, [7]).start()\n"
    )
    found = command(
        "start", "--import", "deadly", "--processes", "1", database=sqlite, directory=tmp_path
    )

    assert found.code == 1
    assert "gave up: worker 0 ended with exit code 7: the 6th within 300 seconds" in found.err
