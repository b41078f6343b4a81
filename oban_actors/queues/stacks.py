"""Where a run hangs: the stack of a thread, or of a task that waits."""

import asyncio
import sys
import traceback
from types import FrameType
from typing import Any


def of_thread(ident: int) -> str | None:
    """Show where a thread is; None where there is none of that identity."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001 (the only way to another thread's stack)
    return "".join(traceback.format_stack(frame)) if frame else None


def of_task(task: "asyncio.Task[Any]") -> str | None:
    """Show what a task awaits, down to its innermost coroutine, from any thread.

    None where it does not wait, as it runs in its loop's thread or is over.
    """
    at: Any = task.get_coro()
    if getattr(at, "cr_running", False):
        return None
    frames: list[tuple[FrameType, int]] = []
    while (frame := _first(at, "cr_frame", "gi_frame")) is not None:
        frames.append((frame, frame.f_lineno))
        at = _first(at, "cr_await", "gi_yieldfrom")
    return "".join(traceback.StackSummary.extract(iter(frames)).format()) or None


def _first(at: Any, *names: str) -> Any:
    found = (getattr(at, name, None) for name in names)
    return next((each for each in found if each is not None), None)
