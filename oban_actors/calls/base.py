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

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise ForkedError(
                f"{self.config.name} was made in process {self._pid}, and its actors and "
                "connections stayed there: make another Oban in the forked process"
            )
