"""Fixtures: clusters of Peers."""

from collections.abc import Iterator

import pytest

from tests.peers.harness import Cluster, clustered
from tests.support.databases import Database


@pytest.fixture
def cluster(database: Database) -> Iterator[Cluster]:
    """A cluster without nodes, on each kind of database."""
    with clustered(database) as one:
        yield one


@pytest.fixture
def pg_cluster(pg: Database) -> Iterator[Cluster]:
    """A cluster without nodes on PostgreSQL."""
    with clustered(pg) as one:
        yield one
