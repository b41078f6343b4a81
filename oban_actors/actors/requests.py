"""What a supervisor can be asked while it runs."""

from collections.abc import Hashable
from dataclasses import dataclass

from oban_actors.actors.spec import ChildSpec


@dataclass(frozen=True, slots=True)
class StartChild:
    """Asks a supervisor to add a child and start it; answers with its reference.

    Args:
        spec: the child's.

    Raises:
        ValueError: a child of its id is there; raised in whoever asks.
        TypeError: it is no `ChildSpec`; likewise.
        StartFailed: it did not start; likewise.

    """

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class TerminateChild:
    """Asks a supervisor to end a child; its spec stays, unless it is temporary.

    Args:
        id: the child's.

    Raises:
        UnknownChild: there is none; raised in whoever asks.

    """

    id: Hashable


@dataclass(frozen=True, slots=True)
class RestartChild:
    """Asks a supervisor to start a child that was ended; answers with its reference.

    Args:
        id: the child's.

    Raises:
        UnknownChild: there is none, or it runs; raised in whoever asks.
        StartFailed: it did not start; likewise.

    """

    id: Hashable


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Asks a supervisor to forget a child that was ended.

    Args:
        id: the child's.

    Raises:
        UnknownChild: there is none, or it runs; raised in whoever asks.

    """

    id: Hashable


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """Asks a supervisor for its children's ids and references (None: none now)."""


class UnknownChild(LookupError):
    """The supervisor has no child of this id, or none in the state that the request needs."""
