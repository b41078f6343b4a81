"""Whether a JSON column holds what is asked for: PostgreSQL's `@>`, and the same for SQLite."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array

from oban_actors.repo.times import Dialect

Clause = sa.ColumnElement[bool]

_MAX_INTEGER = 2**63
_NAMES = {True: "true", False: "false", None: "null"}


def holds(dialect: Dialect, column: sa.ColumnElement[Any], value: Mapping[str, Any]) -> Clause:
    """Say that a JSON column holds an object: each of its keys, with what stands there.

    Of an array, each element has to be held by some element of the column's.

    Args:
        dialect: the database's kind.
        column: of JSON objects.
        value: a JSON object.

    """
    if dialect == "postgresql":
        return column.op("@>", is_comparison=True)(document(dialect, value))
    return _object(_document(column), value)


def document(dialect: Dialect, value: Any) -> sa.ColumnElement[Any]:
    """Write a JSON value as an SQL expression, as text, which every driver takes alike.

    Args:
        dialect: the database's kind.
        value: JSON.

    """
    # Sorted, so that equal objects are equal texts, which is how SQLite finds unique jobs.
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    written = sa.literal(plain, sa.Text)
    return written if dialect == "sqlite" else sa.cast(written, JSONB)


def has_words(dialect: Dialect, column: sa.ColumnElement[Any], words: Sequence[str]) -> Clause:
    """Say that a column of texts has all of these.

    Args:
        dialect: the database's kind.
        column: an array on PostgreSQL, a JSON array on SQLite.
        words: what it has to have; with none it may be anything but NULL.

    """
    if dialect == "postgresql":
        texts = ARRAY(sa.Text)
        # Tables that were made before Oban 2.18 have an array of another type.
        wanted = sa.cast(array(words, type_=sa.Text), texts)
        return sa.cast(column, texts).op("@>", is_comparison=True)(wanted)
    return _array(_document(column), words)


def _document(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    # What is no JSON would fail the statement, and with it all other rows.
    text = sa.type_coerce(column, sa.Text)
    return sa.case((sa.func.json_valid(text), text), else_=sa.null())


def _object(document: sa.ColumnElement[Any], value: Mapping[str, Any]) -> Clause:
    is_object = sa.func.json_type(document) == "object"
    # By key instead of by path: a path has no way to write a quote.
    members = (_some(document, held, key=key) for key, held in value.items())
    return sa.and_(is_object, *members)


def _array(document: sa.ColumnElement[Any], values: Sequence[Any]) -> Clause:
    is_array = sa.func.json_type(document) == "array"
    return sa.and_(is_array, *(_some(document, held) for held in values))


def _some(document: sa.ColumnElement[Any], value: Any, key: str | None = None) -> Clause:
    each = sa.func.json_each(document).table_valued("key", "value", "type").alias()
    match = _same(each.c, value)
    if key is not None:
        match = sa.and_(each.c.key == sa.literal(key, sa.Text), match)
    return sa.exists(sa.select(sa.literal(1)).select_from(each).where(match))


def _same(found: Any, value: Any) -> Clause:
    if isinstance(value, Mapping):
        return sa.and_(found.type == "object", _object(_document(found.value), value))
    if isinstance(value, list):
        return sa.and_(found.type == "array", _array(_document(found.value), value))
    if value is None or isinstance(value, bool):
        return sa.and_(found.type == _NAMES[value])
    if isinstance(value, str):
        return sa.and_(found.type == "text", found.value == sa.literal(value, sa.Text))
    # What is beyond SQLite's integers it has read as a real number, too.
    number = float(value) if abs(value) >= _MAX_INTEGER else value
    return sa.and_(found.type.in_(("integer", "real")), found.value == sa.literal(number))
