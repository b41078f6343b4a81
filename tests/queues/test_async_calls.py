"""The calls that steer queues, from an event loop."""

import asyncio
import inspect

import pytest

from oban_actors import Oban
from oban_actors.calls.async_queues import AsyncQueueCalls
from oban_actors.calls.jobs import JobCalls
from oban_actors.calls.queues import QueueCalls
from tests.support.instances import Starter
from tests.support.waiting import wait_until


def _calls(kind: type[object]) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize(
    "name", [name for name in _calls(QueueCalls) + _calls(JobCalls) if name != "jobs"]
)
def test_every_call_has_a_twin(name: str) -> None:
    """By the same name with an `a` before, and with the same arguments."""
    plain, twin = getattr(Oban, name), getattr(Oban, f"a{name}")

    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(twin) == inspect.signature(plain)


def test_twins_do_what_they_are_twins_of(start_oban: Starter) -> None:
    """Each in its turn, on this node."""
    oban = start_oban(queues={"alpha": 1}, stager=None)

    async def steer() -> None:
        view = await oban.acheck_queue("alpha")
        assert view is not None
        assert [each.queue for each in await oban.acheck_all_queues()] == ["alpha"]
        await oban.astart_queue("beta", 2, local_only=True)
        view = await oban.acheck_queue("beta")
        assert view is not None
        assert view.limit == 2
        await oban.apause_queue("beta", local_only=True)
        await oban.aresume_queue("beta", local_only=True)
        await oban.aresume_all_queues(local_only=True)
        await oban.ascale_queue("beta", 3, local_only=True)
        await oban.apause_all_queues(local_only=True)

    asyncio.run(steer())
    wait_until(lambda: [each.paused for each in oban.check_all_queues()] == [True, True])
    wait_until(lambda: (view := oban.check_queue("beta")) is not None and view.limit == 3)
    asyncio.run(oban.astop_queue("beta", local_only=True))
    wait_until(lambda: oban.check_queue("beta") is None)
    assert set(_calls(AsyncQueueCalls)) == {f"a{name}" for name in _calls(QueueCalls)}
