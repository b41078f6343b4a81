"""Growth: 1, 2, 4 and 8 nodes on one PostgreSQL, and what each more of them costs."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg

from oban_actors import Job, Oban
from tests.bench.backlog import Store, new_store, unfinished
from tests.bench.draining import drain_by
from tests.bench.program import Program
from tests.bench.report import Report
from tests.support.postgres import PostgresServer
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        nodes: how many, in turn.
        jobs: in a drain.
        limit: of the queue on each node.
        rounds: of drains, the medians of which are reported.
        seconds: of steady work.
        rate: transactions that insert in a second, meanwhile.
        batches: jobs in each of them, in turn.

    """

    nodes: tuple[int, ...] = (1, 2, 4, 8)
    jobs: int = 50_000
    limit: int = 200
    rounds: int = 3
    seconds: float = 20.0
    rate: float = 100.0
    batches: tuple[int, ...] = (1, 50)


DUTIES = ("stager", "peer", "pulse")
"""Threads of a node whose cost is that of being one of a cluster, or leading it."""


def run(report: Report, size: Size = Size()) -> None:
    """Measure on a durable server that the nodes share the machine with."""
    with PostgresServer(durable=True) as server:
        _drains(report, server, size)
        for batch in size.batches:
            for nodes in size.nodes:
                with new_store(server) as store:
                    _steady(report, store, size, nodes, batch)


def _drains(report: Report, server: PostgresServer, size: Size) -> None:
    rates: dict[int, list[float]] = {nodes: [] for nodes in size.nodes}
    for _ in range(size.rounds):
        for nodes in size.nodes:
            with new_store(server) as store:
                rates[nodes].append(drain_by(nodes, store, size.jobs, size.limit, "threads").rate)
    for nodes, found in rates.items():
        report.add(f"drain, {_named(nodes)}", median(found), "jobs/s")
        report.add(f"drain, {_named(nodes)}, slowest", min(found), "jobs/s")
        report.add(f"drain, {_named(nodes)}, fastest", max(found), "jobs/s")
    points = [(nodes, median(found)) for nodes, found in rates.items()]
    report.add_series("drain", points, "jobs/s by nodes")


def _steady(report: Report, store: Store, size: Size, nodes: int, batch: int) -> None:
    """Insert at an even pace, while the nodes run what comes."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program(sys.executable, "grown", store.url, size.limit))
            for _ in range(nodes)
        ]
        for program in programs:
            program.wait_for("started")
        heard = stack.enter_context(_notifications(store))
        before, began = _commits(store), time.time()
        transactions = _insert(store, size, batch)
        with unfinished(store) as any_left:
            wait_until(lambda: not any_left(), 300, "no job is left")
        connections = _connections(store)
        minutes = (time.time() - began) / 60
        committed = _commits(store) - before
        notified = len(heard)
        said = [program.end() for program in programs]
    jobs = transactions * batch
    if sum(each["jobs"] for each in said) != jobs:
        raise RuntimeError(f"{[each['jobs'] for each in said]} of {jobs} jobs ran")
    name = f"{_named(nodes)}, {size.rate:g} x {batch} jobs a second"
    turns = sum(each["turns"] for each in said)
    report.add(f"{name}: notifications", notified / jobs, "a job")
    report.add(f"{name}: turns", turns / jobs, "a job")
    report.add(f"{name}: commits", committed / jobs, "a job")
    report.add(f"{name}: connections", connections / nodes, "a node")
    _report_duties(report, name, said, minutes)


def _report_duties(report: Report, name: str, said: list[dict[str, Any]], minutes: float) -> None:
    def duties(each: dict[str, Any]) -> float:
        return float(sum(each["by_thread"].get(thread, 0.0) for thread in DUTIES) / minutes)

    # They end one after the other, so that several may have led in the end.
    leader = max(said, key=lambda each: int(each["passes"]))
    others = [duties(each) for each in said if each is not leader]
    report.add(f"{name}: passes of the leader", leader["passes"] / minutes, "a minute")
    report.add(f"{name}: duties of the leader", duties(leader), "CPU s a minute")
    if others:
        report.add(f"{name}: duties of another", median(others), "CPU s a minute")
    report.add(
        f"{name}: a node's CPU", median(each["cpu"] for each in said) / minutes, "s a minute"
    )


def _named(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes} nodes"


def _insert(store: Store, size: Size, batch: int) -> int:
    """Insert at an even pace, and give how many transactions that were."""
    oban, pause = Oban(store.url), threading.Event()
    began, count = time.monotonic(), round(size.seconds * size.rate)
    for done in range(count):
        pause.wait(max(0.0, began + done / size.rate - time.monotonic()))
        oban.insert_all([Job.new({}, worker="bench.threads", queue="bench") for _ in range(batch)])
    oban.repo.close()
    return count


@contextmanager
def _notifications(store: Store) -> Iterator[list[str]]:
    """Give a list that grows by each notification of jobs that comes to a listener."""
    heard: list[str] = []
    ready, over = threading.Event(), threading.Event()

    def listen() -> None:
        with psycopg.connect(store.conninfo, autocommit=True) as connection:
            connection.execute('LISTEN "public.oban_insert"')
            ready.set()
            while not over.is_set():
                heard.extend(each.payload for each in connection.notifies(timeout=0.2))

    thread = threading.Thread(target=listen)
    thread.start()
    ready.wait(30)
    try:
        yield heard
    finally:
        over.set()
        thread.join()


def _commits(store: Store) -> int:
    return _asked(store, "SELECT xact_commit FROM pg_stat_database WHERE datname = {}")


def _connections(store: Store) -> int:
    """Count the nodes', without this process's own two."""
    condition = "datname = {} AND backend_type = 'client backend'"
    return _asked(store, f"SELECT count(*) FROM pg_stat_activity WHERE {condition}") - 2


def _asked(store: Store, statement: str) -> int:
    with psycopg.connect(store.conninfo, autocommit=True) as connection:
        row = connection.execute(statement.format("current_database()").encode()).fetchone()
    assert row is not None
    return int(row[0])
