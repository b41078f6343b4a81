"""A node with a crontab, as a program: `python -m tests.cluster.cron_node URL PREFIX OPTIONS`.

Options besides an instance's: `minutes_wrong`, by which its clock is; `token`, a file: who
removes it gets the signal `signum` in the transaction that has just inserted cron's jobs. SIGUSR1
makes it look at once.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from oban_actors import Evaluate, Job, Oban, telemetry, worker
from oban_actors.actors import SystemClock
from oban_actors.plugins import Cron
from tests.cluster.node import on_election, tell


@worker(name="tests.cron.minutely", queue="alpha")
def minutely(job: Job) -> None:
    """Say for which minute it runs, in one write."""
    os.write(1, json.dumps({"ran": job.meta["cron_at"], "id": job.id}).encode() + b"\n")


class WrongClock(SystemClock):
    """A clock that is some minutes wrong."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self._wrong = timedelta(minutes=minutes)

    def now(self) -> datetime:
        """The wrong time."""
        return super().now() + self._wrong


def on_look(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Tell that Cron has looked, and how many jobs it inserted."""
    if metadata["plugin"] is Cron:
        tell(looked=len(metadata.get("jobs", ())))


def signalling(token: Path, signum: signal.Signals) -> telemetry.Handler:
    """Make a handler that gets this process a signal once, between a claim and its commit."""

    def on_insert(_: str, __: Mapping[str, Any], ___: Mapping[str, Any]) -> None:
        try:
            token.unlink()
        except FileNotFoundError:
            return
        # To this thread: else another may take it, and this one goes on for a moment.
        signal.pthread_kill(threading.get_ident(), signum)

    return on_insert


def looking(oban: Oban) -> None:
    """Let Cron look whenever SIGUSR1 comes.

    A handler would run in the main thread, which isn't woken if another one gets the signal, as
    happens right after SIGCONT.
    """
    while signal.sigwait({signal.SIGUSR1}):
        oban.tell(("plugin", "cron"), Evaluate())


def main() -> None:
    """Run until told to stop."""
    # In all threads to come, so that only the one that waits for it gets it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    url, prefix, given = sys.argv[1:4]
    options = json.loads(given)
    clock = WrongClock(options.pop("minutes_wrong", 0))
    if token := options.pop("token", None):
        handler = signalling(Path(token), signal.Signals(options.pop("signum")))
        for name in ("insert_job", "insert_all_jobs"):
            telemetry.attach(f"cron-{name}", f"oban.engine.{name}.stop", handler)
    telemetry.attach("cron-look", "oban.plugin.stop", on_look)
    telemetry.attach("cron-election", "oban.peer.election.stop", on_election)
    cron = Cron([("* * * * *", minutely)])
    oban = Oban(url, prefix=prefix, clock=clock, plugins=[cron], queues={"alpha": 5}, **options)
    threading.Thread(target=looking, args=[oban], daemon=True).start()
    # Once it listens to signals, which `run` does before it starts the tree.
    telemetry.attach("node-start", "oban.supervisor.init", lambda *_: tell(started=True))
    reason = oban.run()
    tell(ended=str(reason))


if __name__ == "__main__":
    main()
