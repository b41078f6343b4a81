"""Why an actor ended."""

import traceback
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["normal", "shutdown", "killed", "crashed", "noproc"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an actor ended: OTP's exit reason.

    Attributes:
        kind: `normal` (it was done, or was stopped by hand), `shutdown` (its supervisor, or
            itself, ended it in order), `killed` (it did not end in time), `crashed` (an
            exception left a handler), `noproc` (it was dead already).
        detail: what `shutdown` was given, or the exception of a crash, without its frames.
        trace: the traceback of a crash as text.

    """

    kind: Kind
    detail: object = None
    trace: str = ""

    @classmethod
    def crash(cls, error: BaseException) -> Self:
        """Keep the error and the text of its traceback, and let go of its frames."""
        trace = "".join(traceback.format_exception(error))
        _drop_frames(error)
        return cls("crashed", error, trace)

    @property
    def abnormal(self) -> bool:
        """Whether a transient child is restarted for it."""
        return self.kind not in {"normal", "shutdown"}

    def __str__(self) -> str:
        return self.kind if self.detail is None else f"{self.kind}: {shown(self.detail)}"


def shown(value: object) -> str:
    """Give a value's repr; where that raises, what kind of value it is."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 (what an actor dies of may hold anything)
        return f"<{type(value).__name__}, its repr raised {type(error).__name__}>"


def _drop_frames(error: BaseException) -> None:
    # References outlive their actors; frames kept with them would keep everything alive.
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        # Not by its attribute, which an error that is a frozen dataclass lets nobody set.
        BaseException.with_traceback(one, None)
        rest += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            rest += one.exceptions


NORMAL = Reason("normal")
SHUTDOWN = Reason("shutdown")
KILLED = Reason("killed")
NOPROC = Reason("noproc")
FORKED = Reason("noproc", "its thread did not survive the fork of its program")
