"""Workers that do what their job's args say."""

import asyncio
from typing import Any

from oban_actors import Cancel, Job, Oban, Snooze, Worker, worker
from tests.support.waiting import wait_until

RAN: list[Any] = []
"""What `note` was given, in its order; a test clears it first."""


@worker(queue="alpha", max_attempts=2, tags=["small"])
def note(job: Job) -> Any:
    """Note the args, then end as they say."""
    RAN.append(job.args.get("n"))
    return end_as(job.args)


@worker(queue="alpha", name="tests.anote", aliases=["tests.old_note"])
class ANote(Worker):
    """The same, async."""

    async def perform(self, job: Job) -> Any:
        """Note the args, then end as they say."""
        await asyncio.sleep(0)
        RAN.append(job.args.get("n"))
        return end_as(job.args)


@worker(queue="alpha", timeout=0.05)
async def endless(job: Job) -> None:
    """Never end by itself."""
    await asyncio.Event().wait()


@worker(queue="alpha")
async def forever(job: Job) -> None:
    """Likewise, without a time."""
    await asyncio.Event().wait()


@worker(queue="alpha", timeout=0.05)
def overtime(job: Job) -> str:
    """End only when told to."""
    assert job.running is not None
    told = _told(job)
    return f"told: {told}"


@worker(queue="alpha", timeout=3600)
def early(job: Job) -> str:
    """Do what the test says, and end long before the time is over."""
    act(job)
    return "early"


@worker(queue="alpha", timeout=3600)
async def aearly(_job: Job) -> str:
    """The same, async."""
    return "early"


@worker(queue="alpha")
def completes(job: Job) -> Any:
    """Complete the job where it would write, then end as its args say."""
    job.complete(session=object())
    return end_as(job.args)


@worker(queue="alpha")
def heed(job: Job) -> None:
    """Note that it runs, and that it was told to end."""
    RAN.append("heed")
    if _told(job):
        RAN.append("told")


@worker(queue="alpha")
async def aheed(_job: Job) -> None:
    """Note that it runs, and that it was told to end."""
    RAN.append("heed")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        RAN.append("told")
        raise


@worker(queue="alpha")
def seen(job: Job) -> Job:
    """Give the job as its worker sees it."""
    return job


def act(job: Job) -> None:
    """What `acts` does; a test puts something else in its place."""


@worker(queue="alpha")
def acts(job: Job) -> None:
    """Do what the test says."""
    act(job)


async def aact(job: Job) -> None:
    """What `aacts` does, likewise."""


@worker(queue="alpha")
async def aacts(job: Job) -> None:
    """Do what the test says, and await it."""
    await aact(job)


class Chain:
    """Inserts a job of its own queue for each job until there were enough.

    The instance is set by the test.
    """

    oban: Oban


@worker(queue="alpha")
def link(job: Job) -> None:
    """Insert the next one."""
    left = job.args["left"]
    RAN.append(left)
    if left:
        Chain.oban.insert(link.new({"left": left - 1}))


def end_as(args: dict[str, Any]) -> Any:
    """End as the args say."""
    match args.get("end"):
        case "raise":
            raise ValueError("boom")
        case "cancel":
            return Cancel("no more")
        case "raise cancel":
            raise Cancel("no more")
        case "snooze":
            return Snooze(60)
        case "raise snooze":
            raise Snooze(60)
        case other:
            return other


def _told(job: Job) -> bool:
    wait_until(lambda: job.cancelled)
    return True


def read(oban: Oban, job: Job) -> Job:
    """Read a job's row."""
    found = oban.get_job(job.id or 0)
    assert found is not None
    return found
