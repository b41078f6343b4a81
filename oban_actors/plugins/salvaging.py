"""Salvaging: rescuing many rows in one transaction, around those that the database refuses."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from oban_actors.engines.rescue import Rescued, RescueState
from oban_actors.plugins.plugin import PluginRun
from oban_actors.sifting import sift
from oban_actors.staging import SetAside

logger = logging.getLogger("oban_actors")

_NOBODYS = -1


@dataclass(slots=True)
class Salvage:
    """What is known of rows that can't be changed.

    Attributes:
        unfit: ids of those that were found since it was cleared.

    """

    unfit: list[int] = field(default_factory=list)
    _aside: SetAside = field(default_factory=SetAside)

    def aside(self, run: PluginRun) -> list[int]:
        """Name the rows to leave out for now."""
        return self._aside.ids(run.context.config.clock.boottime())

    def change(
        self,
        connection: sa.Connection,
        run: PluginRun,
        ids: Sequence[int],
        state: RescueState,
        error: str,
    ) -> Rescued:
        """Rescue or discard jobs that are locked; those that are refused are left out for a while.

        They are found by halving, some of many: another transaction goes on.

        Args:
            connection: in the transaction.
            run: what it is part of.
            ids: whose.
            state: the one they are in.
            error: for those that are discarded.

        """

        def rescue(some: Sequence[int]) -> Rescued:
            return run.context.engine.rescue_jobs(connection, some, state, error, run.now())

        found = sift(connection, ids, rescue, look=lambda: rescue([_NOBODYS]))
        for job_id, why in found.refused:
            self._set_aside(job_id, run, why)
        return sum(found.done, Rescued())

    def _set_aside(self, job_id: int, run: PluginRun, error: Exception) -> None:
        self._aside.add(job_id, run.context.config.clock.boottime())
        self.unfit.append(job_id)
        logger.error("job %d can't be rescued and is left out for a while: %s", job_id, error)
