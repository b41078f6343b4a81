"""The crew that hands jobs to an executor of the host's: loky's, dask's, or any other."""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from oban_actors.claim import Claim

Submit = Callable[[Executor, Claim, Callable[[Claim], None]], "Future[Any] | None"]


class ForeignCrew:
    """Submits each claim to a `concurrent.futures.Executor`.

    How many run at once is the queue's limit, not the executor's size.

    Args:
        executor: the host's; it is neither started nor shut down here.
        submit: hands one claim over and calls back with it when it is over, also where it
            could not be handed over.
        finish: called with each claim that has run.

    """

    def __init__(self, executor: Executor, submit: Submit, finish: Callable[[Claim], None]) -> None:
        self._executor = executor
        self._submit = submit
        self._finish = finish
        self._futures: dict[Claim, Future[Any]] = {}

    def add(self, claims: Iterable[Claim]) -> None:
        """See `Crew`."""
        for claim in claims:
            future = self._submit(self._executor, claim, self._over)
            if future is not None and claim.ack is None:
                self._futures[claim] = future
                if claim.ack is not None:
                    self._futures.pop(claim, None)

    def interrupt(self, claim: Claim) -> None:
        """See `Crew`: what has not begun at the executor never will."""
        future = self._futures.get(claim)
        if future is not None:
            future.cancel()

    def abort(self, claim: Claim) -> bool:
        """See `Crew`."""
        return False

    def wake(self) -> None:
        """See `Crew`: all is with the executor already."""

    def take_back(self) -> list[Claim]:
        """See `Crew`: what is with the executor can't be taken back."""
        return []

    @property
    def starved(self) -> bool:
        """See `Crew`."""
        return False

    def close(self, seconds: float) -> None:
        """The executor is the host's."""

    def _over(self, claim: Claim) -> None:
        self._futures.pop(claim, None)
        self._finish(claim)
