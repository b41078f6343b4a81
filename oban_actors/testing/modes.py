"""Another testing mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from oban_actors import config_options
from oban_actors.oban import Oban
from oban_actors.options import TestingMode
from oban_actors.testing_mode import in_mode


@contextmanager
def with_testing_mode(oban: Oban, mode: TestingMode) -> Iterator[None]:
    """Let another mode count within the block. Mirrors `Oban.Testing.with_testing_mode/2`.

    It decides what becomes of jobs that this thread or task inserts, and those that it calls;
    it neither starts nor stops what the instance runs.

    Args:
        oban: the instance.
        mode: `inline`: jobs run as they are inserted; `manual` and `disabled`: they go to the
            table.

    Raises:
        ConfigError: there is no such mode.

    """
    with in_mode(oban.config, config_options.testing("mode", mode)):
        yield
