"""A node of ours that has nothing to do: what that costs.

It says `settled` when its time begins and `over` at its end, and then `cpu` (s), `by_thread` (s),
`transactions` (by thread, of its own count), `rss` (MB) and `modules`, and ends with its input.
"""

import json
import sys
import threading
import time
from typing import Any

from oban_actors import IsLeader, Job, Oban, worker
from oban_actors.plugins.cron import Cron
from oban_actors.plugins.lifeline import Lifeline
from oban_actors.plugins.pruner import Pruner
from oban_actors.plugins.reindexer import Reindexer
from tests.bench.programs import cost
from tests.bench.programs.saying import say
from tests.support.waiting import wait_until

YEARLY = "0 0 1 1 *"


@worker(name="bench.yearly", queue="queue_0")
def yearly(job: Job) -> None:
    """Do nothing."""


def main(url: str, options: dict[str, Any]) -> None:
    """Start, let it settle, and look on."""
    plugins = [Pruner(), Lifeline(), Reindexer(), Cron(crontab=[(YEARLY, yearly)])]
    queues = {f"queue_{number}": 10 for number in range(options["queues"])}
    oban = Oban(url, queues=queues, plugins=plugins, stager={"interval": options["interval"]})
    begun = cost.transactions_by_thread(oban)
    pause = threading.Event()
    with oban:
        wait_until(lambda: oban.ask("peer", IsLeader()) is not options["follows"])
        pause.wait(options["settle"])
        threads, count, spent = cost.cpu_by_thread(), begun.copy(), time.process_time()
        say(settled=time.time())
        pause.wait(options["seconds"])
        spent = time.process_time() - spent
        threads, count = cost.cpu_by_thread() - threads, begun - count
        say(over=time.time())
        say(
            cpu=spent,
            by_thread={name: ns / 1e9 for name, ns in threads.most_common()},
            transactions=dict(count.most_common()),
            rss=cost.memory()["rss"],
            modules=list(sys.modules),
        )
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
