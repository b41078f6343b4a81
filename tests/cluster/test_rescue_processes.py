"""Nodes that die, sleep and lose their database, each a process: what runs again, what does not."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oban_actors import Job, Oban
from tests.support.databases import Database
from tests.support.instances import Starter, starter
from tests.support.nodes import Node, cluster, freeze
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

WATCH = 3.0

OPTIONS: dict[str, Any] = {
    "queues": {"alpha": 20},
    "stager": None,
    "pulse": {"interval": 0.3},
    "lifeline": {"watch": WATCH, "interval": 0.2},
    "module": "tests.cluster.rescue_node",
}


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file that holds jobs for as long as it is there."""
    file = tmp_path / "hold"
    file.touch()
    return file


def insert(oban: Oban, count: int, hold: Path, **args: Any) -> list[int]:
    """Insert jobs that hold on."""
    given = {"hold": str(hold)} | args
    made = [Job.new(given, worker="tests.cling", queue="alpha") for _ in range(count)]
    return [job.id or 0 for job in oban.insert_all(made)]


def ran(nodes: list[Node]) -> Counter[int]:
    """How often each job was begun, on all nodes together."""
    return Counter(line["ran"] for node in nodes for line in list(node.said) if "ran" in line)


def looks(node: Node, result: str = "done") -> int:
    """How many looks came to that."""
    return sum(line.get("look") == result for line in list(node.said))


def wait_for_looks(node: Node, count: int, result: str = "done") -> None:
    """Wait for so many more looks."""
    before = looks(node, result)
    wait_until(lambda: looks(node, result) >= before + count, 90, f"{count} looks {result}")


def rescued(nodes: list[Node]) -> Counter[int]:
    """How often each job was rescued, by all nodes together."""
    return Counter(
        job for node in nodes for line in list(node.said) for job in line.get("rescued", ())
    )


def producers(one: Starter) -> set[str]:
    """Name all that have a row."""
    table = one.tables.jobs.replace("oban_jobs", "oban_actors_producers")
    return {row[0] for row in one.tables.execute(f"SELECT uuid FROM {table}")}


def attempts(one: Starter) -> dict[int, tuple[str, int]]:
    """The state and attempt of each job."""
    rows = one.tables.execute("SELECT id, state, attempt FROM {jobs}")
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.mark.parametrize(("count", "peer"), [(2, {}), (3, {}), (3, None)])
def test_a_killed_nodes_jobs_run_again(
    start_oban: Starter, hold: Path, count: int, peer: dict[str, Any] | None
) -> None:
    """`kill -9`: its jobs, and only those, run on the others, each once more; its row goes."""
    inserter = start_oban.make()
    options = OPTIONS | {"peer": peer}
    with cluster(start_oban.database, count, **options) as nodes:
        ids = insert(inserter, 12 * count, hold)
        wait_until(lambda: len(ran(nodes)) == len(ids), 60)
        victim = max(nodes, key=lambda node: len(ran([node])))
        victim.signal(signal.SIGKILL)
        victim.process.wait(30)
        taken = set(ran([victim]))
        assert taken
        others = [node for node in nodes if node is not victim]
        wait_until(lambda: start_oban.tables.count("completed") == len(taken), 90)
        for node in others:
            wait_for_looks(node, 3)

        assert ran(nodes) == Counter(ids) + Counter(taken)
        assert rescued(nodes) == Counter(taken)
        assert {
            i for i, found in attempts(start_oban).items() if found == ("completed", 2)
        } == taken
        assert len(producers(start_oban)) == count - 1
        hold.unlink()
        wait_until(lambda: start_oban.tables.count("completed") == len(ids), 60)
        assert ran(nodes) == Counter(ids) + Counter(taken)


def test_all_nodes_are_killed(start_oban: Starter, hold: Path) -> None:
    """The first one that is started again finds what all have left, and runs it."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 2, **OPTIONS) as nodes:
        ids = insert(inserter, 24, hold)
        wait_until(lambda: len(ran(nodes)) == len(ids), 60)
        for node in nodes:
            node.signal(signal.SIGKILL)
            node.process.wait(30)
    with cluster(start_oban.database, 1, **OPTIONS) as nodes:
        wait_until(lambda: start_oban.tables.count("completed") == len(ids), 90)
        wait_until(lambda: ran(nodes).total() >= len(ids))

        assert ran(nodes) == Counter(ids)
        assert len(producers(start_oban)) == 1


def test_a_node_that_was_stopped_comes_back(start_oban: Starter, hold: Path) -> None:
    """SIGSTOP for longer than the watch: its jobs run elsewhere; when it goes on they are told."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 1, **OPTIONS) as (sleeper,):
        ids = insert(inserter, 3, hold, heed=True)
        wait_until(lambda: len(ran([sleeper])) == 3, 60)
        found = inserter.get_job(ids[0])
        assert found is not None
        uuid = found.attempted_by[1]
        wait_until(lambda: uuid in producers(start_oban))
        with cluster(start_oban.database, 2, **OPTIONS) as others:
            freeze(sleeper, start_oban)
            wait_until(lambda: start_oban.tables.count("completed") == 3, 90)
            wait_until(lambda: uuid not in producers(start_oban))
            rows = [inserter.get_job(each) for each in ids]

            sleeper.signal(signal.SIGCONT)
            wait_until(lambda: [e for e in list(sleeper.said) if "over" in e][2:], 60)
            wait_until(lambda: uuid in producers(start_oban))
            for node in (sleeper, *others):
                wait_for_looks(node, 3)

            assert all(e["cancelled"] for e in sleeper.said if "over" in e)
            assert [inserter.get_job(each) for each in ids] == rows
            assert all(row is not None and (row.attempt, row.errors) == (2, []) for row in rows)
            nodes = [sleeper, *others]
            assert ran(nodes) == Counter(ids) + Counter(ids)
            hold.unlink()
            more = insert(inserter, 30, hold)
            wait_until(lambda: start_oban.tables.count("completed") == 33, 60)
            wait_until(lambda: ran(nodes).total() >= 2 * len(ids) + len(more))
            assert all(ran(nodes)[job_id] == 1 for job_id in more)


