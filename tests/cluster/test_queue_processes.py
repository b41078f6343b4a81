"""Nodes that run jobs, each a process: what each did when one is killed, or the server restarts."""

import signal
from collections import Counter
from typing import Any

import pytest

from oban_actors import Job, Oban
from oban_actors.queues.roster import LEAST_BACKLOG
from tests.queues.test_refused import refuse
from tests.support.databases import Database
from tests.support.instances import Starter, starter
from tests.support.nodes import Node, cluster
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

LIMIT = 20
BACKLOG = max(LIMIT, LEAST_BACKLOG)
"""Acknowledgements that may wait: with more nothing is fetched, as docs/queues.md promises."""

OPTIONS: dict[str, Any] = {
    "queues": {"alpha": LIMIT},
    "stager": {"interval": 0.2},
    "module": "tests.cluster.job_node",
}


def insert(oban: Oban, count: int, **args: Any) -> list[int]:
    """Insert jobs that say that they ran."""
    made = [Job.new(args, worker="tests.tell", queue="alpha") for _ in range(count)]
    return [job.id or 0 for job in oban.insert_all(made)]


def ran(nodes: list[Node]) -> Counter[int]:
    """How often each job was begun, on all nodes together."""
    return Counter(line["ran"] for node in nodes for line in list(node.said) if "ran" in line)


def wait_for_more(nodes: list[Node], count: int = 200) -> None:
    """Wait until so many more jobs were begun."""
    seen = len(ran(nodes))
    wait_until(lambda: len(ran(nodes)) > seen + count, timeout=60)


def test_two_nodes_share_a_queue(start_oban: Starter) -> None:
    """Both drain it; every job runs once."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 2, **OPTIONS) as nodes:
        ids = insert(inserter, 2_000)

        def both_run() -> bool:
            # One may be so quick that it leaves the other none.
            if start_oban.tables.count("available") == 0:
                ids.extend(insert(inserter, 1_000))
            return all(ran([node]) for node in nodes)

        wait_until(both_run, timeout=60)
        wait_until(lambda: start_oban.tables.count("completed") == len(ids), timeout=90)
        wait_until(lambda: sum(ran(nodes).values()) >= len(ids))

        assert ran(nodes) == Counter(ids)
        assert start_oban.tables.execute("SELECT DISTINCT attempt FROM {jobs}") == [(1,)]


def test_a_node_is_killed_under_load(start_oban: Starter) -> None:
    """`kill -9`: what it leaves executing is bounded, and no job runs twice; the other goes on."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 2, **OPTIONS) as nodes:
        ids = insert(inserter, 3_000)

        def both_run() -> bool:
            # One may be so quick that it leaves the other none.
            if start_oban.tables.count("available") < 1_000:
                ids.extend(insert(inserter, 1_000))
            return all(len(ran([node])) >= 100 for node in nodes)

        wait_until(both_run, timeout=60)
        nodes[0].signal(signal.SIGKILL)
        nodes[0].process.wait(30)
        wait_until(lambda: start_oban.tables.count("available") == 0, timeout=90)
        more = insert(inserter, 100)
        count = len(ids) + len(more)
        states = start_oban.tables.states
        wait_until(lambda: all(states()[job_id] == "completed" for job_id in more), timeout=60)
        found = states()
        left = {job_id for job_id, state in found.items() if state == "executing"}

        assert len(left) <= LIMIT + BACKLOG
        assert Counter(found.values())["completed"] == count - len(left)
        wait_until(lambda: len(ran(nodes) | Counter(left)) >= count)
        assert set(ran(nodes).values()) == {1}


def test_a_node_is_killed_with_its_ends_unwritten(start_oban: Starter) -> None:
    """What a `kill -9` makes run again is bounded also where no end has been written for long."""
    tables = start_oban.tables
    ids = insert(start_oban.make(), LIMIT + BACKLOG + 100)
    refuse(start_oban, ids, "completed")
    producers = tables.jobs.replace("oban_jobs", "oban_actors_producers")
    beats: set[Any] = set()

    def has_beaten(times: int) -> bool:
        beats.update(tables.execute(f"SELECT beat_at FROM {producers}"))
        return len(beats) > times

    with cluster(start_oban.database, 1, pulse={"interval": 0.2}, **OPTIONS) as (node,):
        wait_until(lambda: len(ran([node])) > BACKLOG, timeout=60)
        # Each tells the queue that there is work, and more than that it would never be told.
        wait_until(lambda: has_beaten(5), timeout=60)
        node.signal(signal.SIGKILL)
        node.process.wait(30)
    left = {job_id for job_id, state in tables.states().items() if state == "executing"}

    assert BACKLOG < len(left) <= LIMIT + BACKLOG
    assert set(ran([node])) <= left
    assert set(ran([node]).values()) == {1}
    assert tables.count("available") == len(ids) - len(left)


@pytest.mark.parametrize("step", ["claiming", "claimed", "ended", "writing", "written"])
def test_a_node_is_killed_at_a_step(start_oban: Starter, step: str) -> None:
    """`kill -9` at each step: nothing is lost or ends twice, and only what had begun runs again."""
    tables = start_oban.tables
    ids = insert(start_oban.make(), 60)
    with cluster(start_oban.database, 1, die=step, **OPTIONS) as (node,):
        assert node.process.wait(60) == -signal.SIGKILL
    before = ran([node])
    states = tables.states()
    left = {job_id for job_id, state in states.items() if state == "executing"}
    done = {job_id for job_id, state in states.items() if state == "completed"}

    assert set(before.values()) <= {1}
    assert done <= set(before) <= done | left
    assert len(left) <= LIMIT
    # A transaction that was not committed leaves what it found.
    assert bool(left) is (step != "claiming")
    assert bool(done) is (step == "written")
    # As a Lifeline does, when no beat has come for long.
    tables.execute("UPDATE {jobs} SET state = 'available' WHERE state = 'executing'")
    with cluster(start_oban.database, 1, **OPTIONS) as nodes:
        wait_until(lambda: tables.count("completed") == 60, timeout=60)
        wait_until(lambda: sum(ran(nodes).values()) >= 60 - len(done))
        assert ran(nodes) == Counter(set(ids) - done)


@pytest.mark.db
def test_the_server_restarts_while_jobs_run(
    own_server: PostgresServer, own_database: Database
) -> None:
    """All are acknowledged afterwards; none runs again, whatever answer was lost."""
    with starter(own_database) as one:
        inserter = one.make()
        with cluster(own_database, 2, **OPTIONS) as nodes:
            ids = insert(inserter, 4_000)
            for mode in ("fast", "immediate"):
                wait_for_more(nodes)
                own_server.restart(mode)
            wait_until(lambda: one.tables.count("completed") == 4_000, timeout=120)
            wait_until(lambda: sum(ran(nodes).values()) >= 4_000)

            assert ran(nodes) == Counter(ids)
            assert one.tables.execute("SELECT DISTINCT attempt FROM {jobs}") == [(1,)]
            assert all(node.process.poll() is None for node in nodes)
