"""Running work in a transaction of its own, again and again where that is safe."""

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from oban_actors.actors.clock import SYSTEM_CLOCK
from oban_actors.backoff import exponential, jitter
from oban_actors.errors import (
    CommitUnknown,
    DatabaseError,
    DatabaseUnavailable,
    LockTimeout,
    TransientError,
)
from oban_actors.repo.commits import UNWRITTEN, Fate, Trace, fate, take
from oban_actors.repo.sqlstates import (
    ABORTED,
    INVALID_PARAMETER,
    QUERY_CANCELED,
    READ_ONLY,
    lost_connection,
    sqlstate,
    translate,
)
from oban_actors.repo.watchdog import Call

T = TypeVar("T")
Work = Callable[[Connection], T]

CONFLICT_ATTEMPTS = 20
_CONFLICT_DELAY = 0.01
_FIRST_DELAY = 0.02
_VERDICT_ATTEMPTS = 10

# What a driver raises while SQLAlchemy is not there to wrap it.
_ERRORS = (SQLAlchemyError, psycopg.Error, sqlite3.Error, DatabaseError)


@dataclass(frozen=True)
class Terms:
    """How a transaction is to run.

    Attributes:
        begin: the statements that begin it, all its settings included.
        idempotent: whether doing it twice is the same as doing it once.
        attempts: how many connections may fail before it is given up.
        patience: seconds after which a conflict with others is no longer tried again.
        lenient: whether text of SQLite's that is no UTF-8 is read as bytes; else it fails the
            statement.

    """

    begin: tuple[str, ...]
    idempotent: bool = True
    attempts: int = 5
    patience: float = math.inf
    lenient: bool = False


class _Unanswered(Exception):
    # A COMMIT was sent and the connection was lost before an answer came.
    def __init__(self, error: Exception, trace: Trace | None, result: Any) -> None:
        self.error = error
        self.trace = trace
        self.result = result


def run(engine: Engine, call: Call, terms: Terms, work: Work[T]) -> T:
    """Run `work` in a transaction until it is committed, or as often as makes sense.

    Raises:
        DatabaseError: what went wrong in the end, in our terms.

    """
    conflicts = failures = 0
    until = SYSTEM_CLOCK.monotonic() + terms.patience
    while True:
        try:
            return _attempt(engine, call, terms, work)
        except LockTimeout:
            raise
        except TransientError:
            conflicts += 1
            if conflicts >= CONFLICT_ATTEMPTS or SYSTEM_CLOCK.monotonic() > until:
                raise
            delay = _CONFLICT_DELAY
        except DatabaseUnavailable:
            failures += 1
            # Who was silent for so long is not worth as long again.
            if failures >= terms.attempts or call.expired:
                raise
            delay = _failure_delay(failures)
        except _Unanswered as unanswered:
            failures += 1
            silent = call.expired
            if unanswered.trace is UNWRITTEN or (
                not terms.idempotent and _committed(engine, call, terms, unanswered)
            ):
                result: T = unanswered.result
                return result
            if failures >= terms.attempts or silent:
                raise _explained(unanswered.error, call) from unanswered.error
            delay = _failure_delay(failures)
        pause(call, jitter(delay, mult=0.5))


def pause(call: Call, seconds: float) -> None:
    """Wait, unless there is no more time to.

    Raises:
        DatabaseError: the call was cancelled.
        DatabaseUnavailable: the repo was closed.

    """
    if call.hurry.wait(seconds):
        check(call)
        raise DatabaseUnavailable("closed while waiting for another try")


def check(call: Call) -> None:
    """Go on unless the call was cancelled.

    Raises:
        DatabaseError: it was.

    """
    if call.cancelled:
        raise DatabaseError("cancelled", sqlstate=QUERY_CANCELED)


def _attempt(engine: Engine, call: Call, terms: Terms, work: Work[T]) -> T:
    call.expired = False
    pool = engine.pool
    try:
        with engine.connect() as connection:
            try:
                return _in_transaction(connection, call, terms, work)
            except BaseException as error:
                if _spoiled(error, call) or _left_open(connection):
                    connection.invalidate()
                raise
            finally:
                call.release()
                # Closed meanwhile: nobody looks into the old pool any more.
                if engine.pool is not pool:
                    connection.invalidate()
    except _ERRORS as error:
        explained = _explained(error, call)
        if explained is error:
            raise
        raise explained from error
    finally:
        call.release()


