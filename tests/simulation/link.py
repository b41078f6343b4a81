"""The listening connection of the real `PostgresNotifier`, on the model server."""

import re
from collections.abc import Callable
from typing import Any

from oban_actors.errors import DatabaseUnavailable
from oban_actors.notifiers.link import ROUND_TRIP, Received
from tests.simulation.client import Place, SimEngine
from tests.simulation.database import Session
from tests.simulation.seams import SimSelectMailbox

_NAME = re.compile(r'"([^"]+)"')


class SimAttempt:
    """One try to connect; see `notifiers.attempt.Attempt`."""

    def __init__(self, connect: Any, done: Callable[["SimAttempt"], object]) -> None:
        self._engine: SimEngine = connect.__self__.engine
        self._done = done
        self._session: Session | None = None
        self._abandoned = False

    def begin(self) -> None:
        """Start."""
        machine = self._engine.place.machine
        machine.hub.spawn(machine, self._run)

    def take(self) -> "tuple[Place, Session]":
        """Give what was made.

        Raises:
            DatabaseUnavailable: nothing was.

        """
        session, self._session = self._session, None
        if session is None:
            raise DatabaseUnavailable("no connection was made")
        return self._engine.place, session

    def abandon(self) -> None:
        """Give up."""
        self._abandoned = True
        session, self._session = self._session, None
        if session is not None:
            self._engine.place.server.disconnect(session)

    def _run(self) -> None:
        place = self._engine.place
        hub = place.machine.hub
        hub.sleep(0.003)
        if place.machine.cut:
            hub.sleep(5.0)
        elif place.server.up:
            self._session = place.server.connect(place.machine)
        if self._abandoned:
            self.abandon()
        else:
            self._done(self)


class SimLink:
    """A session that listens; see `notifiers.link.Link`."""

    inbox: SimSelectMailbox

    def __init__(self, connection: "tuple[Place, Session]") -> None:
        self._place, self._session = connection
        self._received: list[Received] = []
        self._lost = False
        self._session.deliver = self._deliver
        self._session.ended = self._ended

    @property
    def pid(self) -> int:
        """The server's number of the session."""
        return self._session.number

    def fileno(self) -> "SimLink":
        """Give what the inbox watches."""
        return self

    def run(self, statements: str) -> str | None:
        """Run statements.

        Raises:
            DatabaseUnavailable: the session is lost, or silent.

        """
        machine = self._place.machine
        machine.hub.sleep(0.001 + machine.hub.lag())
        if machine.cut:
            machine.hub.sleep(ROUND_TRIP)
            raise DatabaseUnavailable("no answer")
        if self._lost or not self._session.alive:
            raise DatabaseUnavailable("the connection is lost")
        value = None
        for statement in statements.split("; "):
            value = self._do(statement)
        machine.hub.sleep(0.001)
        return value

    def notifications(self) -> list[Received]:
        """Take all that came.

        Raises:
            DatabaseUnavailable: the session is lost.

        """
        found, self._received = self._received, []
        if not found and self._lost:
            raise DatabaseUnavailable("the connection is lost")
        if self._lost:
            self.inbox.signal()
        return found

    def close(self) -> None:
        """Close the session; a server that can't be reached does not hear of it."""
        self._session.deliver = self._session.ended = None
        if self._place.machine.cut:
            self._session.machine.hub.after(20.0, self._place.server.disconnect, self._session)
        else:
            self._place.server.disconnect(self._session)

    cut = close

    def _do(self, statement: str) -> str | None:
        server, session = self._place.server, self._session
        name = _NAME.search(statement)
        if statement.startswith("LISTEN") and name:
            session.channels.add(name[1])
        elif statement.startswith("UNLISTEN") and name:
            session.channels.discard(name[1])
        elif found := re.search(r"pg_try_advisory_lock\((-?\d+)\)", statement):
            holder = server.advisory.setdefault(int(found[1]), session)
            return "t" if holder is session else "f"
        elif found := re.search(r"pg_advisory_unlock\((-?\d+)\)", statement):
            held = server.advisory.get(int(found[1])) is session
            if held:
                del server.advisory[int(found[1])]
            return "t" if held else "f"
        else:
            raise AssertionError(f"the model knows no such statement: {statement}")
        return None

    def _deliver(self, channel: str, text: str, pid: int) -> None:
        self._received.append(Received(channel, text, pid))
        self.inbox.signal()

    def _ended(self) -> None:
        if not self._place.machine.cut:
            self._lost = True
            self.inbox.signal()
