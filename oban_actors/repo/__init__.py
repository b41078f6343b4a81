"""The only door to a database: connections, transactions, tables and their migrations."""

from oban_actors.repo.repo import Repo
from oban_actors.repo.schema import Facts

__all__ = ["Facts", "Repo"]
