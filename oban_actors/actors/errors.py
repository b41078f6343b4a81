"""What can go wrong between actors: each a different fact for whoever asked."""

from typing import Any

import pykka

from oban_actors.actors.reasons import shown


class ActorError(Exception):
    """Something went wrong between actors."""


class NoProcess(ActorError, pykka.ActorDeadError):
    """The target was dead, or no actor has the name: the message was not handled."""

    def __init__(self, target: object, message: object = None) -> None:
        self.target = target
        self.message = message
        super().__init__(f"no process: {target}")


class ServerCrashed(ActorError, pykka.ActorDeadError):
    """The target died while it handled the message: what it did of it is unknown.

    The error that killed it is the `__cause__`, where there is one.
    """

    def __init__(self, target: object, message: object, reason: object) -> None:
        self.target = target
        self.message = message
        self.reason = reason
        super().__init__(f"{target} died while handling {type(message).__name__}: {reason}")


class CallTimeout(ActorError, pykka.Timeout, TimeoutError):
    """No answer came in time: the message may still be handled, its answer is dropped."""

    def __init__(self, target: object, message: object, seconds: float) -> None:
        self.target = target
        self.message = message
        self.seconds = seconds
        super().__init__(
            f"{target} did not answer {type(message).__name__} within {seconds:g} seconds"
        )


class Deadlock(ActorError):
    """The call would wait for itself: `path` names the actors in the cycle."""

    def __init__(self, path: list[str]) -> None:
        self.path = path
        super().__init__(f"a call in a cycle can never be answered: {' -> '.join(path)}")


class StartFailed(ActorError):
    """An actor did not start: its `init` failed or took too long, or its name was taken.

    Attributes:
        child: the id or class of what was to be started.
        reason: the error that `init` raised, or the exit reason.

    """

    def __init__(self, child: object, reason: object) -> None:
        self.child = child
        self.reason = reason
        super().__init__(f"{child} failed to start: {shown(reason)}")


class AlreadyRegistered(ActorError):
    """The name belongs to another living actor, `ref`."""

    def __init__(self, name: object, ref: pykka.ActorRef[Any]) -> None:
        self.name = name
        self.ref = ref
        super().__init__(f"name {name!r} is taken by {ref}")


class UnexpectedMessage(ActorError):
    """An actor was asked something that it does not know; like any bug, it ends the actor."""

    def __init__(self, target: object, message: object) -> None:
        self.target = target
        self.message = message
        super().__init__(f"{target} does not understand {message!r}")
