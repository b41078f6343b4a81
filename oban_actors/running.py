"""What a job knows of its own run: whether it shall end, by when, and how it ends itself."""

from collections.abc import Callable
from typing import Any, Literal

CancelReason = Literal["cancelled", "timeout", "shutdown"]
"""Why a run shall end: somebody cancelled the job, its time is over, or its node can't go on."""

Completer = Callable[[Any, Any], None]
"""Finishes the given job in the transaction of the given host session or connection."""


class Running:
    """One run of a job, shared by the thread that runs it and those that look after it.

    Attributes:
        deadline: seconds of the monotonic clock by which it has to end, None where it may take
            as long as it likes.
        cancelled: whether it shall end; once true it stays true.
        reason: why it shall end, None unless it shall.
        completed: whether the worker finished it in a transaction of its own.

    """

    __slots__ = ("cancelled", "completed", "completer", "deadline", "reason")

    def __init__(self, deadline: float | None = None, completer: Completer | None = None) -> None:
        self.deadline = deadline
        self.completer = completer
        self.cancelled = False
        self.reason: CancelReason | None = None
        self.completed = False

    def cancel(self, reason: CancelReason) -> None:
        """Let it end; a reason that was given before stays, unless the job itself is cancelled."""
        if self.reason is None or reason == "cancelled":
            self.reason = reason
        self.cancelled = True
