"""A model of PostgreSQL: rows, transactions at READ COMMITTED, row locks, advisory locks, NOTIFY.

A statement is a function of its transaction, done at one moment. Where it meets a lock it has
changed nothing yet; it waits and is done anew from its beginning, so it sees what was committed
meanwhile, as PostgreSQL's statements do when they look at a row again.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import psycopg
from sqlalchemy.exc import OperationalError

from tests.simulation.hub import Hub
from tests.simulation.machine import EPOCH, Machine

Row = dict[str, Any]
Key = Hashable
Mode = Literal["share", "renew", "update"]
"""FOR KEY SHARE, FOR NO KEY UPDATE, FOR UPDATE: what reads a lease, what renews it, all else."""

Statement = Callable[["Transaction"], Any]
Done = Callable[[Any, Exception | None], object]

_EPOCH = EPOCH.replace(tzinfo=None)
UNLOGGED = ("oban_peers",)
_COMPATIBLE: tuple[set[str], ...] = ({"share"}, {"share", "renew"})
_STRENGTH: dict[Mode, int] = {"share": 0, "renew": 1, "update": 2}
TABLES = ("oban_peers", "oban_jobs", "oban_actors_producers", "oban_actors_crons")


def lost(text: str = "the connection is lost") -> OperationalError:
    """Make the error of a connection that is gone."""
    return OperationalError("", None, psycopg.OperationalError(text), connection_invalidated=True)


def refused(kind: type[psycopg.Error], text: str = "refused") -> OperationalError:
    """Make the error of a statement that the server refused; its SQLSTATE is the kind's."""
    return OperationalError("", None, kind(text))


class Blocked(Exception):
    """A statement has to wait for another transaction."""


@dataclass(slots=True, eq=False)
class Session:
    """A connection to the server.

    Attributes:
        machine: the client's.
        number: what `pg_backend_pid()` gives.
        alive: whether the server has it.
        channels: what it listens to; `deliver` is told what comes, in its order.
        quiet_until: before when nothing more can arrive.

    """

    machine: Machine
    number: int
    alive: bool = True
    channels: set[str] = field(default_factory=set)
    deliver: Callable[[str, str, int], object] | None = None
    ended: Callable[[], object] | None = None
    quiet_until: float = 0.0


@dataclass(slots=True, eq=False)
class Transaction:
    """A transaction.

    Attributes:
        session: whose.
        lock_timeout: seconds that a statement waits for a lock.
        idle_timeout: seconds that the server waits for the client.
        writes: what it has changed, None for a removed row.
        number: its id, as `pg_current_xact_id` gives it.
        notes: what it did, for the checks: it counts if it is committed.
        over: whether it was committed or rolled back.
        heard: when its client said something last, or was answered.

    """

    server: "Server"
    session: Session
    lock_timeout: float = 5.0
    idle_timeout: float = 30.0
    writes: dict[tuple[str, Key], Row | None] = field(default_factory=dict)
    notes: list[tuple[Any, ...]] = field(default_factory=list)
    notices: list[tuple[str, str]] = field(default_factory=list)
    number: str = ""
    over: bool = False
    heard: float = 0.0
    _locks: set[tuple[str, Key]] = field(default_factory=set)

    def now(self) -> datetime:
        """Read the server's clock, in whole microseconds and without its zone."""
        return self.server.clock()

    def get(self, table: str, key: Key) -> Row | None:
        """Read one row as this transaction sees it."""
        place = (table, key)
        return self.writes[place] if place in self.writes else self.server.tables[table].get(key)

    def rows(self, table: str) -> list[Row]:
        """Read all rows as this transaction sees them."""
        mine = {key: row for (name, key), row in self.writes.items() if name == table}
        if not mine:
            return list(self.server.tables[table].values())
        return [row for row in (self.server.tables[table] | mine).values() if row is not None]

    def put(self, table: str, key: Key, row: Row | None) -> None:
        """Write or remove a row, which is locked."""
        self.writes[table, key] = row

    def try_lock(self, table: str, key: Key, mode: Mode = "update") -> bool:
        """Lock a row unless another transaction has it."""
        place = (table, key)
        holders = self.server.locks.setdefault(place, {})
        for other, theirs in holders.items():
            if other is not self and {mode, theirs} not in _COMPATIBLE:
                return False
        mine = holders.get(self)
        if mine is None or _STRENGTH[mode] > _STRENGTH[mine]:
            holders[self] = mode
        self._locks.add(place)
        return True

    def lock(self, table: str, key: Key, mode: Mode = "update") -> None:
        """Lock a row; the statement waits for whoever has it."""
        if not self.try_lock(table, key, mode):
            raise Blocked

    def release(self) -> None:
        """Give all locks back."""
        for place in self._locks:
            holders = self.server.locks.get(place)
            if holders is not None:
                holders.pop(self, None)
                if not holders:
                    del self.server.locks[place]
        self._locks.clear()


