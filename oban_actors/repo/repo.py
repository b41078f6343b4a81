"""Repo: the only door to the database."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

import psycopg
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from oban_actors.actors import Runtime
from oban_actors.actors.process import CURRENT
from oban_actors.config import Config
from oban_actors.errors import DatabaseError, DatabaseUnavailable, ForkedError
from oban_actors.repo import schema
from oban_actors.repo.begin import begin_of
from oban_actors.repo.connect import Source, lone_connection, make_engine
from oban_actors.repo.message import Message, Rows, Send, Sender, message_of
from oban_actors.repo.slots import Lane, Slots
from oban_actors.repo.sqlstates import translate
from oban_actors.repo.times import NOW, Dialect, parameter
from oban_actors.repo.transactions import Terms, check, run
from oban_actors.repo.watchdog import Watchdog

T = TypeVar("T")

GRACE = 5.0
"""Seconds that the server gets beyond a time-out of its own before the connection is cut."""


class Repo:
    """The connections of one instance, and the transactions on them.

    It never uses a connection of the host's: it makes a small pool of its own, the way the
    host's engine makes connections if it is given one. Calls of the host's threads, however many
    and slow, get no more than `pool_size` of its connections: a few beyond are for the actors of
    the tree that opened it, and one of these for elections.

    Args:
        database: an address, or the host's engine.
        config: `pool_size`, `connect_timeout`, `statement_timeout`, `lock_timeout` and the
            notifier's `listen_url` are used here.

    Attributes:
        dialect: which kind of database it is.
        engine: the engine of its own, in the driver's autocommit mode.
        config: as given.
        sql_now: the database's clock as an SQL expression with the parameter `now`, which
            `now_parameter` gives.

    Raises:
        ConfigError: the database is of a kind that we can't use, or the address can't be read.

    """

    def __init__(self, database: Source, config: Config) -> None:
        self.config = config
        self.engine: Engine = make_engine(database, config)
        self.dialect = cast("Dialect", self.engine.dialect.name)
        self.sql_now = NOW[self.dialect]
        self._watchdog = Watchdog(config.name)
        self._slots = Slots(config.pool_size, config.statement_timeout)
        # Who needs another way to listen has a pooler on this one.
        self._sender = Sender(prepares=config.notifier.listen_url is None)
        self._tree: Runtime | None = None
        self._pid = os.getpid()
        self._used = False
        event.listen(self.engine, "connect", self._on_connect, insert=True)
        event.listen(self.engine, "before_cursor_execute", self._on_statement)

    def __repr__(self) -> str:
        return f"<Repo {self.dialect} prefix={self.config.prefix!r}>"

    def now(self) -> datetime | None:
        """Give the time of a virtual clock; None where the database's own clock decides."""
        return self.config.clock.now() if self.config.clock.virtual else None

    def now_parameter(self) -> datetime | str | None:
        """Give `now` as the parameter that `sql_now` takes."""
        return parameter(self.dialect, self.now())

    def transaction(  # noqa: PLR0913 (terms of one call, each with a default)
        self,
        work: Callable[[Connection], T],
        *,
        idempotent: bool = True,
        attempts: int = 5,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        idle_timeout: float | None = None,
        read_only: bool = False,
        vital: bool = False,
        durable: bool = True,
        lenient: bool = False,
    ) -> T:
        """Run `work` in a transaction of its own and return what it returns, once committed.

        What fails for a passing reason is tried again, so `work` may run several times:
        conflicts with others up to 20 times within `statement_timeout`, lost or refused
        connections `attempts` times.

        A COMMIT whose connection broke before the answer may have taken place. Idempotent work is
        run again. Any other is only run again if it certainly was not committed, which the server
        is asked if `work` left its transaction's trace (`commits.leave`).

        Args:
            work: gets the connection; it neither commits nor rolls back.
            idempotent: whether doing it twice is the same as doing it once.
            attempts: how many connections may fail before it is given up.
            statement_timeout: seconds that a statement may take, the config's by default; 0: any.
            lock_timeout: seconds to wait for a lock, the config's by default; 0: any.
            idle_timeout: seconds that PostgreSQL waits for this process within the transaction,
                be it to say something or to take what is sent, before it ends the session and
                frees the locks; `statement_timeout` by default; 0: any.
            read_only: whether it only reads; on SQLite such a transaction waits for no writer.
            vital: whether it is an election or a beat, of which there is one at a time: it never
                waits for a connection.
            durable: whether the commit waits for the disk. Without it what was done last may be
                undone by a crash of the server or the machine, but never a part of it.
            lenient: whether text that SQLite holds and that is no UTF-8 comes as bytes, for work
                that can take them; a statement that reads it fails otherwise.

        Raises:
            DatabaseUnavailable: there was no connection, or it broke or stayed silent.
            TransientError: others were in the way each time.
            StatementTimeout: a statement took too long.
            CommitUnknown: whether the work was committed can't be found out.
            DatabaseError: any other error of the database, or `cancel` was called.
            ForkedError: this process is a fork of the one that has used this.

        """
        begin, allowance, patience = self._terms(
            statement_timeout,
            lock_timeout,
            idle_timeout,
            read_only=read_only,
            durable=durable,
        )
        terms = Terms(begin, idempotent, attempts, patience, lenient)
        return self._run(terms, allowance, work, vital=vital)

    def message(
        self,
        statements: Sequence[str],
        parameters: Mapping[str, Any],
        *,
        attempts: int = 5,
        patience: float | None = None,
        statement_timeout: float | None = None,
        lock_timeout: float | None = None,
        durable: bool = True,
    ) -> list[Rows]:
        """Run statements in a transaction of their own that is one message to PostgreSQL.

        Its beginning, its settings and its COMMIT go with it, so that it takes one round trip, and
        never waits for this process while it holds locks. What a session is sent again it
        prepares, and neither parses nor plans a third time. It is tried again as in `transaction`,
        and doing it twice has to be the same as doing it once.

        Args:
            statements: in psycopg's style: `%(name)s`, and `%%` for a percent sign. Each sees
                what those before it did.
            parameters: their values, which psycopg writes into the text. Cast what does not get
                a type from where it stands: prepared, it would be text.
            attempts: as in `transaction`, and so are the others.
            patience: seconds after which a conflict with others is no longer tried again;
                `statement_timeout` by default.
            statement_timeout: seconds, for each statement.
            lock_timeout: seconds.
            durable: whether the commit waits for the disk.

        Returns:
            the rows of each statement that gives any, in their order.

        Raises:
            DatabaseError: as in `transaction`.

        """
        begin, allowance, while_allowed = self._terms(
            statement_timeout, lock_timeout, None, read_only=False, durable=durable
        )
        terms = Terms(
            (), attempts=attempts, patience=while_allowed if patience is None else patience
        )
        sent = message_of(begin, tuple(statements), commit=True)
        return self._run(terms, allowance, lambda c: self._send(c, sent, parameters))

    def opened(self, work: Callable[[Connection, Send], T]) -> T:
        """Run `work` in a transaction that it opens by a message to PostgreSQL.

        The COMMIT goes apart, so that the work may go on after what the message found. If the
        COMMIT gets no answer, the server is asked what became of it: leave a trace.

        Args:
            work: gets the connection, and what it has to call first and once: with statements
                and parameters as `message` takes them, it begins the transaction with these and
                gives the rows of each.

        Raises:
            DatabaseError: as in `transaction` of work that is not idempotent.

        """
        begin, allowance, patience = self._terms(None, None, None, read_only=False, durable=True)

        def opening(connection: Connection) -> T:
            def send(statements: Sequence[str], parameters: Mapping[str, Any]) -> list[Rows]:
                message = message_of(begin, tuple(statements), commit=False)
                return self._send(connection, message, parameters)

            return work(connection, send)

        terms = Terms((), idempotent=False, patience=patience)
        return self._run(terms, allowance, opening)

    def cancel(self, thread_ident: int) -> bool:
        """End what a thread does here now, from another thread; its call raises.

        Args:
            thread_ident: as `threading.get_ident` gives it.

        Returns:
            Whether it did anything here.

        """
        return self._watchdog.cancel(thread_ident)

    def raw_connection(self) -> "psycopg.Connection[Any]":
        """Make a PostgreSQL connection outside the pool, in autocommit mode; the caller closes it.

        It goes to the notifier's `listen_url` if there is one, and has TCP keep-alives.

        Raises:
            DatabaseUnavailable: nobody answered.
            ConfigError: the database is not PostgreSQL.
            ForkedError: this process is a fork of the one that has used this.

        """
        self._check_usable()
        with self._watchdog.watching(self.config.connect_timeout) as call:
            try:
                made = lone_connection(self.engine, self.config, call.hold)
            except (psycopg.Error, SQLAlchemyError) as error:
                raise translate(error) from error
            finally:
                call.release()
        if call.expired:
            made.close()
            raise DatabaseUnavailable("the connection was cut while it was made")
        return made

    @contextlib.contextmanager
    def lone_connection(self, seconds: float) -> "Iterator[psycopg.Connection[Any]]":
        """Use a PostgreSQL connection outside the pool, for what can't be in a transaction.

        `cancel` ends what runs on it. It is closed at the end.

        Args:
            seconds: how long what is done on it may take; a little later it is cut.

        Raises:
            DatabaseUnavailable: nobody answered.
            ConfigError: see `raw_connection`.
            DatabaseError: it was cancelled.

        """
        with (
            self._watchdog.watching(seconds + GRACE) as call,
            contextlib.closing(self.raw_connection()) as connection,
        ):
            check(call)
            call.hold(connection)
            try:
                yield connection
            except DatabaseError:
                # Not a time-out, after which its caller would go on with something else.
                check(call)
                raise
            finally:
                call.release()

    def verify(self) -> schema.Facts:
        """Check that the tables are there and have what is used of them.

        Raises:
            SchemaMissing: they have not; the message says what to call.
            DatabaseError: they can't be looked at.

        """
        return self.transaction(
            lambda connection: schema.verify(connection, self.config.prefix), read_only=True
        )

    def open(self) -> None:
        """Make sure that it can be used here, also after `close`; nothing is connected yet.

        Called by an actor, it is that actor's tree whose actors have connections reserved.

        Raises:
            ForkedError: this process is a fork of the one that has used this.

        """
        self._check_usable()
        if CURRENT.process is not None:
            self._tree = CURRENT.process.runtime

    def close(self) -> None:
        """Close all connections that nobody uses, and end every wait for another try.

        Whoever uses it again after that makes new ones; calling it again does no harm.
        """
        if os.getpid() == self._pid:
            self._used = True
            self._watchdog.close()
            self.engine.dispose()

    def move(self) -> bool:
        """Belong to the process that was forked here just now, if nobody had begun to use it.

        Returns:
            Whether it does.

        """
        if not self._used:
            self._pid = os.getpid()
        return not self._used

    def _send(
        self, connection: Connection, message: Message, parameters: Mapping[str, Any]
    ) -> list[Rows]:
        self._on_statement()
        return self._sender.send(connection, message, parameters)

    def _terms(
        self,
        statement_timeout: float | None,
        lock_timeout: float | None,
        idle_timeout: float | None,
        *,
        read_only: bool,
        durable: bool,
    ) -> tuple[tuple[str, ...], float, float]:
        """Give what begins a transaction, how long the server may be silent, and the patience."""
        seconds = self.config.statement_timeout if statement_timeout is None else statement_timeout
        locks = self.config.lock_timeout if lock_timeout is None else lock_timeout
        idle = seconds if idle_timeout is None else idle_timeout
        begin = begin_of(self.dialect, seconds, locks, idle, read_only=read_only, durable=durable)
        if not seconds:
            return begin, math.inf, math.inf
        # SQLite has no time-out of its own, so that ours takes its place.
        return begin, seconds + (GRACE if self.dialect == "postgresql" else 0), seconds

    def _run(
        self,
        terms: Terms,
        allowance: float,
        work: Callable[[Connection], T],
        *,
        vital: bool = False,
    ) -> T:
        self._check_usable()
        lane = self._lane(vital=vital)
        with self._watchdog.watching(allowance) as call, self._slots.taken(lane):
            check(call)
            return run(self.engine, call, terms, work)

    def _lane(self, *, vital: bool) -> Lane:
        # Within another call of its thread, waiting for a slot could be waiting for itself.
        if vital or self._watchdog.current() is not None:
            return Lane.VITAL
        process = CURRENT.process
        mine = process is not None and process.runtime is self._tree
        return Lane.ACTOR if mine else Lane.HOST

    def _check_usable(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedError("connections can't be shared with a fork: make an Oban of its own")
        # Before any lock is taken: a fork may find it as it is at any moment.
        self._used = True

    def _on_connect(self, connection: Any, _entry: object) -> None:
        # SQLAlchemy asks a new connection a few things: not without a deadline either.
        if call := self._watchdog.current():
            call.hold(connection)

    def _on_statement(self, *_details: object) -> None:
        if call := self._watchdog.current():
            check(call)
            call.touch()
