"""Keeping all other writers of an SQLite file out, in whichever transaction."""

from sqlalchemy import Connection, text

from oban_actors.errors import TransientError
from oban_actors.repo.sqlstates import translate

# It changes nothing, but from here on there is no other writer.
_LOCK = text("UPDATE oban_jobs SET id = id WHERE id = 0")


def keep_writers_out(connection: Connection) -> None:
    """Let nobody else write until the transaction ends.

    Ours begin with `BEGIN IMMEDIATE` and have done so; a host's may not even have begun, since its
    driver waits for the first statement that writes: what it read before then, others may change.

    Raises:
        TransientError: another one writes and did not end in time.

    """
    try:
        connection.execute(_LOCK)
    except Exception as error:
        found = translate(error)
        if not isinstance(found, TransientError):
            raise
        raise TransientError(
            "another transaction writes to the database and did not end in time, or wrote to "
            "it since this one began to read"
        ) from error
