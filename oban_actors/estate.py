"""Estate: what an instance's trees use one after another, and who of them may close it."""

import threading
from collections.abc import Callable, Iterator

from oban_actors.actors import Stop
from oban_actors.actors.process import Process
from oban_actors.actors.reasons import KILLED
from oban_actors.actors.timers import Timers
from oban_actors.config import Config
from oban_actors.queues.workforce import CLOSE_TIME, Workforce
from oban_actors.repo import Repo


class Estate:
    """The connections, timers and those who run jobs: older than a tree, and there for the next.

    Whoever opened it last is its holder, and nobody else closes anything: a tree's root that was
    killed and whose thread comes free late finds it closed, or its successor's.

    Args:
        config: the instance's options; the queues are its.
        repo: the way to the database.
        timers: the runtime's.
        workforce: those who run jobs.

    """

    def __init__(self, config: Config, repo: Repo, timers: Timers, workforce: Workforce) -> None:
        self.config = config
        self.repo = repo
        self.timers = timers
        self.workforce = workforce
        self._lock = threading.Lock()
        self._holder: Process | None = None

    def open(self, holder: Process) -> None:
        """Make all ready for a tree.

        Args:
            holder: the tree's root.

        Raises:
            Stop: the root was killed meanwhile.
            ForkedError: this process is a fork of the one that has used this.

        """
        with self._lock:
            if holder.killed:
                raise Stop(KILLED)
            self.repo.open()
            self._holder = holder
            self.timers.reopen()
            for queue, options in self.config.queues.items():
                self.workforce.renew(queue, options)

    def close(self, holder: Process) -> None:
        """Close all, if it is still this one's; without waiting for anybody if that was killed.

        Args:
            holder: the tree's root.

        """
        # The lock is taken anew for each: a successor, or who kills this one, waits for one step.
        for step in self._steps():
            with self._lock:
                if self._holder is not holder:
                    return
                step(0.0 if holder.killed else CLOSE_TIME)
        with self._lock:
            if self._holder is holder:
                self._holder = None

    def _steps(self) -> Iterator[Callable[[float], None]]:
        yield from self.workforce.closing()
        yield lambda _: self.timers.close()
        yield lambda _: self.repo.close()
