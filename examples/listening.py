"""An actor of the host's that hears which queues have work.

    python -m examples.listening [database URL]

Every node that listens to the channel `insert` on the same database hears the same, possibly more
than once: a notification says that there is something to look for, not how much.
"""

import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from oban_actors import Job, Listen, Notification, Oban, Reconnected
from oban_actors.actors import GenServer, Supervisor


class Listener(GenServer):
    """Hears that a queue has available jobs.

    Args:
        oban: the instance to listen to.
        heard: set when something was heard.

    """

    def __init__(self, oban: Oban, heard: threading.Event) -> None:
        super().__init__()
        self.oban = oban
        self.heard = heard

    def init(self) -> None:
        """Listen: the answer comes when the Notifier does."""
        self.oban.ask("notifier", Listen(["insert"], self.actor_ref))

    def handle_info(self, message: Any) -> None:
        """Hear."""
        match message:
            case Notification("insert", payload):
                print(f"queue {payload['queue']} has work")
                self.heard.set()
            case Reconnected():
                # The Notifier was away for a while: whoever acts on what it hears looks now.
                print("something may have been missed")
            case _:
                super().handle_info(message)


def run(url: str) -> None:
    """Schedule a job, and hear of it when it is due."""
    oban, heard = Oban(url, name="Listening"), threading.Event()
    oban.migrate()
    with Supervisor.start([oban.child_spec(), Listener.child_spec(oban, heard)]):
        job = oban.insert(Job.new(worker="mail.Send", args={}, queue="mailers", schedule_in=1.0))
        print(f"job {job.id} is {job.state}, due in a second")
        if not heard.wait(30):
            raise SystemExit("nothing was heard")
        found = oban.get_job(job.id or 0)
        print(f"job {job.id} is {found.state if found else 'gone'}")


def main(arguments: Sequence[str]) -> None:
    """Run it on the given database, or on a file that is gone afterwards."""
    if arguments:
        run(arguments[0])
        return
    with tempfile.TemporaryDirectory(prefix="oban-listening-") as place:
        run(f"sqlite:///{place}/jobs.db")


if __name__ == "__main__":
    main(sys.argv[1:])
