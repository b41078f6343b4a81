"""A node of ours: it drains a queue, or runs what comes and says how late it began.

It says `started`, for a drain `first` and `ran` (when the first and when the last job began), and
at the end, when its input is closed, what it took: `late` (ms), `rss` and `peak` (MB), `cpu` (s).
"""

import itertools
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from oban_actors import Job, Oban, worker

BEGUN = itertools.count()
COUNT = int(sys.argv[3])
LATE: list[float] = []


def say(**facts: Any) -> None:
    """Write a line."""
    # At once: jobs in several threads say something, and `print` writes the line's end apart.
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _note(job: Job) -> None:
    # Not `+= 1`, which threads may lose.
    before = next(BEGUN)
    if before == 0:
        say(first=time.time())
    if job.args:
        LATE.append((time.time() - job.args["at"]) * 1e3)
    if before + 1 == COUNT:
        say(ran=time.time())


@worker(name="bench.threads", queue="bench")
def in_threads(job: Job) -> None:
    """Do nothing."""
    _note(job)


@worker(name="bench.async", queue="bench")
async def in_loop(job: Job) -> None:
    """Do nothing, on the event loop."""
    _note(job)


def _memory() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return {
        name: int(facts[key].split()[0]) / 1024
        for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))
    }


def main(url: str, limit: int) -> None:
    """Run until the input is closed."""
    with Oban(url, queues={"bench": limit}):
        say(started=time.time())
        sys.stdin.read()
        facts = _memory()
    used = resource.getrusage(resource.RUSAGE_SELF)
    say(late=LATE, jobs=next(BEGUN), cpu=used.ru_utime + used.ru_stime, **facts)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
