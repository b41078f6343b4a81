"""Threads in which async jobs have something done, by `asyncio.to_thread` say, and whose it is."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from oban_actors.actors import Deadlock
from oban_actors.running import Running

P = ParamSpec("P")
T = TypeVar("T")

RUN: ContextVar[Running | None] = ContextVar("oban_actors_run", default=None)
"""Which run a task of the event loop belongs to; of tasks that it starts too."""

logger = logging.getLogger("oban_actors")

_here = threading.local()


class Aides(ThreadPoolExecutor):
    """The executor that an event loop has of its own, whose threads know for which run they work.

    That a thread works for a run tells more than the context that it was given: a job may also
    have another event loop do something, which does not belong to it any more.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="asyncio")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor`."""
        return super().submit(_for_run, RUN.get(), fn, *args, **kwargs)


def aided() -> Running | None:
    """Give the run for which the calling thread works; None where it is no such thread."""
    run: Running | None = getattr(_here, "run", None)
    return run


def _for_run(run: Running | None, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    _here.run = run
    try:
        return fn(*args, **kwargs)
    except Deadlock as error:
        # A job that does not await it never hears of it.
        logger.error(  # noqa: TRY400 (the error says all)
            "what an async job has a thread do may not wait for the job: %s; "
            'oban.tell("oban", Exit()) ends a tree without a wait',
            error,
        )
        raise
    finally:
        _here.run = None
