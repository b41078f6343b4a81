"""What becomes of inserted jobs while a program is tested: the instance's mode, or a block's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from oban_actors.config import Config
from oban_actors.options import TestingMode

# By the identity of the instance.
_modes: ContextVar[Mapping[str, TestingMode]] = ContextVar(
    "oban_testing", default=MappingProxyType({})
)


def mode_of(config: Config) -> TestingMode:
    """Give the mode that counts here and now for an instance."""
    return _modes.get().get(config.identity, config.testing)


@contextmanager
def in_mode(config: Config, mode: TestingMode) -> Iterator[None]:
    """Let another mode count for an instance within the block, in this thread or task."""
    before = _modes.get()
    _modes.set({**before, config.identity: mode})
    try:
        yield
    finally:
        # By value: an async fixture may end in another context than it began in.
        _modes.set(before)
