"""The calls that steer queues from an event loop."""

import asyncio
from typing import Any

from oban_actors.calls.queues import QueueCalls
from oban_actors.messages import QueueView


class AsyncQueueCalls(QueueCalls):
    """Twins of `QueueCalls`, by the same names with an `a` before, and with the same arguments.

    Each runs in a thread of the loop's.
    """

    async def apause_queue(
        self, queue: str, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """See `pause_queue`."""
        await asyncio.to_thread(self.pause_queue, queue, local_only=local_only, node=node)

    async def aresume_queue(
        self, queue: str, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """See `resume_queue`."""
        await asyncio.to_thread(self.resume_queue, queue, local_only=local_only, node=node)

    async def apause_all_queues(self, *, local_only: bool = False, node: str | None = None) -> None:
        """See `pause_all_queues`."""
        await asyncio.to_thread(self.pause_all_queues, local_only=local_only, node=node)

    async def aresume_all_queues(
        self, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """See `resume_all_queues`."""
        await asyncio.to_thread(self.resume_all_queues, local_only=local_only, node=node)

    async def ascale_queue(
        self, queue: str, limit: int, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """See `scale_queue`."""
        await asyncio.to_thread(self.scale_queue, queue, limit, local_only=local_only, node=node)

    async def astart_queue(
        self,
        name: str,
        limit: int,
        *,
        local_only: bool = False,
        node: str | None = None,
        **options: Any,
    ) -> None:
        """See `start_queue`."""
        await asyncio.to_thread(
            self.start_queue, name, limit, local_only=local_only, node=node, **options
        )

    async def astop_queue(
        self, queue: str, *, local_only: bool = False, node: str | None = None
    ) -> None:
        """See `stop_queue`."""
        await asyncio.to_thread(self.stop_queue, queue, local_only=local_only, node=node)

    async def acheck_queue(self, queue: str) -> QueueView | None:
        """See `check_queue`."""
        return await asyncio.to_thread(self.check_queue, queue)

    async def acheck_all_queues(self) -> list[QueueView]:
        """See `check_all_queues`."""
        return await asyncio.to_thread(self.check_all_queues)
