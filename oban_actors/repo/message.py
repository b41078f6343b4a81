"""A whole transaction as one message to PostgreSQL, where round trips would be most of its time."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.pq import ExecStatus
from psycopg.rows import tuple_row
from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect

from oban_actors.repo.sqlstates import lost_connection, sqlstate

if TYPE_CHECKING:
    Driver = psycopg.Connection[Any]

logger = logging.getLogger("oban_actors")

Rows = list[tuple[Any, ...]]

Send = Callable[[Sequence[str], Mapping[str, Any]], list[Rows]]
"""Sends statements with their parameters, and gives the rows of each that has any."""

PREPARED = "oban_prepared"
"""Key of `connection.info` under which stands what its session has prepared, and tried to."""

MOST_PREPARED = 32
"""Statements that a session keeps prepared at most."""

_DIALECT = psycopg_dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
_PLANNED = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
_PLACE = re.compile(r"%\((\w+)\)s|%%")

# The session has it no longer, or has another one's: somebody stands between it and us.
_NOT_OURS = frozenset({"26000", "42P05"})
_STALE = frozenset({"26000", "0A000"})
# A table or type that is not there, or a parameter of no type: whatever it is, it is told by
# the statement itself.
_UNPREPARABLE = ("42", "0A")


def pyformat(statement: str) -> str:
    """Write a statement with `:name` for its parameters in the style that `send` takes."""
    return " ".join(str(text(statement).compile(dialect=_DIALECT)).split())


class Message:
    """Statements in the texts that are sent for them.

    Args:
        begin: what begins their transaction.
        statements: in psycopg's style of parameters.
        end: what ends it, or nothing.

    Attributes:
        plain: all of it, values to be written in.
        names: of the statements that can be prepared.
        short: all of it, where they are prepared.

    """

    def __init__(self, begin: Sequence[str], statements: Sequence[str], end: Sequence[str]) -> None:
        forms = [_form(statement) for statement in statements]
        self.plain = "; ".join([*begin, *statements, *end])
        self.names = frozenset(name for name, _, _ in forms if name)
        self._begin = begin
        self._makes = {name: make for name, make, _ in forms if name}
        # What it would plan for the very values is what it plans for any.
        generic = "SET LOCAL plan_cache_mode = force_generic_plan"
        self.short = "; ".join([*begin, generic, *(call for _, _, call in forms), *end])

    def preparing(self, names: Sequence[str]) -> str:
        """Give what prepares some of them for the session."""
        return "; ".join([*self._begin, *(self._makes[name] for name in names), "COMMIT"])


@lru_cache(maxsize=256)
def message_of(begin: tuple[str, ...], statements: tuple[str, ...], *, commit: bool) -> Message:
    """Make one, once for each of the few that there are."""
    return Message(begin, statements, ("COMMIT",) if commit else ())


def _form(statement: str) -> tuple[str, str, str]:
    if not _PLANNED.match(statement):
        return "", "", statement
    names: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%"
        return f"${names.setdefault(found[1], len(names) + 1)}"

    # psycopg reads the text that prepares as it stands, without parameters.
    body = _PLACE.sub(place, statement)
    # Of another instance's only what is the same to the letter has the same name.
    name = f"oban_{hashlib.sha256(body.encode()).hexdigest()[:24]}"
    given = ", ".join(f"%({each})s" for each in names)
    return name, f"PREPARE {name} AS {body}", f"EXECUTE {name}" + (f" ({given})" if given else "")


class Sender:
    """Sends messages, and lets each session prepare what it is sent again.

    Parsing and planning is most of what a short message costs the server. A session prepares
    what it is sent for the second time; where it turns out not to be one session, as behind a
    pooler, nothing is prepared any more.

    Args:
        prepares: whether sessions may prepare at all.

    """

    def __init__(self, *, prepares: bool) -> None:
        self.prepares = prepares

    def send(
        self, connection: Connection, message: Message, parameters: Mapping[str, Any]
    ) -> list[Rows]:
        """Send it, and give the rows of each statement that has any, in their order.

        Args:
            connection: of the pool, in the driver's autocommit mode.
            message: what to send.
            parameters: values for its statements.

        Raises:
            psycopg.Error: a statement failed, or the connection did.

        """
        if self.prepares and self._is_prepared(connection, message):
            try:
                return send(connection, message.short, parameters)
            except psycopg.Error as error:
                if error.sqlstate not in _STALE:
                    raise
                # It failed before it did anything, or what it did is undone with it.
                self._forget(connection, error)
        return send(connection, message.plain, parameters)

    def _is_prepared(self, connection: Connection, message: Message) -> bool:
        known: dict[str, bool | None] = connection.info.setdefault(PREPARED, {})
        ready = [known.get(name) for name in message.names]
        if all(ready):
            return True
        if False in ready:
            return False
        if fresh := [name for name in message.names if name not in known]:
            # Most sessions of a short program never see it again.
            if len(known) + len(fresh) <= MOST_PREPARED:
                known.update(dict.fromkeys(fresh))
            return False
        return self._prepare(connection, message, known)

    def _prepare(
        self, connection: Connection, message: Message, known: dict[str, bool | None]
    ) -> bool:
        names = [name for name in message.names if not known[name]]
        done = True
        try:
            send(connection, message.preparing(names), None)
        except psycopg.Error as error:
            code = sqlstate(error) or ""
            if not code.startswith(_UNPREPARABLE):
                raise
            send(connection, "ROLLBACK", None)
            self._doubt(error)
            done = False
        known.update(dict.fromkeys(names, done))
        return done

    def _forget(self, connection: Connection, error: psycopg.Error) -> None:
        known: dict[str, bool | None] = connection.info.pop(PREPARED)
        send(connection, "ROLLBACK", None)
        self._doubt(error)
        if self.prepares:
            # A table was altered: what a statement gives now is not what it was to give.
            made = [f"DEALLOCATE {name}" for name, is_made in known.items() if is_made]
            send(connection, "; ".join(made), None)

    def _doubt(self, error: psycopg.Error) -> None:
        if error.sqlstate in _NOT_OURS:
            self.prepares = False
            logger.info("statements are not prepared, as sessions are shared: %s", error)


def send(
    connection: Connection, statements: str, parameters: Mapping[str, Any] | None
) -> list[Rows]:
    """Send statements together, and give the rows of each that has any, in their order.

    The values are written into the text, since PostgreSQL takes several statements only so. Each
    is planned and run after the one before, and sees what that did; the first that fails ends
    them all.

    Args:
        connection: of the pool, in the driver's autocommit mode.
        statements: with a semicolon between them, in psycopg's style of parameters.
        parameters: their values.

    Raises:
        psycopg.Error: one of them failed, or the connection did.

    """
    driver = cast("Driver", connection.connection.driver_connection)
    found: list[Rows] = []
    try:
        with psycopg.ClientCursor(driver, row_factory=tuple_row) as cursor:
            cursor.execute(statements, parameters)
            more: bool | None = True
            while more:
                # Its description would make an object of each column.
                result = cursor.pgresult
                if result is not None and result.status == ExecStatus.TUPLES_OK:
                    found.append(cursor.fetchall())
                more = cursor.nextset()
    except psycopg.Error as error:
        # SQLAlchemy did not see it fail, and would use a dead one again.
        if lost_connection(error):
            connection.invalidate(error)
        raise
    return found
