"""procrastinate: as many async jobs at once as it is told, each fetched and finished alone."""
# mypy: ignore-errors

import asyncio
import json
import logging
import os
import sys
import time

import procrastinate
from pacing import COUNT as INSERTS
from pacing import WARMING, pauses

logging.disable(logging.WARNING)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[2]))
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 0
RAN = 0
LATE = []


@app.task(name="bench")
async def bench(at: float = 0.0) -> None:
    """Do nothing."""
    global RAN  # noqa: PLW0603 (a no-op worker has nowhere else to count)
    if at:
        LATE.append((time.time() - at) * 1e3)
    if RAN == 0:
        print(json.dumps({"first": time.time()}), flush=True)
    RAN += 1
    if RAN == COUNT:
        print(json.dumps({"ran": time.time()}), flush=True)


async def prepare() -> None:
    """Make the tables, and put the jobs into them with its own call for many."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        await bench.batch_defer_async(*({} for _ in range(COUNT)))
        print(json.dumps({"inserted": time.perf_counter() - began}), flush=True)


async def insert() -> None:
    """Put some in one by one; each says when."""
    async with app.open_async():
        for pause in pauses(INSERTS + WARMING):
            await asyncio.sleep(pause)
            await bench.defer_async(at=time.time())


async def drain(limit: int) -> None:
    """Run them all, and go on until the input is closed; then say how late each began."""
    async with app.open_async():
        running = asyncio.ensure_future(
            app.run_worker_async(concurrency=limit, install_signal_handlers=False)
        )
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        running.cancel()
        print(json.dumps({"late": LATE}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "drain":
        asyncio.run(drain(int(sys.argv[4])))
    else:
        asyncio.run({"prepare": prepare, "insert": insert}[sys.argv[1]]())
