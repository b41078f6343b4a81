"""Triggers of a host: such as refuse to have rows written, and such as write by themselves."""

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


_REACT = """
CREATE FUNCTION {schema}.react() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN {body}; RETURN NULL; END $$

CREATE TRIGGER react AFTER UPDATE ON {jobs} FOR EACH ROW WHEN ({when})
EXECUTE FUNCTION {schema}.react()
"""
_SQLITE_REACT = "CREATE TRIGGER react AFTER UPDATE ON {jobs} WHEN {when} BEGIN {body}; END"


def react(start: Starter, when: str, body: str) -> None:
    """Have a trigger that runs a statement, in which `{jobs}` is the table, after some updates."""
    sqlite = start.database.kind == "sqlite"
    schema = "" if sqlite else f'"{start.database.prefix}"'
    made = (_SQLITE_REACT if sqlite else _REACT).format(
        schema=schema, jobs="{jobs}", when=when, body=body
    )
    for statement in made.split("\n\n"):
        start.tables.execute(statement)


_HISTORY = """
CREATE TABLE {schema}.parent (id text PRIMARY KEY)

CREATE TABLE {schema}.child (id text REFERENCES {schema}.parent DEFERRABLE INITIALLY DEFERRED)

CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE key text := NEW.id || '-' || gen_random_uuid();
BEGIN
  INSERT INTO {schema}.child VALUES (key);
  INSERT INTO {schema}.parent VALUES (key);
  RETURN NEW;
END $$

CREATE TRIGGER note BEFORE INSERT OR UPDATE ON {jobs} FOR EACH ROW EXECUTE FUNCTION {schema}.note()
"""


def keep_history(start: Starter) -> None:
    """Have a trigger, on PostgreSQL, that can't do without constraints that are deferred."""
    schema = f'"{start.database.prefix}"'
    for statement in _HISTORY.format(schema=schema, jobs="{jobs}").split("\n\n"):
        start.tables.execute(statement)


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
