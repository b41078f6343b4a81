"""How the looks for unique jobs are told apart."""

import pytest

from oban_actors import Job
from oban_actors.engines.postgres_look import look
from oban_actors.engines.shapes import Shape, shape_of


def shape(period: float | None) -> Shape:
    """Give the shape of a job that is unique for so long."""
    return shape_of(Job.new({"n": 1}, worker="w", unique={"period": period}))


@pytest.mark.parametrize("period", [1, 2.5, 86_400])
def test_one_statement_serves_all_periods(period: float) -> None:
    """A program may work each of them out, and there would be one for each."""
    built = look.cache_info().misses
    statements = {id(look("public", shape(each).timeless)) for each in (60, period)}

    assert len(statements) == 1
    assert look.cache_info().misses <= built + 1
    assert shape(period).unique.period == period


def test_for_ever_is_another() -> None:
    """There no time is compared."""
    assert shape(None).timeless == shape(None) != shape(60).timeless
