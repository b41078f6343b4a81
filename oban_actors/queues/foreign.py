"""The crew that hands jobs to an executor of the host's: loky's, dask's, or any other."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from oban_actors.claim import Claim
from oban_actors.queues.remote import Refused, accepts, tells_begin

Submit = Callable[[Executor, Claim, Callable[[Claim], None]], "Future[Any] | None"]

logger = logging.getLogger("oban_actors")


class ForeignCrew:
    """Submits each claim to a `concurrent.futures.Executor`.

    How many run at once is the queue's limit, not the executor's size.

    Args:
        queue: whose jobs they are, for the log.
        executor: the host's; it is neither started nor shut down here.
        submit: hands one claim over and calls back with it when it is over, also where it
            alone could not be handed over; raises `Refused` where none can be.
        finish: called with each claim that has run.

    Attributes:
        refuses: whether the executor takes nothing, as one that is broken or was shut down.

    """

    def __init__(
        self, queue: str, executor: Executor, submit: Submit, finish: Callable[[Claim], None]
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._submit = submit
        self._finish = finish
        self._line: deque[Claim] = deque()
        self._futures: dict[Claim, Future[Any]] = {}
        self._tells_begin = tells_begin(executor)
        self.refuses = False

    def add(self, claims: Iterable[Claim]) -> None:
        """See `Crew`."""
        self._line.extend(claims)
        self._hand_over()

    def interrupt(self, claim: Claim) -> None:
        """See `Crew`: what has not begun at the executor never will, where that can be known."""
        future = self._futures.get(claim)
        if future is not None and self._tells_begin:
            future.cancel()

    def abort(self, claim: Claim) -> bool:
        """See `Crew`."""
        return False

    def waits_in(self, claim: Claim) -> str | None:
        """See `Crew`."""
        return None

    def wake(self) -> None:
        """See `Crew`: an executor that took nothing may be there again."""
        if self.refuses and accepts(self._executor):
            self.refuses = False
            logger.info("the executor of queue %s takes jobs again", self._queue)
        self._hand_over()

    def take_back(self) -> list[Claim]:
        """See `Crew`: what is with the executor can't be taken back."""
        back, self._line = self._line, deque()
        return list(back)

    @property
    def starved(self) -> bool:
        """See `Crew`."""
        return self.refuses

    def close(self, seconds: float) -> None:
        """The executor is the host's."""

    def _hand_over(self) -> None:
        while self._line and not self.refuses:
            claim = self._line.popleft()
            try:
                future = self._submit(self._executor, claim, self._over)
            except Refused as error:
                self._line.appendleft(claim)
                self.refuses = True
                said = "the executor of queue %s takes no jobs, they are left to other nodes: %s"
                logger.error(said, self._queue, error)  # noqa: TRY400 (the trace is the host's)
                return
            if future is not None:
                self._futures[claim] = future
                if future.done():
                    self._futures.pop(claim, None)

    def _over(self, claim: Claim) -> None:
        self._futures.pop(claim, None)
        self._finish(claim)
