"""One node as a program of its own: `python -m tests.cluster.node URL PREFIX OPTIONS`.

It prints a JSON line for whatever it stages and whenever its leadership changes. The option
`freeze` names a file: who removes it stops itself in the middle of the pass it is in.
"""

import json
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oban_actors import Oban, telemetry

_lock = threading.Lock()


def tell(**facts: Any) -> None:
    """Print a line."""
    with _lock:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def on_pass(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Print what was staged."""
    staged = metadata.get("staged_jobs") or ()
    if staged:
        tell(staged=[job.id for job in staged])


def on_election(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Print a change of leadership."""
    if metadata.get("leader") != metadata.get("was_leader"):
        tell(leader=bool(metadata.get("leader")))


def freezing(token: Path) -> telemetry.Handler:
    """Make a handler that stops this process once, in the transaction that tells the queues."""

    def on_notify(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        if metadata["channel"] != "insert":
            return
        try:
            token.unlink()
        except FileNotFoundError:
            return
        # To this thread: else another may take it, and this one goes on for a moment.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    return on_notify


def main() -> None:
    """Run until told to stop."""
    url, prefix, given = sys.argv[1:4]
    options = json.loads(given)
    if token := options.pop("freeze", None):
        telemetry.attach("node-freeze", "oban.notifier.notify.stop", freezing(Path(token)))
    telemetry.attach("node-stage", "oban.plugin.stop", on_pass)
    telemetry.attach("node-election", "oban.peer.election.stop", on_election)
    oban = Oban(url, prefix=prefix, **options)
    # Once it listens to signals, which `run` does before it starts the tree.
    telemetry.attach("node-start", "oban.supervisor.init", lambda *_: tell(started=True))
    reason = oban.run()
    tell(ended=str(reason))


if __name__ == "__main__":
    main()
