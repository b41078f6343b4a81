"""A client of the model database, in the shape that `Repo` and its transactions know.

The real `Repo.transaction` runs on it, with its retries, its questions about lost commits and its
deadlines; only connections, statements and the watchdog's thread are others.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

import psycopg

from oban_actors.config import Config
from oban_actors.repo import Repo
from tests.simulation import sql
from tests.simulation.database import Server, Session, Statement, Transaction, lost, refused
from tests.simulation.faults import Fault, Weather
from tests.simulation.hub import Hub, Token
from tests.simulation.machine import Machine
from tests.simulation.seams import SimEvent

SLOW = (0.2, 4.0)
"""Seconds that a slow statement takes."""


class InjectedCrash(Exception):
    """Stands for a bug in an actor."""


@dataclass(slots=True)
class Place:
    """Where a client is.

    Attributes:
        machine: its machine.
        server: the database.
        weather: what goes wrong.
        kill: ends the process.
        trace: told of what the client does.

    """

    machine: Machine
    server: Server
    weather: Weather
    kill: Callable[[], object]
    trace: Callable[[str], object]


class SimCall:
    """What a thread does on the database; see `watchdog.Call`."""

    def __init__(self, allowance: float, hurry: SimEvent) -> None:
        self.allowance = allowance
        self.cancelled = False
        self.expired = False
        self.hurry = hurry
        self.token: Token | None = None

    def hold(self, connection: object) -> None:
        """Nothing to remember."""

    def release(self) -> None:
        """Nothing to forget."""

    def touch(self) -> None:
        """Nothing to measure."""


class SimWatchdog:
    """Knows the calls of all threads of a machine; see `watchdog.Watchdog`."""

    def __init__(self, place: Place) -> None:
        self._hub = place.machine.hub
        self._calls: dict[int, list[SimCall]] = {}

    @contextmanager
    def watching(self, allowance: float) -> Iterator[SimCall]:
        """Know what this thread does."""
        call = SimCall(allowance, SimEvent(self._hub))
        calls = self._calls.setdefault(self._ident(), [])
        calls.append(call)
        try:
            yield call
        finally:
            calls.remove(call)

    def current(self) -> SimCall | None:
        """Say what this thread does now."""
        calls = self._calls.get(self._ident())
        return calls[-1] if calls else None

    def cancel(self, ident: int) -> bool:
        """Cancel what a thread does now."""
        calls = self._calls.get(ident)
        for call in calls or ():
            call.cancelled = True
            call.hurry.set()
            if call.token is not None:
                self._hub.wake(call.token, (None, refused(psycopg.errors.QueryCanceled)))
        return bool(calls)

    def close(self) -> None:
        """End every wait between tries."""
        for call in [each for calls in self._calls.values() for each in calls]:
            call.hurry.set()

    def _ident(self) -> int:
        assert self._hub.current is not None
        return self._hub.current.number


class SimRepo(Repo):
    """The real transactions on the model's connections."""

    def __init__(self, config: Config, place: Place) -> None:
        self.config = config
        self.dialect = "postgresql"
        watchdog = SimWatchdog(place)
        self._watchdog = cast("Any", watchdog)
        self.engine = cast("Any", SimEngine(place, watchdog))
        self._slots = cast("Any", _NoSlots())
        self._tree = None
        self._pid = os.getpid()

    def verify(self) -> Any:
        """Look whether the server is there."""
        self.transaction(lambda connection: cast("SimConnection", connection).run(_nothing))


def _nothing(made: Transaction) -> None:
    """Stands for a statement that only wants an answer."""


class _NoSlots:
    def taken(self, lane: object) -> Any:
        return nullcontext()


class SimEngine:
    """The pool."""

    def __init__(self, place: Place, watchdog: SimWatchdog) -> None:
        self.place = place
        self.watchdog = watchdog
        self.pool = object()
        self.dialect = SimpleNamespace(name="postgresql")
        self._idle: list[Session] = []

    @contextmanager
    def connect(self) -> Iterator["SimConnection"]:
        """Take a session from the pool, or make one."""
        session = self._idle.pop() if self._idle else self._make()
        connection = SimConnection(self, session)
        try:
            yield connection
        finally:
            connection.close()
            if connection.valid:
                self._idle.append(session)

    def dispose(self) -> None:
        """Close all idle sessions."""
        idle, self._idle = self._idle, []
        for session in idle:
            self.place.server.disconnect(session)

    def _make(self) -> Session:
        machine = self.place.machine
        machine.hub.sleep(0.002)
        if machine.cut:
            machine.hub.sleep(5.0)
            raise lost("no answer")
        return self.place.server.connect(machine)


@dataclass
class _Begun:
    connection: "SimConnection"

    def commit(self) -> None:
        self.connection.commit()


