"""A node under faults, as a program: `python -m tests.chaos.node URL PREFIX OPTIONS`.

What it does is said in the file that the variable `CHAOS_TOLD` names, a JSON line each, that is
out before anything else happens, so that whoever kills the process knows all that it began: its
runs, its leadership, and what it logs. The options besides those of `Oban` are `lifeline`, the
options of its Lifeline, `ahead`, the seconds that its clock is fast, and `address_space`, the bytes
that its processes may have each. SIGUSR1 makes it a host that needs all connections for a while.
"""

import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from oban_actors import DatabaseUnavailable, Job, Oban, SystemClock, telemetry, worker
from oban_actors.actors.clock import SYSTEM_CLOCK, real_monotonic
from oban_actors.plugins import Lifeline

TOLD = "CHAOS_TOLD"
PAUSE = Event()

HOGGING = 4.0
"""Seconds that a host's call keeps its connection."""

_file = (
    os.open(os.environ[TOLD], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if TOLD in os.environ else 1
)


def tell(**facts: Any) -> None:
    """Say something, in one write."""
    os.write(_file, (json.dumps(facts | {"at": real_monotonic()}) + "\n").encode())


def ran(job: Job) -> None:
    """Say that a job's run has begun."""
    tell(ran=job.id, attempt=job.attempt, seconds=job.args.get("seconds"))


@worker(name="chaos.work", queue="alpha")
def work(job: Job) -> None:
    """Take the time that it is given."""
    ran(job)
    PAUSE.wait(job.args["seconds"])


class Teller(logging.Handler):
    """Says what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, with its traceback if it has one."""
        tell(log=self.format(record), level=record.levelname)


class WrongClock(SystemClock):
    """A clock that is fast by so many seconds, or slow."""

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        """Read the wall clock, wrongly."""
        return datetime.fromtimestamp(self.system_time_ns() / 1e9, UTC)

    def system_time_ns(self) -> int:
        """Nanoseconds since the epoch, wrongly."""
        wrong = timedelta(seconds=self._ahead) // timedelta(microseconds=1) * 1_000
        return SYSTEM_CLOCK.system_time_ns() + wrong


def on_election(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Say that leadership has changed."""
    if metadata.get("leader") != metadata.get("was_leader"):
        tell(leader=bool(metadata.get("leader")))


def hog(oban: Oban) -> None:
    """Have more calls than connections, for a few seconds each; those that get none say so."""

    def call() -> None:
        try:
            oban.repo.transaction(
                lambda connection: connection.exec_driver_sql(f"SELECT pg_sleep({HOGGING})"),
                statement_timeout=60.0,
            )
        except DatabaseUnavailable as error:
            tell(log=f"the host: {error}", level="INFO")

    for _ in range(4 * oban.config.pool_size):
        threading.Thread(target=call, daemon=True).start()


def make(url: str, prefix: str, options: dict[str, Any]) -> Oban:
    """Make the instance."""
    lifeline = options.pop("lifeline", None)
    if size := options.pop("address_space", None):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    if ahead := options.pop("ahead", None):
        options["clock"] = WrongClock(ahead)
    plugins = [] if lifeline is None else [Lifeline(**lifeline)]
    return Oban(url, prefix=prefix, plugins=plugins, **options)


def main() -> None:
    """Run until told to stop."""
    url, prefix, given = sys.argv[1:4]
    logger = logging.getLogger("oban_actors")
    logger.addHandler(Teller())
    logger.setLevel(logging.INFO)
    telemetry.attach("chaos-election", "oban.peer.election.stop", on_election)
    oban = make(url, prefix, json.loads(given))
    signal.signal(signal.SIGUSR1, lambda *_: hog(oban))
    # Before that a fault would end it, as it ends any start.
    telemetry.attach("chaos-start", "oban.supervisor.init", lambda *_: tell(started=True))
    tell(ended=str(oban.run()))


if __name__ == "__main__":
    main()
