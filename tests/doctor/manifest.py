"""Write down what the migrations make: `python -m tests.doctor.manifest`, after changing them."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, text

import oban_actors.doctor
from oban_actors import Oban
from oban_actors.doctor.exam import read
from oban_actors.doctor.manifest import describe
from tests.support.databases import new_database
from tests.support.postgres import PostgresServer, Server

PATH = Path(oban_actors.doctor.__file__).with_name("manifest.json")
VERSIONS = (11, 12, 13, 14)


def made(server: Server) -> dict[str, Any]:
    """Migrate to each version in a schema of its own, and describe what came of it."""
    found = {}
    with new_database(server) as name:
        for version in VERSIONS:
            prefix = f"m_{uuid4().hex[:8]}"
            oban = Oban(server.url(name), prefix=prefix)
            oban.migrate(version=version)

            def look(connection: Connection, prefix: str = prefix) -> dict[str, Any]:
                return describe(connection, prefix, f"{prefix}.").to_json()

            found[str(version)] = read(oban.repo, look)
            oban.repo.transaction(
                lambda connection, prefix=prefix: connection.execute(  # type: ignore[misc]  # its default is its closure
                    text(f"DROP SCHEMA {prefix} CASCADE")
                )
            )
            oban.repo.close()
    return found


def written(found: dict[str, Any]) -> str:
    """Give it as the file has it."""
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    with PostgresServer() as one:
        PATH.write_text(written(made(one)), "utf-8")
