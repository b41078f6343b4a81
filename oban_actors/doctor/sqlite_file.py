"""An SQLite file: its mode, its integrity, its tables."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import Connection, text

from oban_actors.doctor.exam import Exam
from oban_actors.doctor.finding import Finding
from oban_actors.repo.migrator import OWN_VERSION, upgrade

Column = tuple[str, bool, str | None]
"""A column's type, whether it is NOT NULL, and its default."""

Columns = dict[str, dict[str, Column]]
Indexes = dict[str, str]

_COLUMNS = text("""
SELECT m.name, c.name, c.type, c."notnull", c.dflt_value
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


def _compare(table: str, wanted: dict[str, Column], found: dict[str, Column]) -> Iterator[Finding]:
    again = _rebuilt(table, [name for name in wanted if name in found])
    for name, column in wanted.items():
        if name not in found:
            what = f"{table} has no column {name}"
            yield Finding("error", "missing_column", what, _added(table, name, column) or again)
        elif found[name][0].upper() != column[0]:
            what = f"{table}.{name} is of type {found[name][0]} instead of {column[0]}"
            yield Finding("notice", "column_type", what, again)


def _added(table: str, name: str, column: Column) -> str | None:
    kind, required, default = column
    # SQLite adds none whose default it would have to compute, nor one without any for old rows.
    if (required and default is None) or "(" in (default or ""):
        return None
    given = "" if default is None else f" DEFAULT {default}"
    return f"ALTER TABLE {table} ADD COLUMN {name} {kind}{given}{' NOT NULL' * required};"


def _expected() -> tuple[Columns, Indexes]:
    with _fresh() as connection:
        return _describe(connection)


def _statement(table: str) -> str:
    return next(iter(_statements(table, "table").values()))


def _statements(table: str, kind: str) -> dict[str, str]:
    query = text("""
    SELECT name, sql || ';' FROM sqlite_schema
    WHERE type = :kind AND tbl_name = :table AND sql IS NOT NULL
    """)
    with _fresh() as connection:
        found = connection.execute(query, {"kind": kind, "table": table})
        return {name: sql for name, sql in found}  # noqa: C416 (rows are no pairs to a checker)


def _rebuilt(table: str, kept: list[str]) -> str:
    # As SQLite's own manual says to change what ALTER TABLE can't.
    indexes = _statements(table, "index")
    columns = ", ".join(kept)
    return "\n".join(
        [
            "-- while no node runs",
            "BEGIN IMMEDIATE;",
            *(f"DROP INDEX IF EXISTS {name};" for name in indexes),
            f"ALTER TABLE {table} RENAME TO {table}_old;",
            _statement(table),
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_old;",
            f"DROP TABLE {table}_old;",
            *indexes.values(),
            "COMMIT;",
        ]
    )


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
    for table, name, kind, required, default in connection.execute(_COLUMNS):
        columns.setdefault(table, {})[name] = (kind, bool(required), default)
    indexes = {name: _plain(sql) for name, sql in connection.execute(_INDEXES)}
    return columns, indexes


def _plain(sql: str) -> str:
    return " ".join(sql.replace('"', "").split())
