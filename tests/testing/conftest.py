"""Fixtures of the tests of what users test with."""

from collections.abc import Iterator

import pytest

from oban_actors import Oban
from tests.support.instances import Starter
from tests.testing import work


@pytest.fixture
def oban(start_oban: Starter) -> Iterator[Oban]:
    """An instance whose tree does not run, with nothing noted yet."""
    work.RAN.clear()
    one = start_oban.make(testing="manual")
    work.Chain.oban = one
    yield one
    work.RAN.clear()
