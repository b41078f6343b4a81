"""Workers that tests run, also in other processes."""

import asyncio
import ctypes
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Any

from oban_actors import Cancel, Job, Snooze, Worker, worker


class RudeError(Exception):
    """An error that can't be shown."""

    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class Secretive:
    """A value that neither pickles nor shows itself."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __repr__(self) -> str:
        raise ValueError("no")


class PickyError(Exception):
    """An error that doesn't survive pickling."""

    def __init__(self, one: str, two: object) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


def act(job: Job) -> Any:  # noqa: C901, PLR0911, PLR0912 (one case for each end of a run)
    """Do what the job's args say, for all kinds of workers."""
    match job.args.get("do"):
        case None:
            return None
        case "value":
            return {"answer": 42}
        case "cancel":
            return Cancel("enough")
        case "raise cancel":
            raise Cancel("enough")
        case "snooze":
            return Snooze(timedelta(minutes=1))
        case "raise snooze":
            raise Snooze(60)
        case "error":
            raise ValueError("kaboom")
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "generator exit":
            raise GeneratorExit
        case "rude":
            raise RudeError
        case "huge":
            raise ValueError("x" * 1_000_000 + "\0\ud800")
        case "picky":
            raise PickyError("one", "two")
        case "secretive":
            return Secretive()
        case "bad snooze":
            return Snooze(-1)
        case "forget":
            return asyncio.sleep(0)
    return _drastic(job)


def _drastic(job: Job) -> Any:  # noqa: C901 (as above)
    match job.args.get("do"):
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "_exit":
            os._exit(7)
        case "segfault":
            ctypes.string_at(0)
        case "fork and die":
            # A grandchild that keeps all that was open, and outlives the child.
            if (pid := os.fork()) == 0:
                signal.pause()
            with open(job.args["file"], "w") as file:  # noqa: PTH123 (fewer steps)
                file.write(str(pid))
            os._exit(8)
        case "print":
            os.write(1, b"x" * 4_000_000)
        case "pid":
            return os.getpid()
        case "wait":
            return _wait(job)
        case "hang":
            _say_pid(job)
            threading.Event().wait()
        case "times":
            return [job.time_left, job.deadline is not None and job.deadline.isoformat()]
        case "complete":
            job.complete(session=object())
    return None


def _wait(job: Job) -> str:
    _say_pid(job)
    pause = threading.Event()
    while not job.cancelled:
        if os.path.exists(job.args.get("until", "")):  # noqa: PTH110 (fewer steps)
            return "not told"
        pause.wait(0.01)
    return "told"


def _say_pid(job: Job) -> None:
    with open(job.args["file"], "w") as file:  # noqa: PTH123 (fewer steps)
        file.write(str(os.getpid()))


@worker
def plain(job: Job) -> Any:
    """A sync function."""
    return act(job)


@worker
async def plain_async(job: Job) -> Any:
    """An async function."""
    if job.args.get("do") == "sleep":
        if "file" in job.args:
            _say_pid(job)
        await asyncio.Event().wait()
    await asyncio.sleep(0)
    return act(job)


@worker(timeout=30)
def timed(job: Job) -> Any:
    """A sync function with a time-out."""
    return act(job)


@worker(timeout=5)
def brief(job: Job) -> Any:
    """A sync function that has little time."""
    return act(job)


@worker
class Plain:
    """A class with a sync perform."""

    def perform(self, job: Job) -> Any:
        """Do it."""
        return act(job)


@worker(queue="media", max_attempts=3)
class PlainAsync(Worker):
    """A class with an async perform."""

    async def perform(self, job: Job) -> Any:
        """Do it."""
        await asyncio.sleep(0)
        return act(job)


KINDS = (plain, plain_async, Plain, PlainAsync)
