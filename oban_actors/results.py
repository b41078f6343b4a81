"""What a worker may return, or raise, to say how its job ends other than well or badly."""

from collections.abc import Callable
from datetime import timedelta
from typing import cast

from oban_actors.validation import Checks

MAX_SNOOZE = 1000 * 366 * 86_400.0
"""Most seconds that a job can be put off."""

_CHECKS = Checks(ValueError)


class Cancel(Exception):
    """The job is not to be tried again. Mirrors Oban's `{:cancel, reason}`.

    Returned or raised, it makes the job cancelled and adds to its errors.

    Args:
        reason: why, kept with the job as text.

    """

    def __init__(self, reason: object = "cancelled") -> None:
        super().__init__(reason)
        self.reason = reason


class Snooze(Exception):
    """The job is to run later, and this attempt doesn't count. Mirrors Oban's `{:snooze, s}`.

    Returned or raised, it makes the job scheduled; nothing is added to its errors.

    Args:
        seconds: how long it is put off, a number or a timedelta, zero or more.

    Raises:
        ValueError: it is no such time.

    """

    def __init__(self, seconds: float | timedelta) -> None:
        super().__init__(seconds)
        expected = "a non-negative number of seconds or a timedelta"
        self.seconds = _CHECKS.number("seconds", seconds, expected)
        if self.seconds < 0:
            raise _CHECKS.refusal("seconds", expected, seconds)
        if self.seconds > MAX_SNOOZE:
            raise _CHECKS.refusal("seconds", "a time within 1000 years", seconds)


def meant(result: object) -> object:
    """Give an instance where one of these classes was returned, as `raise` makes one.

    Raises:
        TypeError: it can't be made without arguments.

    """
    # A value may refuse to be asked for its class, by `isinstance`: what that means is noted later.
    if not issubclass(type(result), type):
        return result
    make = cast("Callable[[], object]", result)
    return make() if issubclass(cast("type", result), Cancel | Snooze) else result
