"""The messages and results that the actor layer itself knows."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import pykka

from oban_actors.actors.reasons import NORMAL, SHUTDOWN, Reason

Ref = pykka.ActorRef[Any]
Name = Hashable


@dataclass(frozen=True, slots=True)
class Exit:
    """A supervisor's request to end, handled in the order of the inbox.

    Args:
        reason: what the actor ends with, default `SHUTDOWN`.

    """

    reason: Reason = SHUTDOWN


@dataclass(frozen=True, slots=True, eq=False)
class ChildExit:
    """Tells a supervisor that a child ended, and why.

    Attributes:
        ref: the child.
        reason: why it ended.

    """

    ref: Ref
    reason: Reason


@dataclass(frozen=True, slots=True, eq=False)
class Down:
    """Tells whoever monitors an actor that it ended, and why. Mirrors OTP's `DOWN`.

    Attributes:
        monitor: the watch, as `monitor` gave it.
        ref: the actor.
        reason: why it ended; `NOPROC` where it had before.

    """

    monitor: "Monitor"
    ref: Ref
    reason: Reason


class Monitor:
    """One watch over one actor; give it to `demonitor` to end it.

    Attributes:
        ref: the actor that is watched.
        owner: who watches.

    """

    __slots__ = ("owner", "ref")

    def __init__(self, ref: Ref, owner: Ref) -> None:
        self.ref = ref
        self.owner = owner


@dataclass(frozen=True, slots=True)
class Continue:
    """Returned by `init` or a handler: `handle_continue(arg)` runs before the next message."""

    arg: object = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Returned by `handle_call`: the asker gets `error` raised, the actor lives on."""

    error: BaseException


class Stop(Exception):
    """Raised in a handler to end the actor.

    Args:
        reason: why; `NORMAL` by default.
        reply: the answer for whoever asked, given after the actor has ended.

    """

    def __init__(self, reason: Reason = NORMAL, reply: object = None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.reply = reply


class Sentinel:
    """A value that is only itself."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


IGNORE: Final = Sentinel("IGNORE")
"""Returned by `init`: nothing is to run; the supervisor keeps the spec and goes on."""

NOREPLY: Final = Sentinel("NOREPLY")
"""Returned by `handle_call`: `reply` will answer later."""
