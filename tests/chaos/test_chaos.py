"""Every case of `make chaos` in its short form."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import load_cases
from tests.chaos.cases import CASES, Case, place, play
from tests.chaos.scene import Scene
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow

load_cases()


def _of(kind: str) -> list[Case]:
    return [one for one in CASES.values() if one.kind == kind]


def can_be_played(one: Case) -> None:
    """Skip a case that this machine lacks something for."""
    if missing := one.missing():
        pytest.skip(missing)


@pytest.mark.parametrize("one", _of("postgresql"), ids=lambda one: one.name)
def test_on_postgresql(one: Case, own_server: PostgresServer, tmp_path: Path) -> None:
    """The user is told, no job is lost, few run again, and they flow again."""
    can_be_played(one)
    with place(one, own_server, tmp_path) as database:
        row = play(one, Scene(database, tmp_path, own_server))

    assert row.failures == ()


@pytest.mark.parametrize("one", _of("sqlite"), ids=lambda one: one.name)
def test_on_sqlite(one: Case, tmp_path: Path) -> None:
    """As on PostgreSQL."""
    can_be_played(one)
    with place(one, None, tmp_path) as database:
        row = play(one, Scene(database, tmp_path))

    assert row.failures == ()
