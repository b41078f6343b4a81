"""What a program of the bench has cost so far: memory, CPU by thread, transactions by thread."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

from oban_actors import Oban

TASKS = Path("/proc/self/task")


def memory() -> dict[str, float]:
    """Give the memory that is resident now, `rss`, and the most that was, `peak`, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines)
    return {
        name: int(facts[key].split()[0]) / 1024
        for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))
    }


def cpu_by_thread() -> Counter[str]:
    """Give nanoseconds on a CPU, by the names of threads that are alive."""
    spent: Counter[str] = Counter()
    for thread in threading.enumerate():
        try:
            words = (TASKS / str(thread.native_id) / "schedstat").read_text().split()
        except FileNotFoundError:
            continue
        spent[thread.name.removeprefix("oban-")] += int(words[0])
    return spent


def transactions_by_thread(oban: Oban) -> Counter[str]:
    """Give a count of an instance's transactions, which goes on from here, by name of thread."""
    begun: Counter[str] = Counter()
    repo: Any = oban.repo
    run = repo._run

    def counted(*given: Any, **named: Any) -> Any:
        begun[threading.current_thread().name.removeprefix("oban-")] += 1
        return run(*given, **named)

    repo._run = counted
    return begun
