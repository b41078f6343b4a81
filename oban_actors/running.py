"""What a job knows of its own run: whether it shall end, by when, and how it ends itself."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from oban_actors.actors.clock import SYSTEM_CLOCK, Clock

Completer = Callable[[Any, Any], bool | Awaitable[bool] | None]
"""Finishes the given job in the transaction of the given host session or connection.

It returns False where the row is no longer this claim's, and what it returns is to be awaited where
the host's session or connection is async.
"""

EndReason = Literal["cancelled", "timeout", "shutdown"]
"""Why a run shall end: somebody cancelled the job, its time is over, or the node stops."""


class Running:
    """One run of a job, shared by the thread that runs it and those that look after it.

    Args:
        deadline: seconds of the clock's monotonic time by which it has to end, None (default)
            where it may take as long as it likes.
        completer: finishes the job in a transaction of its worker's, None where it can't be.
        clock: what the deadline is measured by, default the system's.

    Attributes:
        cancelled: whether it shall end; once true it stays true.
        reason: why it shall end, None while it need not.
        completed: whether the worker finished it in a transaction of its own.
        on_cancel: called with the reason, in the thread that cancels, each time `cancel` is.
        on_completed: called when the worker has finished it, before its transaction is committed.

    """

    __slots__ = (
        "cancelled",
        "clock",
        "completed",
        "completer",
        "deadline",
        "on_cancel",
        "on_completed",
        "reason",
    )

    def __init__(
        self,
        deadline: float | None = None,
        completer: Completer | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.deadline = deadline
        self.completer = completer
        self.clock = clock
        self.cancelled = False
        self.completed = False
        self.reason: EndReason | None = None
        self.on_cancel: Callable[[EndReason], object] | None = None
        self.on_completed: Callable[[], object] | None = None

    def cancel(self, reason: EndReason) -> None:
        """Tell the run to end.

        Any reason replaces `shutdown`, and `cancelled` every other, since that stands in the row.
        """
        if self.reason in (None, "shutdown") or reason == "cancelled":
            self.reason = reason
        self.cancelled = True
        # Whoever sets `on_cancel` looks at `cancelled` afterwards, so none is missed.
        if self.on_cancel is not None:
            self.on_cancel(self.reason or reason)

    @property
    def time_left(self) -> float | None:
        """Seconds until the deadline, zero or less when it is over; None without one."""
        return None if self.deadline is None else self.deadline - self.clock.monotonic()
