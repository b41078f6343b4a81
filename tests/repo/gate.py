"""COMMITs that wait until a test lets them through."""

from typing import Any

import psycopg

Admin = psycopg.Connection[Any]

GATE = 4711


class Gate:
    """Makes each COMMIT that wrote to a table wait until the gate is opened.

    Args:
        prefix: the schema.
        table: the table.
        admin: a connection that does not pass the network.
        event: what has to be done to the table, default an insert.

    """

    def __init__(self, prefix: str, table: str, admin: Admin, event: str = "INSERT") -> None:
        self.admin = admin
        admin.execute(f"""
            CREATE FUNCTION {prefix}.gate() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); RETURN NULL; END $$
        """)
        admin.execute(f"""
            CREATE CONSTRAINT TRIGGER gate AFTER {event} ON {table}
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {prefix}.gate()
        """)
        admin.execute(f"SELECT pg_advisory_lock({GATE})")

    def open(self) -> None:
        """Let every COMMIT through."""
        self.admin.execute(f"SELECT pg_advisory_unlock({GATE})")

    def waiting(self) -> int | None:
        """Name the server process whose COMMIT waits here."""
        row = self.admin.execute(
            "SELECT max(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND objid = %s AND NOT granted",
            [GATE],
        ).fetchone()
        found: int | None = row[0] if row else None
        return found
