"""A node of ours: it drains a queue, or runs what comes and says how late it began.

It says `started`, for a drain `first` and `ran` (when the first and when the last job began), and
at the end, when its input is closed, what it took: `late` (ms), `rss` and `peak` (MB), `cpu` (s).
With `acks` as the last word it also says, as `acked`, how long after their end jobs were finished
in the table (ms).
"""

import gc
import itertools
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

from oban_actors import Job, Oban, telemetry, worker
from tests.bench.programs.cost import memory
from tests.bench.programs.saying import say

BEGUN = itertools.count()
COUNT = int(sys.argv[3])
ACKS = sys.argv[4:] == ["acks"]
LATE: list[float] = []
ENDED: dict[int, float] = {}
ACKED: list[float] = []


def _note(job: Job) -> None:
    # Not `+= 1`, which threads may lose.
    before = next(BEGUN)
    if before == 0:
        say(first=time.time())
    if job.args:
        LATE.append((time.time() - job.args["at"]) * 1e3)
    if before + 1 == COUNT:
        say(ran=time.time())
    if ACKS:
        ENDED[job.id or 0] = time.perf_counter()


def _on_stop(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    ACKED.append((time.perf_counter() - ENDED.pop(metadata["id"])) * 1e3)


@worker(name="bench.threads", queue="bench")
def in_threads(job: Job) -> None:
    """Do nothing."""
    _note(job)


@worker(name="bench.async", queue="bench")
async def in_loop(job: Job) -> None:
    """Do nothing, on the event loop."""
    _note(job)


def main(url: str, limit: int) -> None:
    """Run until the input is closed."""
    if ACKS:
        telemetry.attach("acks", "oban.job.stop", _on_stop)
    # As `oban-actors start` does.
    gc.collect()
    gc.freeze()
    with Oban(url, queues={"bench": limit}):
        say(started=time.time())
        sys.stdin.read()
        facts = memory()
    used = resource.getrusage(resource.RUSAGE_SELF)
    say(late=LATE, acked=ACKED, jobs=next(BEGUN), cpu=used.ru_utime + used.ru_stime, **facts)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
