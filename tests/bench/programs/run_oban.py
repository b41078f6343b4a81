"""oban-py, under uvloop as its own program runs it."""
# mypy: ignore-errors

import asyncio
import json
import os
import sys
import time

import uvloop
from oban import Job, Oban, worker
from oban.schema import install
from pacing import COUNT as INSERTS
from pacing import WARMING, pauses
from psycopg_pool import AsyncConnectionPool

COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 0
RAN = 0
LATE = []


@worker(queue="bench")
class Bench:
    """Does nothing."""

    async def process(self, job: Job) -> None:
        """Count."""
        global RAN  # noqa: PLW0603 (a no-op worker has nowhere else to count)
        if job.args:
            LATE.append((time.time() - job.args["at"]) * 1e3)
        if RAN == 0:
            print(json.dumps({"first": time.time()}), flush=True)
        RAN += 1
        if RAN == COUNT:
            print(json.dumps({"ran": time.time()}), flush=True)


async def prepare(url: str) -> None:
    """Make the tables, and put the jobs into them with its own call for many."""
    async with AsyncConnectionPool(url, open=False) as pool:
        await install(pool)
        oban = Oban(pool=pool)
        began = time.perf_counter()
        await oban.enqueue_many([Bench.new({}) for _ in range(COUNT)])
        print(json.dumps({"inserted": time.perf_counter() - began}), flush=True)


async def insert(url: str) -> None:
    """Put some in one by one; each says when."""
    async with AsyncConnectionPool(url, open=False) as pool:
        oban = Oban(pool=pool)
        for pause in pauses(INSERTS + WARMING):
            await asyncio.sleep(pause)
            await oban.enqueue(Bench.new({"at": time.time()}))


async def drain(url: str, limit: int) -> None:
    """Run them all, and go on until the input is closed; then say how late each began."""
    async with (
        AsyncConnectionPool(url, open=False, min_size=2, max_size=10) as pool,
        Oban(pool=pool, queues={"bench": limit}),
    ):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(json.dumps({"late": LATE}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "drain":
        uvloop.run(drain(sys.argv[2], int(sys.argv[4])))
    else:
        uvloop.run({"prepare": prepare, "insert": insert}[sys.argv[1]](sys.argv[2]))
