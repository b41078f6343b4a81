"""What all calls of an instance stand on."""

import os

from oban_actors.actors import Runtime
from oban_actors.config import Config
from oban_actors.engines import JobEngine
from oban_actors.errors import ForkedError
from oban_actors.notifiers import Publisher
from oban_actors.repo import Repo


class Calls:
    """An instance's parts, for those that add calls to it; made by `Oban`."""

    config: Config
    repo: Repo
    _engine: JobEngine
    _runtime: Runtime
    _publisher: Publisher
    _pid: int
    _used: bool = False

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(
                f"{self.config.name} was used in process {self._pid}, and its actors and "
                "connections stayed there: make another Oban in the forked process"
            )
        # Before any lock is taken: a fork may find it as it is at any moment.
        self._used = True

    def _move(self) -> None:
        """Belong to the process that was forked here just now, if nobody had begun to use it.

        It has no thread then, no connection, and no lock that anybody holds.
        """
        if not self._used and self.repo.move():
            self._pid = os.getpid()
            self.config.renew_identity()
