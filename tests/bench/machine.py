"""What the figures were measured on."""

import os
import platform
import sqlite3
from datetime import UTC, datetime

import psycopg

from tests.support.postgres import PostgresServer

SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_level",
    "shared_buffers",
    "autovacuum",
    "max_connections",
)


def described(note: str = "") -> dict[str, str]:
    """Describe the machine, the versions, and the settings of a durable server.

    Args:
        note: what else a reader has to know, such as that the machine was busy.

    """
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "processors": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
    }
    with (
        PostgresServer(durable=True) as server,
        psycopg.connect(server.conninfo()) as connection,
    ):
        for name in ("server_version", *SETTINGS):
            row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            facts["PostgreSQL" if name == "server_version" else name] = str((row or ("?",))[0])
    return facts | ({"note": note} if note else {})


def shown(facts: dict[str, str]) -> str:
    """Say it in a line."""
    versions = ("Python", "PostgreSQL", "SQLite")
    settings = ", ".join(f"{name}={facts[name]}" for name in SETTINGS if name in facts)
    parts = [
        facts["date"],
        f"{facts['processors']} processors, {facts['system']}",
        ", ".join(f"{name} {facts[name].split()[0]}" for name in versions if name in facts),
        settings,
        *([facts["note"]] if "note" in facts else []),
    ]
    return "; ".join(part for part in parts if part)
