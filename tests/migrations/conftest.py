"""Fixtures of the migrations' tests: who may do everything, and an empty schema."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from oban_actors.repo import Repo
from tests.repo.opening import opened_on
from tests.support.databases import Database

Admin = psycopg.Connection[Any]


@pytest.fixture
def repo(pg: Database) -> Iterator[Repo]:
    """A repo on an empty schema."""
    with opened_on(pg) as made:
        yield made


def run(admin: Admin, statement: str, *names: str) -> None:
    """Execute SQL with identifiers in its places."""
    admin.execute(SQL(statement).format(*(Identifier(name) for name in names)))
