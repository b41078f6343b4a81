"""`make soak`: half load, a fault every few seconds; fails if memory or latency isn't flat."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

from oban_actors.actors.clock import real_monotonic
from tests.chaos.load import Load
from tests.chaos.nodes import pass_time
from tests.chaos.on_networks import network, over
from tests.chaos.scene import BOUND, LIMIT, SECONDS, Scene
from tests.soak.faults import FAULTS, kill
from tests.soak.flatness import Minute, failures
from tests.support.databases import Database, new_database
from tests.support.postgres import PostgresServer
from tests.support.scratch import Scratch

NODES = 2
RATE = NODES * LIMIT / SECONDS[False] / 2
"""Jobs a second: half of what the slots can do."""

LATENCIES = """
SELECT count(*),
  coalesce(percentile_cont(0.5) WITHIN GROUP (ORDER BY waited), 0),
  coalesce(percentile_cont(0.99) WITHIN GROUP (ORDER BY waited), 0)
FROM (
  SELECT extract(epoch FROM attempted_at - scheduled_at)::float8 AS waited FROM {jobs}
  WHERE worker = 'chaos.work'
    AND attempted_at >= now() AT TIME ZONE 'UTC' - :seconds * interval '1 s'
) AS begun
"""


class HalfLoad(Load):
    """Inserts at a steady rate, whatever becomes of the jobs; what an outage kept out stays out."""

    _last: float | None = None

    def _top_up(self) -> None:
        now = real_monotonic()
        count = min(int((now - (self._last or now)) * RATE), int(RATE))
        if self._last is None or count:
            self._last = now
        if count:
            jobs = [self._job(number) for number in range(count)]
            self.confirmed.update(job.id or 0 for job in self._oban.insert_all(jobs))


@contextmanager
def scenery() -> Iterator[Scene]:
    """Give a scene with its nodes behind a network, and its load on."""
    with (
        Scratch() as scratch,
        PostgresServer(durable=True) as server,
        new_database(server) as name,
    ):
        database = Database("postgresql", server.url(name))
        scene = Scene(database, scratch.path, server)
        try:
            scene.load = HalfLoad(database, scene.count, 0, SECONDS[False])
            with network(scene) as proxy:
                scene.start(NODES, url=over(scene, proxy))
                scene.load.start()
                yield scene
        finally:
            scene.close()


def measure(scene: Scene, number: int, seconds: float, faults: Sequence[str]) -> Minute:
    """Look at what the last seconds came to."""
    jobs, p50, p99 = scene.tables.execute(LATENCIES, seconds=seconds)[0]
    return Minute(number, jobs, memory(scene), p50, p99, tuple(faults))


def memory(scene: Scene) -> float:
    """Read how much the first node has, in MiB."""
    status = Path(f"/proc/{scene.nodes[0].process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def play(scene: Scene, minutes: int, every: float, minute: float = 60.0) -> list[Minute]:
    """Strike every so many seconds, and look each minute."""
    measured: list[Minute] = []
    order, begin, struck = cycle(FAULTS), real_monotonic(), 0
    for number in range(1, minutes + 1):
        since, faults = real_monotonic(), []
        end = begin + number * minute
        while (due := begin + (struck + 1) * every) <= end:
            pass_time(max(0.0, due - real_monotonic()))
            fault, struck = next(order), struck + 1
            fault(scene)
            faults.append(fault.__name__)
        pass_time(max(0.0, end - real_monotonic()))
        measured.append(measure(scene, number, real_monotonic() - since, faults))
        _say(line(measured[-1]))
    return measured


def line(one: Minute) -> str:
    """Write a row of the table."""
    numbers = (
        f"{one.number:6} {one.jobs:6} {one.rss:8.1f} {one.p50 * 1e3:9.1f} {one.p99 * 1e3:9.1f}"
    )
    return f"{numbers}  {', '.join(one.faults)}"


def account(scene: Scene, kills: int) -> list[str]:
    """Let all end, and say what was lost, ran again beyond the bound, or crashed."""
    scene.settle()
    found = []
    if lost := scene.lost():
        found.append(f"{len(lost)} jobs were lost: {sorted(lost)[:5]}")
    if scene.again() > kills * BOUND:
        found.append(f"{scene.again()} runs again, at most {kills * BOUND} are promised")
    if crashes := scene.crashes():
        found.append(f"crashed: {crashes[:3]}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Play, and print what came of it; 1 if something was not as it must be."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=30, help="how long (default: 30)")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args(arguments)
    with scenery() as scene:
        _say("minute   jobs  rss/MiB    p50/ms    p99/ms  faults")
        minutes = play(scene, given.minutes, given.every)
        kills = sum(each.faults.count(kill.__name__) for each in minutes)
        found = failures(minutes) + account(scene, kills)
        again, jobs = scene.again(), len(scene.begun)
    _say(f"{jobs} jobs, {again} ran again", *(f"FAILED: {failure}" for failure in found))
    if given.json is not None:
        facts: dict[str, Any] = {"jobs": jobs, "again": again, "failures": found}
        facts["minutes"] = [asdict(each) for each in minutes]
        given.json.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return int(bool(found))


def _say(*lines: object) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 (it is a command)


if __name__ == "__main__":
    sys.exit(main())
