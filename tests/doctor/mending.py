"""Break a database on purpose, and mend it by what the doctor printed."""

import contextlib
import sqlite3
from pathlib import Path

import psycopg
import sqlalchemy as sa

from oban_actors import Oban
from oban_actors.doctor import Finding, Limits, examine
from oban_actors.doctor.versions import MIGRATE
from tests.support.databases import Database


def execute(database: Database, script: str) -> None:
    """Run statements as an administrator does, each for itself; `{s}` is the schema, with a dot."""
    if database.kind == "sqlite":
        path = sa.make_url(database.url).database
        assert path is not None
        assert Path(path).exists()
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.executescript(script.replace("{s}", ""))
        return
    url = sa.make_url(database.url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        for statement in script.replace("{s}", f'"{database.prefix}".').split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())


def mend(oban: Oban, database: Database, finding: Finding) -> None:
    """Do what a finding says."""
    if finding.fix == MIGRATE:
        oban.migrate()
    else:
        execute(database, finding.fix)


def codes(oban: Oban, limits: Limits | None = None) -> list[str]:
    """The kinds of faults that are found."""
    return [one.code for one in examine(oban, limits)]


def only(oban: Oban, limits: Limits | None = None) -> Finding:
    """The one fault that is found."""
    found = examine(oban, limits)
    assert len(found) == 1, found
    return found[0]
