"""Idle: what a whole tree costs that has nothing to do."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import psycopg

from tests.bench.backlog import Store, new_file, new_store
from tests.bench.program import Program
from tests.bench.report import Report
from tests.support.postgres import PostgresServer


@dataclass(frozen=True)
class Case:
    """One way to be idle.

    Attributes:
        name: of its figures.
        interval: of the Stager, in seconds.
        queues: how many.
        follows: whether another node leads beside it.
        sqlite: whether the database is SQLite's.

    """

    name: str
    interval: float = 1.0
    queues: int = 2
    follows: bool = False
    sqlite: bool = False


LEADER = Case("leader")
RARE = Case("leader at an interval of 30", interval=30.0)
FOLLOWER = Case("follower", follows=True)
SQLITE = Case("SQLite, leader", sqlite=True)
GOALS = {LEADER: "< 80", RARE: "< 25", FOLLOWER: "< 10"}


@dataclass(frozen=True)
class Size:
    """How long it is looked at.

    Attributes:
        rounds: the medians of which are reported.
        settle: seconds until a node has begun all that it does.
        seconds: that it is looked at.
        many: queues, instead of two.
        cases: beside that one; the leader is among them.

    """

    rounds: int = 3
    settle: float = 15.0
    seconds: float = 60.0
    many: int = 100
    cases: tuple[Case, ...] = (LEADER, RARE, FOLLOWER, SQLITE)


BASELINE = """
import contextlib, importlib, json, sys
for name in json.load(sys.stdin):
    # Some exist only within others.
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""

COMMITS = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""
CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
"""

MOST = 6
"""Actors of a node that are named, of those that cost most."""

Facts = dict[str, Any]


def run(report: Report, size: Size = Size()) -> None:
    """Measure on a durable server and on a file; all cases idle side by side."""
    many = Case(f"leader of {size.many} queues", queues=size.many)
    cases = (*size.cases, many)
    facts: dict[Case, list[Facts]] = {case: [] for case in cases}
    with PostgresServer(durable=True) as server:
        for _ in range(size.rounds):
            with ThreadPoolExecutor(len(cases)) as pool:
                for case, found in zip(
                    cases, pool.map(lambda case: _idle(server, case, size), cases), strict=True
                ):
                    facts[case].append(found)
    for case in cases:
        _report(report, case, facts[case], facts[LEADER])
    for key, name, goal in (("cpu", "CPU", "< 1.1"), ("own", "transactions", "< 1.1")):
        ratio = _middle(facts[many], key) / _middle(facts[LEADER], key)
        report.add(f"{name}, {size.many} queues", ratio, "of two queues", goal)
    _memory(report, facts[LEADER][-1])


def _report(report: Report, case: Case, facts: list[Facts], alone: list[Facts]) -> None:
    spent = [each["cpu"] for each in facts]
    report.add(f"{case.name}, CPU", median(spent), "s a minute", "< 0.1")
    report.add(f"{case.name}, CPU, most", max(spent), "s a minute")
    own = _middle(facts, "own")
    report.add(f"{case.name}, transactions begun", own, "a minute", GOALS.get(case, ""))
    for key, what, unit in (
        ("transactions", "transactions begun by", "a minute"),
        ("by_thread", "CPU of", "s a minute"),
    ):
        for name, value in list(facts[-1][key].items())[:MOST]:
            report.add(f"{case.name}, {what}: {name}", value, unit)
    if case.sqlite:
        return
    counted = _middle(facts, "counted")
    if case.follows:
        # The database's counter is for both of them.
        counted -= _middle(alone, "counted")
    report.add(f"{case.name}, transactions as the server counts", counted, "a minute")
    report.add(f"{case.name}, connections", _middle(facts, "connections"), "at the end")


def _middle(facts: list[Facts], key: str) -> float:
    return float(median(each[key] for each in facts))


def _idle(server: PostgresServer, case: Case, size: Size) -> Facts:
    with ExitStack() as stack:
        store = stack.enter_context(new_file() if case.sqlite else new_store(server))
        if case.follows:
            leader = stack.enter_context(_node(store, replace(case, follows=False), size))
            leader.wait_for("settled")
        node = stack.enter_context(_node(store, case, size))
        begun, before = node.wait_for("settled"), _counted(store, COMMITS)
        over, after = node.wait_for("over"), _counted(store, COMMITS)
        node.wait_for("modules")
        connections = _counted(store, CONNECTIONS) - 1
        minutes = (over - begun) / 60
        facts = node.end()
    scaled = {
        what: {name: count / minutes for name, count in facts[what].items()}
        for what in ("transactions", "by_thread")
    }
    return (
        facts
        | scaled
        | {
            "cpu": facts["cpu"] / minutes,
            "own": sum(scaled["transactions"].values()),
            "counted": (after - before) / minutes,
            "connections": connections,
        }
    )


def _node(store: Store, case: Case, size: Size) -> Program:
    options = {
        "interval": case.interval,
        "queues": case.queues,
        "follows": case.follows,
        "settle": size.settle,
        "seconds": size.seconds,
    }
    return Program(sys.executable, "idle", store.url, json.dumps(options))


def _counted(store: Store, statement: str) -> int:
    if not store.conninfo:
        return 0
    with psycopg.connect(store.conninfo, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def _memory(report: Report, facts: Facts) -> None:
    """What a tree takes above an interpreter that has imported the same libraries."""
    ours = ("oban_actors", "tests", "__main__")
    libraries = [name for name in facts["modules"] if name.split(".")[0] not in ours]
    result = subprocess.run(
        [sys.executable, "-c", BASELINE],
        input=json.dumps(libraries),
        check=True,
        capture_output=True,
        text=True,
    )
    baseline = int(result.stdout) / 1024
    report.add("memory of the leader", facts["rss"], "MB")
    report.add("memory of its libraries", baseline, "MB")
    report.add("memory above its libraries", facts["rss"] - baseline, "MB", "< 12")
