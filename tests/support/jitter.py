"""Hold threads up at random where another thread may overtake them.

A test that looks a moment too early passes on almost any machine. With
`OBAN_TEST_JITTER=1` in the environment, messages, transactions and new threads are each held up
now and then for as long as a busy machine would, so that such a test fails at once rather than
one time in five hundred.
"""

import os
import random
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

GIVEN = "OBAN_TEST_JITTER"
# How often, and for how many seconds: most go on at once, as in earnest.
_KINDS = ((0.02, 0.5), (0.08, 0.1), (0.2, 0.01))
# For a thread, in seconds: an actor that is told 100,000 messages gets through them.
_ALLOWANCE = 4.0
_SPENT = threading.local()
# Not the one of all, which hypothesis watches.
_PICK = random.Random()


def wanted() -> bool:
    """Whether this run asks for it."""
    return bool(os.environ.get(GIVEN))


def install() -> None:
    """Hold up what runs in this process from now on."""
    from oban_actors.actors import GenServer  # noqa: PLC0415 (most runs ask for none of this)
    from oban_actors.repo import transactions  # noqa: PLC0415 (as above)

    wrap(GenServer, "_dispatch", before=True, after=False)
    wrap(transactions, "_attempt", before=True, after=True)
    wrap(threading.Thread, "run", before=True, after=False)


def wrap(owner: Any, name: str, *, before: bool, after: bool) -> None:
    """Hold up who calls a function, before it, after it, or both."""
    inner: Callable[..., Any] = getattr(owner, name)

    @wraps(inner)
    def held_up(*args: Any, **kwargs: Any) -> Any:
        if before:
            hold_up()
        try:
            return inner(*args, **kwargs)
        finally:
            if after:
                hold_up()

    setattr(owner, name, held_up)


def hold_up() -> None:
    """Wait for a moment, or not; one thread waits for some seconds in all."""
    drawn = _PICK.random()
    for share, most in _KINDS:
        if drawn < share:
            seconds = _PICK.uniform(0, most)
            _SPENT.seconds = spent = getattr(_SPENT, "seconds", 0.0) + seconds
            if spent < _ALLOWANCE:
                threading.Event().wait(seconds)
            return
        drawn -= share