@dataclass(slots=True, eq=False)
class _Waiting:
    transaction: Transaction
    statement: Statement
    done: Done
    over: bool = False


@dataclass(slots=True)
class Server:
    """The server.

    Args:
        hub: the simulation's.

    Attributes:
        tables: what is committed.
        up: whether it answers, and since when.
        skew: seconds by which its clock is wrong.
        runs: how often it was started.
        notice: how the notifications of a commit go to a session that listens.
        job_ids: the last one that was given.
        outcomes: what became of each transaction, by its number.
        before_commit: called with each transaction that is about to be committed.
        after_statement: called when one was done.

    """

    hub: Hub
    up: bool = True
    up_since: float = 0.0
    skew: float = 0.0
    runs: int = 1
    tables: dict[str, dict[Key, Row]] = field(default_factory=lambda: {name: {} for name in TABLES})
    locks: dict[tuple[str, Key], dict[Transaction, Mode]] = field(default_factory=dict)
    advisory: dict[int, Session] = field(default_factory=dict)
    sessions: dict[Session, None] = field(default_factory=dict)
    before_commit: list[Callable[[Transaction], object]] = field(default_factory=list)
    after_statement: list[Callable[[], object]] = field(default_factory=list)
    notice: Callable[[Session, list[tuple[str, str]], int], object] = lambda *_: None
    job_ids: int = 0
    outcomes: dict[str, str] = field(default_factory=dict)
    _open: dict[Transaction, None] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)
    _numbers: int = 100
    _written: int = 100
    _kept_id: int = 0
    _pids: int = 100
    _last: datetime = _EPOCH

    def clock(self) -> datetime:
        """Read the clock; within one run it never gives the same twice."""
        at = _EPOCH + timedelta(seconds=self.hub.now + self.skew)
        self._last = max(at, self._last + timedelta(microseconds=1)) if at == self._last else at
        return self._last

    # Sessions

    def connect(self, machine: Machine) -> Session:
        """Take a new connection.

        Raises:
            OperationalError: the server is down.

        """
        if not self.up:
            raise lost("connection refused")
        self._pids += 1
        session = Session(machine, self._pids)
        self.sessions[session] = None
        return session

    def begin(self, session: Session) -> Transaction:
        """Begin a transaction; the client's first statement follows."""
        self._numbers += 1
        made = Transaction(self, session, number=str(self._numbers), heard=self.hub.now)
        self.outcomes[made.number] = "in progress"
        self._open[made] = None
        return made

    def disconnect(self, session: Session) -> None:
        """Forget a session, with its transaction and its advisory locks."""
        session.alive = False
        self.sessions.pop(session, None)
        for made in [each for each in self._open if each.session is session]:
            self.abort(made)
        self.advisory = {key: who for key, who in self.advisory.items() if who is not session}
        if session.ended is not None:
            session.machine.soon(self.hub.lag(), session.ended)

    # Transactions

    def execute(self, made: Transaction, statement: Statement, done: Done) -> None:
        """Do a statement, now or when what it meets is free."""
        if made.over or not made.session.alive or not self.up:
            done(None, lost("terminating connection"))
            return
        made.heard = self.hub.now
        waiting = _Waiting(made, statement, done)
        if not self._try(waiting):
            self._waiting.append(waiting)
            self.hub.after(made.lock_timeout, self._give_up, waiting)

    def commit(self, made: Transaction) -> None:
        """Make what a transaction wrote true, and tell who listens."""
        for check in self.before_commit:
            check(made)
        for (table, key), row in made.writes.items():
            if row is None:
                self.tables[table].pop(key, None)
            else:
                self.tables[table][key] = row
                if table == "oban_jobs":
                    self._kept_id = max(self._kept_id, row["id"])
        if made.writes:
            self._written = max(self._written, int(made.number))
        notices = list(dict.fromkeys(made.notices))
        self._end(made, "committed")
        for session in list(self.sessions) if notices else ():
            heard = [each for each in notices if each[0] in session.channels]
            if heard:
                self.notice(session, heard, made.session.number)

    def abort(self, made: Transaction) -> None:
        """Let nothing of a transaction be true."""
        if not made.over:
            self._end(made, "aborted")

    def silent(self, machine: Machine) -> None:
        """Note that a client says nothing more: what it has begun is ended in time."""
        for made in [each for each in self._open if each.session.machine is machine]:
            self.hub.after(made.idle_timeout, self._idle, made, self.hub.now)

    def crash(self, *, wipe: bool) -> None:
        """Go down with all that is not committed; unlogged tables may be lost with it.

        Ids of transactions and jobs that nothing was written down of are given again.
        """
        self.up = False
        for made in list(self._open):
            self.abort(made)
        for session in list(self.sessions):
            self.disconnect(session)
        self._numbers = self._written
        self.outcomes = {n: each for n, each in self.outcomes.items() if int(n) <= self._written}
        self.job_ids = self._kept_id
        if wipe:
            for name in UNLOGGED:
                self.tables[name].clear()

    def start(self) -> None:
        """Come up again."""
        self.up, self.up_since = True, self.hub.now
        self.runs += 1

    def _end(self, made: Transaction, outcome: str) -> None:
        made.over = True
        self.outcomes[made.number] = outcome
        self._open.pop(made, None)
        made.release()
        if self._waiting:
            self.hub.after(0.0, self._go_on)

    def _idle(self, made: Transaction, since: float) -> None:
        if made.over:
            return
        if made.heard <= since:
            self.disconnect(made.session)
        elif made.session.machine.still or made.session.machine.cut:
            # What was under way when it fell silent was answered since.
            left = made.heard + made.idle_timeout - self.hub.now
            self.hub.after(max(left, 0.0), self._idle, made, made.heard)

    def doing(self, machine: Machine | None, kind: str) -> bool:
        """Whether a transaction of a client's, None for any, is under way that did such a thing."""
        return any(
            machine in (None, made.session.machine) and any(note[0] == kind for note in made.notes)
            for made in self._open
        )

    # Waiting for locks

    def _try(self, waiting: _Waiting) -> bool:
        before = dict(waiting.transaction.writes)
        try:
            value = waiting.statement(waiting.transaction)
        except Blocked:
            waiting.transaction.writes = before
            return False
        except OperationalError as error:
            waiting.done(None, error)
        else:
            waiting.done(value, None)
        for watch in self.after_statement:
            watch()
        return True

    def _go_on(self) -> None:
        rest, self._waiting = self._waiting, []
        for each in rest:
            if each.over:
                continue
            if each.transaction.over:
                each.over = True
                each.done(None, lost("terminating connection"))
            elif self._try(each):
                each.over = True
            else:
                self._waiting.append(each)

    def _give_up(self, waiting: _Waiting) -> None:
        if not waiting.over:
            waiting.over = True
            waiting.done(None, refused(psycopg.errors.LockNotAvailable))
