"""The bare statements that queues are measured against: psycopg alone, on the same table."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

THREADS = 10

# The guard must not let the planner take the index on states; see tests/engines/test_plans.py.
ACKNOWLEDGE = """
UPDATE oban_jobs SET state = 'completed', completed_at = clock_timestamp() AT TIME ZONE 'UTC'
FROM unnest(%s::bigint[], %s::timestamp[]) AS done (id, fence)
WHERE oban_jobs.id = done.id AND state::text = 'executing' AND attempted_at = done.fence
"""
FETCH = """
UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1,
  attempted_at = clock_timestamp() AT TIME ZONE 'UTC', attempted_by = ARRAY['bare', 'loop']
WHERE id = ANY (ARRAY(
  SELECT id FROM oban_jobs WHERE state = 'available' AND queue = 'bench'
  ORDER BY priority, scheduled_at, id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, attempted_at, worker, args, meta, attempt, max_attempts
"""
INSERT = "INSERT INTO oban_jobs (queue, worker, args) VALUES ('bench', 'bare', %s)"

Row = tuple[Any, ...]


def drain(conninfo: str, batch: int) -> float:
    """Run all jobs in ten threads: acknowledge a batch and fetch the next in one pipeline.

    Returns:
        seconds from the first fetch until the last acknowledgement is committed.

    """
    line: SimpleQueue[Row | None] = SimpleQueue()
    done: SimpleQueue[Row] = SimpleQueue()

    def work() -> None:
        while (row := line.get()) is not None:
            done.put(row)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        with psycopg.connect(conninfo, prepare_threshold=0) as connection:
            _settle_planner(connection)
            began = time.perf_counter()
            rows = _turn(connection, [], batch)
            while rows:
                for row in rows:
                    line.put(row)
                rows = _turn(connection, [done.get() for _ in rows], batch)
            return time.perf_counter() - began
    finally:
        for _ in threads:
            line.put(None)
        for thread in threads:
            thread.join()


def _settle_planner(connection: psycopg.Connection) -> None:
    # As our own transactions do: a table without statistics would be read from end to end.
    for name in ("seqscan", "bitmapscan", "sort"):
        connection.execute(f"SET enable_{name} = off")
    connection.commit()


def _turn(connection: psycopg.Connection, done: list[Row], batch: int) -> list[Row]:
    with connection.pipeline():
        if done:
            connection.execute(ACKNOWLEDGE, ([row[0] for row in done], [row[1] for row in done]))
        cursor = connection.execute(FETCH, (batch,))
        connection.commit()
    return cursor.fetchall()


@contextmanager
def listener(conninfo: str, late: list[float]) -> Iterator[None]:
    """Fetch, in a thread, each job that is told of, and note how many ms after its insert."""
    ready, over = threading.Event(), threading.Event()

    def listen() -> None:
        with (
            psycopg.connect(conninfo, autocommit=True) as told,
            psycopg.connect(conninfo, prepare_threshold=0) as connection,
        ):
            _settle_planner(connection)
            told.execute("LISTEN bench")
            ready.set()
            while not over.is_set():
                for _ in told.notifies(timeout=0.5, stop_after=1):
                    rows = connection.execute(FETCH, (10,)).fetchall()
                    connection.commit()
                    late.extend((time.time() - row[3]["at"]) * 1e3 for row in rows)

    thread = threading.Thread(target=listen)
    thread.start()
    ready.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


def insert(connection: psycopg.Connection) -> None:
    """Insert one job and tell of it, in one transaction."""
    connection.execute(INSERT, (Jsonb({"at": time.time()}),))
    connection.execute("SELECT pg_notify('bench', '')")
    connection.commit()
