"""Exam: what every check of the doctor is given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from oban_actors.config import Config
from oban_actors.doctor.finding import Limits
from oban_actors.repo import Repo
from oban_actors.repo.schema import Facts

T = TypeVar("T")

PATIENCE = 15.0
"""Seconds that one statement of an examination may take."""


@dataclass(frozen=True, slots=True)
class Exam:
    """One examination.

    Attributes:
        repo: the way to the database.
        limits: what is taken as healthy.
        facts: which tables there are, of which versions.
        schema: the tables' schema as SQL names it, with the dot; empty on SQLite.

    """

    repo: Repo
    limits: Limits
    facts: Facts
    schema: str

    @property
    def config(self) -> Config:
        """The instance's options."""
        return self.repo.config

    @property
    def postgres(self) -> bool:
        """Whether it is PostgreSQL."""
        return self.repo.dialect == "postgresql"

    @property
    def jobs(self) -> str:
        """The jobs table as SQL names it."""
        return f"{self.schema}oban_jobs"

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that can't change anything."""
        return read(self.repo, work)

    def rows(self, connection: Connection, sql: str, **values: Any) -> list[Any]:
        """Run a statement; `{jobs}` and `{schema}` are named as they are."""
        named = sql.replace("{jobs}", self.jobs).replace("{schema}", self.schema)
        return list(connection.execute(text(named), values))

    def now(self) -> Mapping[str, Any]:
        """Give the parameter that the database's clock is read with; see `Repo.sql_now`."""
        return {"now": self.repo.now_parameter()}

    def seconds_since(self, column: str) -> str:
        """Write in SQL how many seconds ago a column's moment was, with the parameter `now`."""
        now = self.repo.sql_now
        if self.postgres:
            return f"cast(extract(epoch FROM {now} - {column}) AS double precision)"
        return f"((julianday({now}) - julianday({column})) * 86400.0)"

    @property
    def claimant(self) -> str:
        """Write in SQL whose claim a row is."""
        if self.postgres:
            return "attempted_by[2]"
        found = "CASE WHEN json_valid(attempted_by) THEN json_extract(attempted_by, '$[1]') END"
        return f"cast({found} AS text)"

    @property
    def named(self) -> str:
        """Write in SQL that a row's queue is a name; an SQLite column holds anything."""
        return "true" if self.postgres else "typeof(queue) = 'text'"


def read(repo: Repo, work: Callable[[Connection], T]) -> T:
    """Run `work` in a transaction that can't change anything, and sees no schema but by name."""

    def apart(connection: Connection) -> T:
        if repo.dialect == "postgresql":
            # So that the catalog says of everything in which schema it is.
            connection.execute(text("SET LOCAL search_path = ''"))
            return work(connection)
        with _readable(connection):
            return work(connection)

    return repo.transaction(apart, read_only=True, attempts=2, statement_timeout=PATIENCE)


@contextmanager
def _readable(connection: Connection) -> Iterator[None]:
    """Have text that is not UTF-8 read all the same, as far as it can be."""
    driver: Any = connection.connection.driver_connection
    before, driver.text_factory = driver.text_factory, lambda raw: raw.decode(errors="replace")
    try:
        yield
    finally:
        driver.text_factory = before


def identifier(name: str) -> str:
    """Write a name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Write text as SQL, for statements that are shown."""
    return "'" + value.replace("'", "''") + "'"
