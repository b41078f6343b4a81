"""What SQL is sent to the databases, and text that would like to become part of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

CANARY = "çanary"
"""Stands in every hostile text, and in no statement of ours."""

ENDS = (
    "'); DROP TABLE oban_jobs; --",
    '"; DROP SCHEMA public CASCADE; --',
    "' OR '1'='1",
    "\\'; DELETE FROM oban_jobs; --",
    "$$; DROP TABLE oban_jobs; $$",
    "%s %(now)s %",
    ":now :id ::text",
    "{jobs} {0} {}",
    "*/ -- /*",
    "\n; COMMIT; DROP TABLE oban_jobs",
    '{"a": ["b"]}, ","',
    "\u2019\u02bc\uff07; --",
)
HOSTILE = tuple(f"{CANARY}{end}" for end in ENDS)

_PIECES = st.sampled_from([*ENDS, "'", '"', "\\", "`", ";", "--", "%", ":x", "{", "}", "$1", "é"])
TEXTS = st.lists(_PIECES | st.text(max_size=5), min_size=1, max_size=5).map(
    lambda pieces: CANARY + "".join(pieces)
)
"""Texts of such pieces and of any characters at all, also those that nobody can store."""


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the text of every statement that goes through SQLAlchemy, without its parameters."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def tables_of(engine: sa.Engine, schema: str | None) -> set[str]:
    """Give the names of all tables."""
    return set(sa.inspect(engine).get_table_names(schema=schema))
