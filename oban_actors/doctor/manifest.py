"""What a schema on PostgreSQL consists of: as it should be, and as it is.

What should be was written down by migrating a database to each version and describing it, and
a test does so again and compares. Names of the schema stand as `{schema}.` in both.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

from sqlalchemy import Connection, text

OWN = "oban_actors_"

SINCE_SUSPENDED = 14
"""The version that brought the state `suspended`."""

_COLUMNS = text("""
SELECT c.relname, c.relkind = 'p', a.attname,
  pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
  pg_catalog.pg_get_expr(d.adbin, d.adrelid)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE n.nspname = :prefix AND c.relkind IN ('r', 'p')
  AND (c.relname IN ('oban_jobs', 'oban_peers') OR c.relname LIKE 'oban\\_actors\\_%')
ORDER BY c.relname, a.attnum
""")
_CONSTRAINTS = text("""
SELECT c.relname, o.conname, pg_catalog.pg_get_constraintdef(o.oid)
FROM pg_catalog.pg_constraint o
JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :prefix AND o.contype IN ('c', 'p', 'u')
ORDER BY c.relname, o.conname
""")
_INDEXES = text("""
SELECT t.relname, c.relname, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid,
  EXISTS (SELECT 1 FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = :prefix
ORDER BY t.relname, c.relname
""")
_STATES = text("""
SELECT e.enumlabel FROM pg_catalog.pg_enum e
JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = :prefix AND t.typname = 'oban_job_state'
ORDER BY e.enumsortorder
""")


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the catalog describes it."""

    type: str
    required: bool
    default: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table: columns, constraints and indexes by name; `invalid` names indexes of no use."""

    columns: dict[str, Column]
    constraints: dict[str, str]
    indexes: dict[str, str]
    invalid: frozenset[str] = frozenset()
    partitioned: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """The tables by name, and the states that a job may have."""

    tables: dict[str, Table]
    states: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain values."""
        tables = {
            name: {
                "columns": {
                    key: [column.type, column.required, column.default]
                    for key, column in table.columns.items()
                },
                "constraints": table.constraints,
                "indexes": table.indexes,
            }
            for name, table in self.tables.items()
        }
        return {"tables": tables, "states": list(self.states)}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """Read what `to_json` gave."""
        tables = {
            name: Table(
                {key: Column(*column) for key, column in table["columns"].items()},
                table["constraints"],
                table["indexes"],
            )
            for name, table in given["tables"].items()
        }
        return cls(tables, tuple(given["states"]))

    def without(self, state: str) -> "Shape":
        """Give it without one of the states."""
        return Shape(self.tables, tuple(each for each in self.states if each != state))


def describe(connection: Connection, prefix: str, schema: str) -> Shape:
    """Describe a schema as it is.

    Args:
        connection: whose `search_path` is empty.
        prefix: the schema's name.
        schema: the same as SQL names it, with the dot.

    """

    def neutral(value: str | None) -> str | None:
        return None if value is None else value.replace(schema, "{schema}.")

    def rows(query: Any) -> Any:
        return connection.execute(query, {"prefix": prefix})

    tables: dict[str, Table] = {}
    for table, partitioned, name, kind, required, default in rows(_COLUMNS):
        one = tables.setdefault(table, Table({}, {}, {}, partitioned=partitioned))
        one.columns[name] = Column(neutral(kind) or "", required, neutral(default))
    for table, name, definition in rows(_CONSTRAINTS):
        if table in tables:
            tables[table].constraints[name] = neutral(definition) or ""
    invalid: dict[str, set[str]] = {}
    for table, name, definition, valid, constraint in rows(_INDEXES):
        if table not in tables:
            continue
        if not constraint:
            tables[table].indexes[name] = neutral(definition) or ""
        if not valid:
            invalid.setdefault(table, set()).add(name)
    return Shape(
        {
            name: Table(
                table.columns,
                table.constraints,
                table.indexes,
                frozenset(invalid.get(name, ())),
                table.partitioned,
            )
            for name, table in tables.items()
        },
        tuple(rows(_STATES).scalars()),
    )


@cache
def expected(version: int) -> Shape | None:
    """Give what a schema of this version of Oban's should have; None for one that isn't known."""
    given = json.loads((resources.files("oban_actors.doctor") / "manifest.json").read_text("utf-8"))
    found = given.get(str(version))
    if found is None:
        return None
    shape = Shape.from_json(found)
    # Elixir's older installations got this state with the version that needs it.
    return shape if version >= SINCE_SUSPENDED else shape.without("suspended")
