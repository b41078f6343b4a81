"""Two and three processes on one database: one leader, hand-over, nothing staged twice."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.instances import Starter, scheduled
from tests.support.nodes import cluster, freeze, leader_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

FAST: dict[str, Any] = {"stager": {"interval": 0.2, "limit": 50}}
SHORT_LEASE: dict[str, Any] = {"peer": {"lease": 3.0, "renew": 1.0}, **FAST}


@pytest.mark.parametrize("count", [2, 3])
def test_one_leader_and_nothing_staged_twice(start_oban: Starter, count: int) -> None:
    """However many nodes there are, one leads, and each job is staged by it, once."""
    inserter = start_oban.make()
    with cluster(start_oban.database, count, **FAST) as nodes:
        leader = leader_of(nodes)
        jobs = inserter.insert_all([scheduled(n / 200) for n in range(-200, 200)])
        wait_until(lambda: start_oban.tables.count("available") == len(jobs))
        wait_until(lambda: sum(len(node.staged) for node in nodes) == len(jobs))
        assert sorted(leader.staged) == sorted(job.id or 0 for job in jobs)
        assert sum(node.leads for node in nodes) == 1


def test_a_leader_that_stops_hands_over_at_once(start_oban: Starter) -> None:
    """Long before its lease would have lapsed, another node leads and stages."""
    inserter = start_oban.make()
    options = {"peer": {"lease": 600.0, "renew": 200.0}, **FAST}
    with cluster(start_oban.database, 2, **options) as nodes:
        leader = leader_of(nodes)
        (other,) = [node for node in nodes if node is not leader]
        leader.signal(signal.SIGTERM)
        wait_until(lambda: other.leads)
        job = inserter.insert(scheduled(0.1))
        wait_until(lambda: job.id in other.staged)


def test_a_killed_leader_is_replaced(start_oban: Starter) -> None:
    """`kill -9` sends nothing: its lock, or the lapse of its lease, tells the others."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 3, **SHORT_LEASE) as nodes:
        leader = leader_of(nodes)
        others = [node for node in nodes if node is not leader]
        leader.signal(signal.SIGKILL)
        wait_until(lambda: sum(node.leads for node in others) == 1)
        jobs = inserter.insert_all([scheduled(0.1) for _ in range(20)])
        wait_until(lambda: start_oban.tables.count("available") == len(jobs))
        staged = [job_id for node in nodes for job_id in node.staged]
        assert len(staged) == len(set(staged))


@pytest.mark.db
def test_a_killed_leader_is_replaced_before_its_lease_lapses(start_oban: Starter) -> None:
    """On PostgreSQL the lock that dies with its connection hands over, whatever the lease."""
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite has no session locks")
    start_oban.make()
    options = {"peer": {"lease": 600.0, "renew": 200.0}, **FAST}
    with cluster(start_oban.database, 2, **options) as nodes:
        leader = leader_of(nodes)
        (other,) = [node for node in nodes if node is not leader]
        row = "SELECT node FROM {peers}"
        wait_until(lambda: start_oban.tables.execute(row)[0][0].endswith(":lock"))
        leader.signal(signal.SIGKILL)
        wait_until(lambda: other.leads)


def test_a_frozen_leader_does_not_act_when_it_thaws(start_oban: Starter) -> None:
    """SIGSTOP for longer than the lease, then SIGCONT: the other leads, and stays the only one."""
    inserter = start_oban.make()
    with cluster(start_oban.database, 2, **SHORT_LEASE) as nodes:
        leader = leader_of(nodes)
        (other,) = [node for node in nodes if node is not leader]
        freeze(leader, start_oban)
        wait_until(lambda: other.leads, timeout=90)
        first = inserter.insert_all([scheduled(0.05) for _ in range(50)])
        wait_until(lambda: start_oban.tables.count("available") == len(first))
        leader.signal(signal.SIGCONT)
        wait_until(lambda: not leader.leads, timeout=60)
        second = inserter.insert_all([scheduled(0.05) for _ in range(50)])
        wait_until(lambda: start_oban.tables.count("available") == len(first) + len(second))
        staged = leader.staged + other.staged
        assert len(staged) == len(set(staged))


@pytest.mark.db
def test_a_leader_frozen_in_a_pass_holds_nobody_up(start_oban: Starter, tmp_path: Path) -> None:
    """Its transaction holds the lease's row: PostgreSQL ends it, however long statements may take.

    That is a pass step by step: one that is a single message never waits for its process. On
    SQLite nobody can take a stopped writer's lock from it.
    """
    if start_oban.database.kind != "postgresql":
        pytest.skip("SQLite can't end another process's transaction")
    inserter = start_oban.make()
    token = tmp_path / "token"
    token.touch()
    options = {"statement_timeout": 3600.0, "freeze": str(token), **SHORT_LEASE}
    with cluster(start_oban.database, 2, notifier="isolated", **options) as nodes:
        leader = leader_of(nodes)
        (other,) = [node for node in nodes if node is not leader]
        job = inserter.insert(scheduled(0.05))
        wait_until(lambda: not token.exists())
        wait_until(lambda: other.leads, timeout=60)
        wait_until(lambda: job.id in other.staged)
        leader.signal(signal.SIGCONT)
        wait_until(lambda: not leader.leads, timeout=60)
        assert job.id not in leader.staged
