"""oban-py, under uvloop as its own program runs it."""
# mypy: ignore-errors

import asyncio
import json
import os
import sys
import time

import uvloop
from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool

COUNT = int(sys.argv[3])
RAN = 0


@worker(queue="bench")
class Bench:
    """Does nothing."""

    async def process(self, _: object) -> None:
        """Count."""
        global RAN  # noqa: PLW0603 (a no-op worker has nowhere else to count)
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


async def drain(url: str, limit: int) -> None:
    """Run them all, and go on until the input is closed."""
    async with (
        AsyncConnectionPool(url, open=False, min_size=2, max_size=10) as pool,
        Oban(pool=pool, queues={"bench": limit}),
    ):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        os._exit(0)


if __name__ == "__main__":
    uvloop.run(
        prepare(sys.argv[2]) if sys.argv[1] == "prepare" else drain(sys.argv[2], int(sys.argv[4]))
    )
