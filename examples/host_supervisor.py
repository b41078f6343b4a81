"""A host program: an actor of its own beside Oban, under one supervisor.

    python -m examples.host_supervisor [database URL]

`Reports` schedules a job when it is asked for a report, and counts what it was asked. It comes
after Oban and the strategy is `rest_for_one`: whenever Oban's tree is restarted, so is `Reports`.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oban_actors import Job, Oban
from oban_actors.actors import Continue, GenServer, Reason, Sender, Supervisor


@dataclass(frozen=True, slots=True)
class Order:
    """Asks for a week's report; the answer is the job's id."""

    week: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """Asks how many reports were ordered."""


class Reports(GenServer):
    """Schedules reports.

    Args:
        oban: where the jobs go. It stays valid when its tree is restarted.

    """

    def __init__(self, oban: Oban) -> None:
        super().__init__()
        self.oban = oban
        self.ordered = 0

    def init(self) -> Continue:
        """Be ready at once: the supervisor waits for this. What takes time comes after."""
        return Continue("look for open orders")

    def handle_continue(self, arg: Any) -> None:
        """Do what `init` put off, before the first message."""
        print(f"{self.name}: {arg}")

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Answer what is asked."""
        match message:
            case Order(week):
                job = Job.new(
                    worker="reports.Weekly", args={"week": week}, queue="reports", schedule_in=60
                )
                self.ordered += 1
                return self.oban.insert(job).id
            case Ordered():
                return self.ordered
            case _:
                return super().handle_call(message, sender)

    def terminate(self, reason: Reason) -> None:
        """Say good-bye; Oban still runs, since children end in reverse order."""
        print(f"{self.name}: ends after {self.ordered} orders, {reason}")


def run(url: str) -> None:
    """Start the tree, use it, and end it in order."""
    oban = Oban(url)
    oban.migrate()
    children = [oban.child_spec(), Reports.child_spec(oban, name="reports")]
    with Supervisor.start(children, strategy="rest_for_one", name="host") as root:
        for week in (46, 47):
            print(f"week {week} is job {root.ask('reports', Order(week))}")
        print(root.ask("reports", Ordered()), "ordered")
        print(root.tree())


def main(arguments: Sequence[str]) -> None:
    """Run it on the given database, or on a file that is gone afterwards."""
    if arguments:
        run(arguments[0])
        return
    with tempfile.TemporaryDirectory(prefix="oban-host-") as place:
        run(f"sqlite:///{place}/jobs.db")


if __name__ == "__main__":
    main(sys.argv[1:])
