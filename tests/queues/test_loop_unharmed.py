"""What workers leave on the event loop that all async jobs share: it ends no other job."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from oban_actors import Job, worker
from oban_actors.claim import Claim
from oban_actors.queues.loop import AsyncCrew, EventLoop
from tests.queues.claims import claim, ended
from tests.queues.work import Work, crashes, jobs, wait_state
from tests.support.instances import Starter
from tests.support.waiting import wait_until

Leave = Callable[[asyncio.AbstractEventLoop], object]


def interrupt() -> None:
    """Raise what Ctrl-C does."""
    raise KeyboardInterrupt


LEAVINGS: dict[str, Leave] = {
    "exit": lambda loop: loop.call_soon(sys.exit, 3),
    "interrupt": lambda loop: loop.call_soon(interrupt),
    "stop": lambda loop: loop.stop(),
}


@worker(name="tests.leaves", queue="alpha")
async def leaves(job: Job) -> None:
    """Leave what the job says, and go on when it has struck."""
    LEAVINGS[job.args["what"]](asyncio.get_running_loop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("what", LEAVINGS)
def test_the_loop_goes_on(what: str) -> None:
    """Tasks that wait, those that come later, and its close are as before."""
    loop, finished = EventLoop("test"), list[Claim]()
    waiting = asyncio.Event()

    async def perform(one: Claim) -> None:
        match one.id:
            case 1:
                await waiting.wait()
            case 2:
                LEAVINGS[what](asyncio.get_running_loop())
                await asyncio.sleep(0)
            case _:
                waiting.set()
        ended(one)

    crew = AsyncCrew(loop, perform, finished.append)
    try:
        for number in (1, 2):
            crew.add([claim(number)])
        wait_until(lambda: len(finished) == 1)
        crew.add([claim(3)])
        wait_until(lambda: len(finished) == 3)
    finally:
        loop.close()

    assert {one.id for one in finished} == {1, 2, 3}
    assert loop.uses(None)


@pytest.mark.parametrize("what", LEAVINGS)
def test_the_tree_goes_on(start_oban: Starter, work: Work, what: str) -> None:
    """No actor crashes for it; that job and others complete."""
    alpha: dict[str, Any] = {"queues": {"alpha": 5}, "stager": None}
    oban = start_oban(**alpha)
    other = oban.insert(jobs("async", 1, "wait")[0])
    work.wait_inside(1)
    one = oban.insert(leaves.new({"what": what}))

    wait_state(oban, one, "completed")
    wait_state(oban, oban.insert(jobs("async", 1)[0]), "completed")
    work.open()
    wait_state(oban, other, "completed")
    assert crashes(oban) == []
    assert work.again == {}