class SimConnection:
    """A connection of the pool."""

    dialect = SimpleNamespace(name="postgresql")

    def __init__(self, engine: SimEngine, session: Session) -> None:
        self.engine = engine
        self.session = session
        self.valid = True
        self.info: dict[str, Any] = {}
        self.connection = self
        self.driver_connection = None
        self.closed = False
        self.made: Transaction | None = None
        self.statement_timeout = 0.0

    # What transactions do

    @contextmanager
    def begin(self) -> Iterator[_Begun]:
        """Begin a transaction, and roll it back unless it was committed."""
        self.made = self.engine.place.server.begin(self.session)
        try:
            yield _Begun(self)
        finally:
            self.engine.place.server.abort(self.made)

    @contextmanager
    def begin_nested(self) -> Iterator[Any]:
        """Begin a savepoint, and go back to it if the block fails or says so."""
        made = self._made
        before = dict(made.writes), len(made.notes), len(made.notices)

        def roll_back() -> None:
            made.writes = dict(before[0])
            del made.notes[before[1] :], made.notices[before[2] :]

        try:
            yield SimpleNamespace(rollback=roll_back)
        except BaseException:
            roll_back()
            raise

    def exec_driver_sql(self, statement: str, execution_options: object = None) -> None:
        """Take the time-outs of a transaction that begins."""
        made = self._made
        made.lock_timeout, made.idle_timeout, self.statement_timeout = _timeouts(statement)

    def execute(self, statement: Any, parameters: dict[str, Any] | None = None) -> Any:
        """Do one of the few statements that are SQL here too."""
        return self.run(sql.meaning(statement.text, parameters or {}))

    def commit(self) -> None:
        """Commit; an answer may be lost though it took place."""
        server = self.engine.place.server
        self._trip(server.commit, commit=True)

    def run(self, statement: Statement) -> Any:
        """Have the server do a statement."""
        return self._trip(statement, commit=False)

    @property
    def invalidated(self) -> bool:
        """Whether the session was given up."""
        return not self.valid

    def invalidate(self) -> None:
        """Give the session up."""
        self.valid = False

    def close(self) -> None:
        """End what was begun; a session that is given up is closed."""
        if self.made is not None:
            self.engine.place.server.abort(self.made)
        if not self.valid and not self.engine.place.machine.cut:
            self.engine.place.server.disconnect(self.session)

    @property
    def _made(self) -> Transaction:
        assert self.made is not None, "a statement outside of a transaction"
        return self.made

    # A round trip

    def _trip(self, statement: Statement, *, commit: bool) -> Any:
        place = self.engine.place
        hub, call = place.machine.hub, self.engine.watchdog.current()
        assert call is not None
        fault = place.weather.strike(place.machine, commit=commit)
        if fault is not None:
            place.trace(f"{fault.name} at {'commit' if commit else 'a statement'}")
        token = call.token = hub.token()
        trip = _Trip(self, statement, token, fault, call.allowance)
        hub.after(hub.lag(), trip.arrive)
        value, error = hub.park()
        call.token = None
        if error is not None:
            call.expired = call.expired or error is _EXPIRED
            if getattr(error, "connection_invalidated", False):
                self.valid = False
            raise error
        if fault is Fault.CRASH:
            raise InjectedCrash
        return value


_EXPIRED = lost("cut by the watchdog")


@dataclass(slots=True)
class _Trip:
    connection: SimConnection
    statement: Statement
    token: Token
    fault: Fault | None
    allowance: float
    done: bool = field(default=False)

    def arrive(self) -> None:
        """Reach the server, or not."""
        place = self.connection.engine.place
        match self.fault:
            case Fault.KILL_BEFORE:
                place.kill()
            case Fault.LOST_BEFORE:
                place.server.disconnect(self.connection.session)
                self._answer(None, lost())
            case Fault.SILENT:
                self._hang()
            case Fault.CONFLICT:
                self._answer(None, refused(psycopg.errors.SerializationFailure))
            case Fault.SLOW:
                self._dawdle(place.machine.hub)
            case _ if place.machine.cut:
                self._hang()
            case _:
                self._execute()

    def _dawdle(self, hub: Hub) -> None:
        seconds, most = hub.rng.uniform(*SLOW), self.connection.statement_timeout
        if seconds < most:
            hub.after(seconds, self._execute)
        else:
            error = refused(psycopg.errors.QueryCanceled)
            hub.after(most, self._answer, None, error)

    def _execute(self) -> None:
        made = self.connection.made
        assert made is not None
        self.connection.engine.place.server.execute(made, self.statement, self._executed)

    def _executed(self, value: Any, error: Exception | None) -> None:
        place = self.connection.engine.place
        if self.fault is Fault.KILL_AFTER:
            place.kill()
        elif self.fault is Fault.LOST_AFTER and error is None:
            place.server.disconnect(self.connection.session)
            self._answer(None, lost())
        elif self.fault is Fault.SILENT_AFTER or place.machine.cut:
            self._hang()
        else:
            self._answer(value, error)

    def _hang(self) -> None:
        # The server learns from its own time-out that nobody is there.
        place = self.connection.engine.place
        place.server.silent(place.machine)
        place.machine.hub.wake(self.token, (None, _EXPIRED), self.allowance)

    def _answer(self, value: Any, error: Exception | None) -> None:
        self.connection.engine.place.machine.hub.wake(self.token, (value, error))


@lru_cache
def _timeouts(begin: str) -> tuple[float, float, float]:
    def seconds(name: str) -> float:
        found = re.search(rf"SET LOCAL {name} = (\d+)", begin)
        assert found is not None, name
        return int(found[1]) / 1000

    return (
        seconds("lock_timeout"),
        seconds("idle_in_transaction_session_timeout"),
        seconds("statement_timeout"),
    )
