"""The call that runs a queue's jobs where it is made."""

from datetime import datetime

from oban_actors.calls.base import Calls
from oban_actors.config_options import positive, queue_name
from oban_actors.queues.drainer import DrainCounts, Drainer, DrainTerms
from oban_actors.queues.parts import Parts
from oban_actors.validation import OPTIONS


class DrainCalls(Calls):
    """Run jobs without a tree, for tests and scripts."""

    _parts: Parts

    def drain_queue(
        self,
        queue: str,
        *,
        with_limit: int | None = None,
        with_recursion: bool = False,
        with_safety: bool = True,
        with_scheduled: bool | datetime = False,
    ) -> DrainCounts:
        """Run a queue's available jobs in this thread, one after another. Mirrors Oban's.

        The tree need not run. An async worker's job runs on an event loop of its own.

        Args:
            queue: its name.
            with_limit: most jobs that are claimed at once, default all there are; with recursion
                it is so many again and again.
            with_recursion: whether jobs that come meanwhile are run too, until there are none,
                default False.
            with_safety: whether what a worker raises is only recorded and counted, as in a
                running queue, default True. Otherwise it is recorded, then raised, and jobs that
                were not begun are given back.
            with_scheduled: whether scheduled and retryable jobs are run too, default False; an
                aware datetime: those that are due by then.

        Returns:
            how many jobs met which end.

        Raises:
            ConfigError: an option is wrong; it is named.
            DatabaseError: the database failed.

        """
        self._refuse_fork()
        terms = DrainTerms(
            queue=queue_name("queue", queue),
            limit=None if with_limit is None else positive("with_limit", with_limit),
            recursion=OPTIONS.boolean("with_recursion", with_recursion),
            safety=OPTIONS.boolean("with_safety", with_safety),
            scheduled=_scheduled("with_scheduled", with_scheduled),
        )
        return Drainer(self._parts, terms).drain()


def _scheduled(path: str, given: object) -> bool | datetime:
    if isinstance(given, bool):
        return given
    if isinstance(given, datetime) and given.utcoffset() is not None:
        return given
    raise OPTIONS.refusal(path, "a boolean or an aware datetime", given)
