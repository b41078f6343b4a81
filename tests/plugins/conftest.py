"""Fixtures: job stores, as for the tests of engines, and time for a run of the Pruner."""

import pytest

from tests.engines.conftest import pg_store, sqlite_store, store

__all__ = ["pg_store", "sqlite_store", "store"]


@pytest.fixture(autouse=True)
def _enough_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine does not end a run of the Pruner earlier than another one."""
    monkeypatch.setattr("oban_actors.plugins.pruner.RUN_TIME", 600.0)
