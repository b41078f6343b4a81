"""What a schema consists of, so that two can be compared."""

from typing import Any

import psycopg

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind = 'r' AND a.attnum > 0
  AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
_TABLES = """
SELECT relname, relpersistence, obj_description(oid, 'pg_class') FROM pg_class
WHERE relnamespace = to_regnamespace(%(schema)s) AND relkind = 'r' ORDER BY 1
"""
_CONSTRAINTS = """
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = to_regnamespace(%(schema)s) ORDER BY 1
"""
_INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %(name)s ORDER BY 1"
_ENUM = """
SELECT e.enumlabel FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
WHERE t.typnamespace = to_regnamespace(%(schema)s) ORDER BY e.enumsortorder
"""
_CODE = """
SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(%(schema)s)
UNION ALL
SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = to_regnamespace(%(schema)s) AND NOT t.tgisinternal
"""


def describe(connection: "psycopg.Connection[Any]", prefix: str) -> dict[str, Any]:
    """List all that is in a schema, without the schema's own name."""
    queries = {
        "tables": _TABLES,
        "columns": _COLUMNS,
        "constraints": _CONSTRAINTS,
        "indexes": _INDEXES,
        "states": _ENUM,
        "code": _CODE,
    }
    quoted = '"' + prefix + '"'
    return {
        name: [
            tuple(_neutral(value, prefix) for value in row)
            for row in connection.execute(
                query.encode(), {"schema": quoted, "name": prefix}
            ).fetchall()
        ]
        for name, query in queries.items()
    }


def without_gin(described: dict[str, Any]) -> dict[str, Any]:
    """Leave out the two indexes that are only made when asked for."""
    gin = {"oban_jobs_args_index", "oban_jobs_meta_index"}
    return described | {"indexes": [each for each in described["indexes"] if each[0] not in gin]}


def _neutral(value: Any, prefix: str) -> Any:
    if not isinstance(value, str):
        return value
    return value.replace(f'"{prefix}".', "").replace(f"{prefix}.", "")
