"""Whether a notification through this URL comes back, as the Notifier needs it."""

import uuid
from collections.abc import Iterator

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import text

from oban_actors.doctor.exam import Exam
from oban_actors.doctor.finding import Finding
from oban_actors.errors import DatabaseError

CHANNEL = "doctor"

_FIX = (
    'Oban(..., notifier={"listen_url": "postgresql://..."}): a URL that leads to the server itself '
    "and not through a transaction pooler"
)

_CORRECT = "correct notifier.listen_url: the same database, and not through a transaction pooler"


def check(exam: Exam) -> Iterator[Finding]:
    """LISTEN as the Notifier does, NOTIFY through the pool, and wait."""
    if exam.config.notifier.kind == "isolated":
        return
    try:
        connection = exam.repo.raw_connection()
    except DatabaseError as error:
        what = f"no connection can be made for LISTEN: {error}"
        yield Finding("error", "listen_connection", what, _fix(exam))
        return
    with connection:
        try:
            heard = _round_trip(exam, connection)
        except psycopg.Error as error:
            what = f"LISTEN failed: {error}"
            yield Finding("error", "listen", what, _fix(exam))
            return
    if not heard:
        what = (
            f"LISTEN works, but a notification did not come within {exam.limits.listen:g} s: jobs "
            "wait for the next look, and a leader that was killed for its lease to end"
        )
        yield Finding("error", "listen", what, _fix(exam))


def _fix(exam: Exam) -> str:
    return _FIX if exam.config.notifier.listen_url is None else _CORRECT


def _round_trip(exam: Exam, connection: "psycopg.Connection[object]") -> bool:
    channel, token = exam.config.channel(CHANNEL), uuid.uuid4().hex
    connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
    notify = text("SELECT pg_catalog.pg_notify(:channel, :token)")
    exam.repo.transaction(
        lambda pooled: pooled.execute(notify, {"channel": channel, "token": token})
    )
    waiting = connection.notifies(timeout=exam.limits.listen)
    return any(one.payload == token for one in waiting)
