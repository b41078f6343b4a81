"""What all queues of an instance share, and what their actors tell each other."""

from dataclasses import dataclass

from oban_actors.announcing import Announcer
from oban_actors.config import Config
from oban_actors.engines import JobEngine
from oban_actors.queues.workforce import Workforce
from oban_actors.repo import Repo
from oban_actors.running import Completer


@dataclass(frozen=True, slots=True)
class Parts:
    """What a queue needs of its instance.

    Attributes:
        config: the instance's options.
        repo: the way to the database.
        engine: the job store.
        workforce: those who run jobs.
        completer: finishes a job in its worker's own transaction.
        announcer: tells the leader of jobs that are soon due again.

    """

    config: Config
    repo: Repo
    engine: JobEngine
    workforce: Workforce
    completer: Completer
    announcer: Announcer


@dataclass(frozen=True, slots=True)
class Drained:
    """From a Producer to Queues: it was told to end, and nothing runs any more."""

    queue: str


@dataclass(frozen=True, slots=True)
class LeftOver:
    """From the Pulse to Queues: a queue has ended, and what is left of it nobody writes."""

    queue: str
