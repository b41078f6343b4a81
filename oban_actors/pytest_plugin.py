"""Fixtures for the tests of a program that uses this library; pytest finds them by itself.

The only module that imports pytest. What is heavy is imported when a fixture is asked for, since
pytest loads this in every run.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    import sqlalchemy as sa

    from oban_actors.actors import VirtualClock
    from oban_actors.oban import Oban

INI = "oban_url"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option `oban_url`."""
    parser.addini(INI, "database of the tests' jobs, default an SQLite file for each test")


@pytest.fixture
def oban_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the jobs of a test are: the ini option `oban_url`, else an SQLite file of its own.

    Override it to take another one, such as a server that a fixture starts.
    """
    return str(request.config.getini(INI)) or f"sqlite:///{tmp_path / 'oban.db'}"


@pytest.fixture
def make_oban(oban_url: str) -> "Iterator[Callable[..., Oban]]":
    """Makes instances with their tables, in mode `manual` and not started; ends them.

    Called with options of `Oban`. On PostgreSQL all that a test makes share a schema of its own,
    dropped afterwards, unless a `prefix` is given.
    """
    from oban_actors.oban import Oban  # noqa: PLC0415 (see above)

    own, made = f"oban_test_{uuid4().hex[:12]}", list[Oban]()

    def make(**options: Any) -> Oban:
        oban = Oban(oban_url, **({"testing": "manual", "prefix": own} | options))
        made.append(oban)
        oban.migrate()
        return oban

    yield make
    for oban in reversed(made):
        oban.stop()
    _drop(made, own)
    for oban in made:
        oban.repo.close()


@pytest.fixture
def oban(make_oban: "Callable[..., Oban]") -> "Oban":
    """An instance with its tables, in mode `manual` and not started."""
    return make_oban()


@pytest.fixture
def virtual_clock() -> "VirtualClock":
    """A clock that stands still until `advance` is called, for the option `clock`."""
    from oban_actors.actors import VirtualClock  # noqa: PLC0415 (see above)

    return VirtualClock()


def _drop(made: "list[Oban]", schema: str) -> None:
    from sqlalchemy import text  # noqa: PLC0415 (see above)

    def drop(connection: "sa.Connection") -> None:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))

    for oban in made:
        if oban.config.prefix == schema and oban.repo.dialect == "postgresql":
            oban.repo.transaction(drop)
            return
