"""Rigs of all three kinds."""

from collections.abc import Iterator

import pytest

from tests.notifiers.rig import NotifierKind, Rig, rig_for


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.db), "sqlite", "isolated"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Nodes with a notifier of each kind in turn."""
    kind: NotifierKind = request.param
    database = request.getfixturevalue("pg" if kind == "postgres" else "sqlite")
    with rig_for(database, kind) as rig:
        yield rig


@pytest.fixture(params=[pytest.param("postgres", marks=pytest.mark.db), "sqlite"])
def shared_rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Nodes with a notifier of each kind that reaches other nodes."""
    kind: NotifierKind = request.param
    database = request.getfixturevalue("pg" if kind == "postgres" else "sqlite")
    with rig_for(database, kind) as rig:
        yield rig
