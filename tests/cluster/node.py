"""One node as a program of its own: `python -m tests.cluster.node URL PREFIX OPTIONS`.

It prints a JSON line for whatever it stages and whenever its leadership changes.
"""

import json
import sys
import threading
from collections.abc import Mapping
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


def main() -> None:
    """Run until told to stop."""
    url, prefix, options = sys.argv[1:4]
    telemetry.attach("node-stage", "oban.plugin.stop", on_pass)
    telemetry.attach("node-election", "oban.peer.election.stop", on_election)
    oban = Oban(url, prefix=prefix, **json.loads(options))
    tell(started=True)
    reason = oban.run()
    tell(ended=str(reason))


if __name__ == "__main__":
    main()