def _in_transaction(connection: Connection, call: Call, terms: Terms, work: Work[T]) -> T:
    driver = connection.connection.driver_connection
    call.hold(driver)
    take(connection)
    with connection.begin() as transaction, _reading(driver, lenient=terms.lenient):
        for statement in terms.begin:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        result = work(connection)
        trace = take(connection)
        _refuse_aborted(driver)
        call.touch()
        try:
            transaction.commit()
        except (SQLAlchemyError, psycopg.Error) as error:
            if lost_connection(error):
                raise _Unanswered(error, trace, result) from error
            raise
    return result


@contextmanager
def _reading(driver: Any, *, lenient: bool) -> Iterator[None]:
    """Let text that is none be read as its bytes."""
    # SQLite keeps any bytes as text.
    if not lenient or not isinstance(driver, sqlite3.Connection):
        yield
        return
    before, driver.text_factory = driver.text_factory, _text_or_bytes
    try:
        yield
    finally:
        driver.text_factory = before


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _refuse_aborted(driver: Any) -> None:
    # PostgreSQL would take a COMMIT after a failed statement, and roll back without a word.
    aborted = isinstance(driver, psycopg.Connection) and (
        driver.info.transaction_status == TransactionStatus.INERROR
    )
    if aborted:
        raise DatabaseError("a statement of the transaction had failed", sqlstate=ABORTED)


def _spoiled(error: BaseException, call: Call) -> bool:
    # A late cancel must not meet the next user, what was cut is of no use to one, and a server
    # that has become a standby stays one.
    return call.cancelled or call.expired or sqlstate(error) == READ_ONLY


def _left_open(connection: Connection) -> bool:
    # A host's listener to SQLAlchemy's events raised, after which nothing is rolled back.
    if connection.closed or connection.invalidated:
        return False
    driver = connection.connection.driver_connection
    if isinstance(driver, psycopg.Connection):
        return driver.info.transaction_status != TransactionStatus.IDLE
    return bool(getattr(driver, "in_transaction", False))


def _explained(error: Exception, call: Call) -> DatabaseError:
    if call.cancelled:
        return DatabaseError("cancelled", sqlstate=QUERY_CANCELED)
    found = translate(error)
    if call.expired and isinstance(found, DatabaseUnavailable):
        return DatabaseUnavailable(f"no answer within {call.allowance:g} s, connection cut")
    return found


def _failure_delay(failures: int) -> float:
    # At once first: after a restart of the server all pooled connections are dead, none is new.
    return _FIRST_DELAY if failures == 1 else exponential(failures - 2, mult=0.25)


def _committed(engine: Engine, call: Call, terms: Terms, unanswered: _Unanswered) -> bool:
    """Find out on a new connection what became of a COMMIT that got no answer.

    Raises:
        CommitUnknown: nobody knows.

    """
    trace = unanswered.trace
    unknown = CommitUnknown(
        "a COMMIT got no answer and its outcome can't be found out",
        sqlstate=sqlstate(unanswered.error),
        transaction_id=None if trace is None else trace.transaction_id,
    )
    if trace is None:
        raise unknown from unanswered.error
    once = Terms(terms.begin)
    for attempt in range(_VERDICT_ATTEMPTS):
        found: Fate
        try:
            found = _attempt(engine, call, once, lambda connection: fate(connection, trace))
        except _Unanswered as again:
            # The answer was read; what was lost is the end of a transaction that wrote nothing.
            found = again.result
        except DatabaseUnavailable:
            if call.expired:
                break
            found = "in progress"
        except DatabaseError as error:
            # This server never came as far as that transaction: it took over from the one that did.
            if error.sqlstate != INVALID_PARAMETER:
                raise unknown from error
            found = "aborted"
        if found == "unknown":
            break
        if found != "in progress":
            return found == "committed"
        # The server has not noticed yet that its client is gone, or is not back yet.
        pause(call, jitter(exponential(attempt, mult=0.05, max_pow=5)))
    raise unknown from unanswered.error
