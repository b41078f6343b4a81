"""pgqueuer: batches over asyncpg, under uvloop as its own program runs it."""
# mypy: ignore-errors

import asyncio
import json
import os
import sys
import time

import asyncpg
import uvloop
from pacing import COUNT, WARMING, pauses
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries


async def prepare(url: str, count: int) -> None:
    """Make the tables, and put the jobs into them with its own call for many."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    await queries.install()
    began = time.perf_counter()
    await queries.enqueue(["bench"] * count, [None] * count, [0] * count)
    print(json.dumps({"inserted": time.perf_counter() - began}), flush=True)


async def insert(url: str) -> None:
    """Put some in one by one; each says when."""
    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    for pause in pauses(COUNT + WARMING):
        await asyncio.sleep(pause)
        await queries.enqueue("bench", str(time.time()).encode())


async def drain(url: str, count: int, batch: int) -> None:
    """Run them all, and go on until the input is closed; then say how late each began."""
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
    ran = 0
    late = []

    @queue.entrypoint("bench")
    async def _(job: Job) -> None:
        nonlocal ran
        if job.payload:
            late.append((time.time() - float(job.payload)) * 1e3)
        if ran == 0:
            print(json.dumps({"first": time.time()}), flush=True)
        ran += 1
        if ran == count:
            print(json.dumps({"ran": time.time()}), flush=True)

    running = asyncio.ensure_future(queue.run(batch_size=batch))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    running.cancel()
    print(json.dumps({"late": late}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    command, address, *numbers = sys.argv[1:]
    chosen = {"prepare": prepare, "insert": insert, "drain": drain}[command]
    uvloop.run(chosen(address, *map(int, numbers)))