@contextmanager
def no_writes(one: Starter) -> Iterator[None]:
    """Keep all from writing, while they can read."""
    with one.tables.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        connection.exec_driver_sql("ROLLBACK")


@pytest.mark.timeout(300)
def test_a_file_that_nobody_can_write_to_kills_nobody(sqlite: Database, hold: Path) -> None:
    """For longer than the watch no beat comes through, but neither does anybody see one missing."""
    with starter(sqlite) as one:
        inserter = one.make()
        patience = {"lock_timeout": 0.1, "statement_timeout": 0.3}
        with cluster(sqlite, 2, **OPTIONS, **patience) as nodes:
            ids = insert(inserter, 6, hold)
            wait_until(lambda: len(ran(nodes)) == 6, 60)
            for node in nodes:
                wait_for_looks(node, 3)
            with no_writes(one):
                for node in nodes:
                    wait_for_looks(node, 8, "failed")
            for node in nodes:
                wait_for_looks(node, round(2 * WATCH / 0.2))
            assert ran(nodes) == Counter(ids)
            hold.unlink()
            wait_until(lambda: one.tables.count("completed") == 6, 60)
            assert ran(nodes) == Counter(ids)
            assert rescued(nodes) == Counter()


@pytest.mark.timeout(300)
def test_a_server_that_is_away_kills_nobody(
    own_server: PostgresServer, own_database: Database, hold: Path
) -> None:
    """Two watches long, and restarted again and again: every job runs once."""
    with starter(own_database) as one:
        inserter = one.make()
        # The first look comes before the first beat, most of the times.
        rare = {"pulse": {"interval": 0.5}, "lifeline": {"watch": WATCH, "interval": 0.1}}
        with cluster(own_database, 2, **OPTIONS | rare) as nodes:
            ids = insert(inserter, 6, hold)
            wait_until(lambda: len(ran(nodes)) == 6, 60)
            for node in nodes:
                wait_for_looks(node, 3)
            own_server.stop("fast")
            for node in nodes:
                wait_for_looks(node, round(2 * WATCH / 0.1), "failed")
            own_server.start()
            for node in nodes:
                wait_for_looks(node, 5)
            for mode in ("immediate", "fast", "immediate"):
                own_server.restart(mode)
                for node in nodes:
                    wait_for_looks(node, 5)
            for node in nodes:
                wait_for_looks(node, round(2 * WATCH / 0.1))
            assert ran(nodes) == Counter(ids)
            hold.unlink()
            wait_until(lambda: one.tables.count("completed") == 6, 90)
            assert ran(nodes) == Counter(ids)
            assert rescued(nodes) == Counter()


def test_a_rescuer_is_killed_in_the_middle(start_oban: Starter, hold: Path, tmp_path: Path) -> None:
    """`kill -9` within the transaction: nothing of it stays, and another one does it all."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 1, **OPTIONS | {"lifeline": None}) as (victim,):
        ids = insert(inserter, 15, hold)
        wait_until(lambda: len(ran([victim])) == 15, 60)
        victim.signal(signal.SIGKILL)
        victim.process.wait(30)
    token = tmp_path / "freeze"
    token.touch()
    with cluster(start_oban.database, 1, **OPTIONS | {"queues": None, "freeze": str(token)}) as (
        rescuer,
    ):
        wait_until(lambda: not token.exists(), 60)
        assert start_oban.tables.count("executing") == 15
        rescuer.signal(signal.SIGKILL)
        rescuer.process.wait(30)
    with cluster(start_oban.database, 2, **OPTIONS) as nodes:
        wait_until(lambda: start_oban.tables.count("completed") == 15, 90)
        # What they say comes after the commits.
        wait_until(lambda: ran(nodes).total() >= 15)
        wait_until(lambda: rescued([rescuer, *nodes]).total() >= 15)

        assert ran(nodes) == Counter(ids)
        assert rescued([rescuer, *nodes]) == Counter(ids)
