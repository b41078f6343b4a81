"""What a supervisor knows of a child before it runs."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from oban_actors.actors.messages import Ref, Sentinel

if TYPE_CHECKING:
    from oban_actors.actors.lifecycle import Parent

Restart = Literal["permanent", "transient", "temporary"]
ChildType = Literal["worker", "supervisor"]
Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]

RESTARTS: tuple[str, ...] = get_args(Restart)
STRATEGIES: tuple[str, ...] = get_args(Strategy)
TYPES: tuple[str, ...] = get_args(ChildType)

BY_TYPE: Final[Any] = Sentinel("BY_TYPE")
"""Five seconds to end in for a worker, without limit for a supervisor, as in OTP."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start one child, and what to do when it ends. Mirrors OTP's child spec.

    Args:
        id: unique among its siblings.
        start: called with the parent, starts the child linked to it and returns its
            reference, or `IGNORE`; raises `StartFailed`.
        restart: `permanent` (always restarted), `transient` (after an abnormal end) or
            `temporary` (never).
        shutdown: seconds it has to end in when asked to; None is without limit, 0 kills. By
            default 5 for a worker, None for a supervisor.
        type: `worker` or `supervisor`.

    Raises:
        ValueError: an argument is none of what it may be.
        TypeError: `start` can't be called.

    """

    id: Hashable
    start: "Callable[[Parent], Ref | Sentinel]"
    restart: Restart = "permanent"
    shutdown: float | None = BY_TYPE
    type: ChildType = "worker"

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            msg = f"expected type to be one of {TYPES}, got: {self.type!r}"
            raise ValueError(msg)
        if self.shutdown is BY_TYPE:
            object.__setattr__(self, "shutdown", 5.0 if self.type == "worker" else None)
        if self.restart not in RESTARTS:
            msg = f"expected restart to be one of {RESTARTS}, got: {self.restart!r}"
            raise ValueError(msg)
        if self.shutdown is not None and not self.shutdown >= 0:
            msg = f"expected shutdown to be zero or more seconds or None, got: {self.shutdown!r}"
            raise ValueError(msg)
        if not callable(self.start):
            msg = f"expected start to be callable, got: {self.start!r}"
            raise TypeError(msg)

    def override(self, **changes: Any) -> "ChildSpec":
        """Copy it with other values, as `Supervisor.child_spec/2` does in Elixir."""
        return replace(self, **changes)
