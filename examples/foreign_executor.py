"""A queue whose jobs run on an executor of the host's: loky's where it is installed.

    python -m examples.foreign_executor [ADDRESS]

Any `concurrent.futures.Executor` will do: `dask.distributed.Client(...).get_executor()` runs the
jobs on a cluster. What runs there imports this module, and finds the worker by its name.
"""

import sys
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from oban_actors import Job, Oban, telemetry, worker

JOBS = 20
PROCESSES = 2


@worker(name="examples.Primes", queue="numbers", timeout=60)
def primes(job: Job) -> int:
    """Count the primes below a number, which takes a processor for a while."""
    below = int(job.args["below"])
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(sieve[number * number :: number]))
    return sum(sieve)


def main(address: str) -> int:
    """Run some jobs, and print what they came to."""
    found: dict[int, int] = {}
    done = threading.Event()

    def ended(_event: str, _measured: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        if about["conf"] is oban.config:
            found[about["args"]["below"]] = about["result"]
            if len(found) == JOBS:
                done.set()

    with executor() as pool:
        oban = Oban(address, queues={"numbers": {"limit": 2 * PROCESSES, "executor": pool}})
        oban.migrate()
        telemetry.attach("examples.foreign_executor", "oban.job.stop", ended)
        try:
            with oban:
                jobs = (primes.new({"below": 10_000 * each}) for each in range(1, JOBS + 1))
                oban.insert_all(jobs)
                in_time = done.wait(60)
        finally:
            telemetry.detach("examples.foreign_executor")
    for below, count in sorted(found.items()):
        print(f"{count:>6} primes below {below}")
    return 0 if in_time else 1


def executor() -> Executor:
    """Give loky's executor, which replaces processes that die, or else the standard library's."""
    try:
        from loky import get_reusable_executor  # noqa: PLC0415 (it may not be installed)
    except ModuleNotFoundError:
        return ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"))
    made: Executor = get_reusable_executor(max_workers=PROCESSES)
    return made


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="oban-executor-") as place:
        sys.exit(main(f"sqlite:///{place}/jobs.db"))
