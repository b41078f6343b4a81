"""An SQLite file: its mode, its integrity, its tables."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import Connection, text

from oban_actors.doctor.exam import Exam
from oban_actors.doctor.finding import Finding
from oban_actors.doctor.versions import MIGRATE
from oban_actors.repo.migrator import OWN_VERSION, upgrade

Columns = dict[str, dict[str, tuple[str, bool]]]
Indexes = dict[str, str]

_COLUMNS = text("""
SELECT m.name, c.name, c.type, c."notnull"
FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c
WHERE m.type = 'table' AND m.name LIKE 'oban\\_%' ESCAPE '\\'
""")
_INDEXES = text("""
SELECT name, sql FROM sqlite_schema
WHERE type = 'index' AND name LIKE 'oban\\_%' ESCAPE '\\' AND sql IS NOT NULL
""")


def check_file(exam: Exam) -> Iterator[Finding]:
    """Look at the file itself."""
    mode = exam.read(lambda connection: connection.execute(text("PRAGMA journal_mode")).scalar())
    if mode != "wal":
        what = f"the journal mode is {mode} instead of wal: readers and writers block each other"
        fix = (
            "PRAGMA journal_mode = WAL;\n"
            "-- while nobody else has it open; the file must be on a local disk, not on a network's"
        )
        yield Finding("warning", "journal_mode", what, fix)
    found = exam.read(lambda c: list(c.execute(text("PRAGMA quick_check(3)")).scalars()))
    if found != ["ok"]:
        what = f"the file is damaged: {'; '.join(map(str, found))}"
        fix = "stop all nodes, then: sqlite3 jobs.db .recover | sqlite3 mended.db"
        yield Finding("error", "damaged", what, fix)


def check_shape(exam: Exam) -> Iterator[Finding]:
    """Compare tables, columns and indexes with what the migrations make."""
    if exam.facts.version == 0 or exam.facts.own_version != OWN_VERSION:
        return
    wanted, wanted_indexes = _expected()
    columns, indexes = exam.read(_describe)
    for table, parts in wanted.items():
        if table not in columns:
            what = f"there is no table {table}"
            yield Finding("error", "missing_table", what, _statement(table))
            continue
        yield from _compare(table, parts, columns[table])
    for name, sql in wanted_indexes.items():
        if name not in indexes:
            yield Finding("warning", "missing_index", f"there is no index {name}", f"{sql};")
        elif indexes[name] != sql:
            what = f"the index {name} is {indexes[name]} instead of {sql}"
            yield Finding("warning", "index", what, f"DROP INDEX {name};\n{sql};")


def _compare(
    table: str, wanted: dict[str, tuple[str, bool]], found: dict[str, tuple[str, bool]]
) -> Iterator[Finding]:
    for name, (kind, _) in wanted.items():
        if name not in found:
            what = f"{table} has no column {name}"
            fix = f"SQLite can't add it as it was: drop the empty table, or copy it, then {MIGRATE}"
            yield Finding("error", "missing_column", what, fix)
        elif found[name][0].upper() != kind:
            what = f"{table}.{name} is of type {found[name][0]} instead of {kind}"
            fix = f"copy the rows into a table as {MIGRATE} makes it"
            yield Finding("notice", "column_type", what, fix)


def _expected() -> tuple[Columns, Indexes]:
    with _fresh() as connection:
        return _describe(connection)


def _statement(table: str) -> str:
    with _fresh() as connection:
        query = text("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = :name")
        return f"{connection.execute(query, {'name': table}).scalar()};"


@contextmanager
def _fresh() -> Iterator[Connection]:
    # Made by the migrations themselves, each time, in memory.
    engine = sa.create_engine("sqlite://")
    try:
        with engine.connect() as connection:
            upgrade(connection, "public")
            yield connection
    finally:
        engine.dispose()


def _describe(connection: Connection) -> tuple[Columns, Indexes]:
    columns: Columns = {}
    for table, name, kind, required in connection.execute(_COLUMNS):
        columns.setdefault(table, {})[name] = (kind, bool(required))
    indexes = {name: _plain(sql) for name, sql in connection.execute(_INDEXES)}
    return columns, indexes


def _plain(sql: str) -> str:
    return " ".join(sql.replace('"', "").split())
