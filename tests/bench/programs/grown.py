"""A node of ours among others: what it did, and what its parts have cost.

It says `started`, and when its input is closed `jobs`, `turns` (transactions of its producer),
`passes` (as leader), `first` (when the first job began), `cpu` (s) and `by_thread` (s).
"""

import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from oban_actors import Job, Oban, telemetry, worker
from oban_actors.stager import Stager
from tests.bench.programs import cost
from tests.bench.programs.saying import say

BEGUN = itertools.count()


@worker(name="bench.threads", queue="bench")
def in_threads(job: Job) -> None:
    """Do nothing."""
    if next(BEGUN) == 0:
        say(first=time.time())


def main(url: str, limit: int) -> None:
    """Run until the input is closed."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def on_turn(_: str, __: Mapping[str, Any], ___: Mapping[str, Any]) -> None:
        with lock:
            seen["turns"] += 1

    def on_pass(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if metadata["plugin"] is Stager and metadata["leader"]:
            with lock:
                seen["passes"] += 1

    telemetry.attach("turns", "oban.producer.stop", on_turn)
    telemetry.attach("passes", "oban.plugin.stop", on_pass)
    with Oban(url, queues={"bench": limit}):
        spent, threads = time.process_time(), cost.cpu_by_thread()
        say(started=time.time())
        sys.stdin.read()
        spent = time.process_time() - spent
        threads = cost.cpu_by_thread() - threads
    say(
        jobs=next(BEGUN),
        turns=seen["turns"],
        passes=seen["passes"],
        cpu=spent,
        by_thread={name: ns / 1e9 for name, ns in threads.most_common()},
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
