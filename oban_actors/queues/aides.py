"""Threads in which async jobs have something done, by `asyncio.to_thread` say, and whose it is."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from oban_actors.running import Running

P = ParamSpec("P")
T = TypeVar("T")

RUN: ContextVar[Running | None] = ContextVar("oban_actors_run", default=None)
"""Which run a task of the event loop belongs to; of tasks that it starts too."""

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
    finally:
        _here.run = None
