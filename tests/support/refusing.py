"""Triggers that refuse to have rows written, in whatever way."""

from typing import Literal

from tests.support.instances import Starter

POSTGRES = """
CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN {body}; RETURN coalesce(NEW, OLD); END $$
"""
POSTGRES_TRIGGERS = {
    "row": "CREATE TRIGGER refuse BEFORE {event} ON {jobs} FOR EACH ROW WHEN ({when})",
    "deferred": "CREATE CONSTRAINT TRIGGER refuse AFTER {event} ON {jobs} "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ({when})",
    "statement": "CREATE TRIGGER refuse BEFORE {event} ON {jobs} FOR EACH STATEMENT",
}
SQLITE = "CREATE TRIGGER refuse BEFORE {event} ON oban_jobs WHEN {when} BEGIN {body}; END"

OF_THEIR_OWN = "RAISE 'not this one' USING ERRCODE = 'AU001'"
NO_TABLE = "EXECUTE 'INSERT INTO audit_of_nobody VALUES (1)'"
PLAIN = "RAISE 'not this one'"
TOO_DEEP = "RAISE 'not this one' USING ERRCODE = 'statement_too_complex'"


def refuse(
    start: Starter,
    body: str,
    when: str = "true",
    kind: str = "row",
    event: Literal["INSERT", "UPDATE", "DELETE"] = "UPDATE",
) -> None:
    """Have a trigger that raises for some rows."""
    if start.database.kind == "sqlite":
        start.tables.execute(SQLITE.format(event=event, when=when, body=body))
        return
    jobs, schema = start.tables.jobs, f'"{start.database.prefix}"'
    start.tables.execute(POSTGRES.format(schema=schema, body=body))
    trigger = POSTGRES_TRIGGERS[kind].format(event=event, jobs=jobs, when=when)
    start.tables.execute(f"{trigger} EXECUTE FUNCTION {schema}.refuse()")
