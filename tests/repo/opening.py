"""Repos for tests, closed at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oban_actors.config import Config
from oban_actors.repo import Repo
from oban_actors.repo.connect import Source
from tests.support.databases import Database


@contextmanager
def opened(source: Source, **options: Any) -> Iterator[Repo]:
    """Give a repo on a database, with these options of the config."""
    repo = Repo(source, Config.build(**options))
    try:
        yield repo
    finally:
        repo.close()


@contextmanager
def opened_on(database: Database, **options: Any) -> Iterator[Repo]:
    """Give a repo on a test's database and in its schema."""
    with opened(database.url, prefix=database.prefix, **options) as repo:
        yield repo
