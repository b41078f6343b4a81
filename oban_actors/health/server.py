"""HealthServer: answers by HTTP how this node is, from what is known already."""

import contextlib
import logging
import os
import selectors
import socket
import weakref
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from oban_actors import telemetry
from oban_actors.actors import GenServer, Node, Reason, Sender
from oban_actors.actors.clock import real_monotonic
from oban_actors.actors.process import process_of
from oban_actors.actors.tree import look
from oban_actors.config import Config
from oban_actors.errors import ConfigError
from oban_actors.health import judging
from oban_actors.health.conversation import Conversation
from oban_actors.health.http import Answer, Request
from oban_actors.health.judging import Report, Vitals
from oban_actors.messages import Address, GetAddress, Look
from oban_actors.notifiers.select_mailbox import Readable, SelectMailbox, Tick
from oban_actors.options import HealthOptions

logger = logging.getLogger("oban_actors")

MOST_CONNECTIONS = 64
"""Connections at a time; one more takes the place of the oldest."""

PATIENCE = 5.0
"""Seconds that a connection may last."""

AGAIN = 1.0
"""Seconds until another try to listen, or to accept."""

PATHS = ("/live", "/ready", "/tree")


@dataclass(slots=True)
class Door:
    """Which port the endpoint has; outlives its crashes, so that it stays the same.

    Attributes:
        port: 0 until one was given by the system.
        opened: whether it was listened on before.

    """

    port: int
    opened: bool = False


class HealthServer(GenServer):
    """Serves its mailbox and all connections in one thread, waiting for none of them.

    It sends no message to answer: the tree is read from the process table, all else from what
    the Checkup told last. So it can't hang, and answers also while the tree starts and stops.

    Args:
        config: the instance's options.
        options: those of the endpoint.
        door: which port it has.

    """

    def __init__(self, config: Config, options: HealthOptions, door: Door) -> None:
        super().__init__()
        self.config = config
        self.options = options
        self.door = door
        self._inbox = cast("SelectMailbox", self.actor_inbox)
        self._vitals: Vitals | None = None
        self._selector: selectors.BaseSelector | None = None
        self._listener: socket.socket | None = None
        self._conversations: dict[int, Conversation] = {}
        self._accepting = False
        self._again_at = 0.0
        _SERVERS.add(self)

    @staticmethod
    def _create_actor_inbox() -> SelectMailbox:
        return SelectMailbox()

    # Callbacks

    def init(self) -> None:
        """Listen; the first time, that it can't is an error of the configuration."""
        self._selector = selectors.DefaultSelector()
        try:
            self._open()
        except OSError as error:
            if not self.door.opened:
                self._close()
                host, port = self.options.host, self.door.port
                message = f"option 'health': can't listen on {host} port {port}: {error.strerror}"
                raise ConfigError(message) from error
            logger.warning("the health endpoint can't listen and will try again: %s", error)
            self._again_at = real_monotonic() + AGAIN
        self._inbox.watch(cast("Any", self._selector).fileno())
        self._arm()
        self.tell("checkup", Look())

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Tell where it listens."""
        if not isinstance(message, GetAddress):
            return super().handle_call(message, sender)
        return None if self._listener is None else Address(self.options.host, self.door.port)

    def handle_info(self, message: Any) -> None:
        """Serve what can be served, or keep what was seen."""
        match message:
            case Readable():
                self._go_round()
            case Tick():
                self._expire()
            case Vitals():
                self._vitals = message
            case _:
                super().handle_info(message)
        self._arm()

    def terminate(self, reason: Reason) -> None:
        """Close all."""
        self._close()

    def on_kill(self) -> None:
        """Free the port for a successor."""
        if self._listener is not None:
            self._listener.close()

    # Answers

    def answer(self, request: Request) -> Answer:
        """Answer a request; a bug here is told as such."""
        try:
            return self._answer(request)
        except Exception:
            logger.exception("the health endpoint could not answer")
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "see the log"})

    def _answer(self, request: Request) -> Answer:
        match request.path:
            case "/live":
                patience, abandoned = self.options.patience, self.runtime.abandoned
                return _told(judging.alive(self._tree(), patience, abandoned))
            case "/ready":
                now, interval = self.runtime.clock.monotonic(), self.options.interval
                return _told(judging.ready(self._tree(), self._vitals, now, interval))
            case "/tree":
                return Answer(HTTPStatus.OK, judging.shown_tree(self._tree()))
        return Answer(HTTPStatus.NOT_FOUND, {"error": "Not Found", "paths": list(PATHS)})

    def _tree(self) -> Node:
        root = self.whereis("oban")
        return look(self._process if root is None else process_of(root))

    # Connections

    def _go_round(self) -> None:
        if self._selector is None:
            return
        for key, _ in self._selector.select(0):
            one: Conversation | None = key.data
            if one is None:
                self._accept()
            elif one.events:  # it may have had to make room in this very round
                self._continue(one)
                self._follow(one)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):
            return
        except OSError as error:
            # Out of descriptors: asking again at once would be a busy loop.
            logger.warning("the health endpoint can't accept a connection now: %s", error)
            self._refrain()
            return
        connection.setblocking(False)
        if len(self._conversations) >= MOST_CONNECTIONS:
            self._end(min(self._conversations.values(), key=lambda each: each.deadline))
        deadline = real_monotonic() + PATIENCE
        hosts = (self.options.host.lower(), *self.options.hosts)
        one = Conversation(connection, deadline, hosts, self.answer)
        self._conversations[connection.fileno()] = one
        self._registered.register(connection, one.events, one)

    def _continue(self, one: Conversation) -> None:
        try:
            one.go_on()
        except Exception:
            # A bug that a request runs into is that request's alone: whoever may ask could end
            # the tree otherwise.
            logger.exception("the health endpoint could not serve a connection")
            one.events = 0

    def _follow(self, one: Conversation) -> None:
        if not one.events:
            self._end(one)
        elif self._registered.get_key(one.connection).events != one.events:
            self._registered.modify(one.connection, one.events, one)

    def _end(self, one: Conversation) -> None:
        self._registered.unregister(one.connection)
        del self._conversations[one.connection.fileno()]
        one.close()

    def _expire(self) -> None:
        now = real_monotonic()
        for one in [one for one in self._conversations.values() if one.deadline <= now]:
            self._end(one)
        if not self._accepting and self._again_at <= now:
            self._again_at = now + AGAIN
            try:
                self._open()
            except OSError as error:
                logger.debug("the health endpoint still can't listen: %s", error)

    def _arm(self) -> None:
        moments = [one.deadline for one in self._conversations.values()]
        if not self._accepting:
            moments.append(self._again_at)
        self._inbox.wake_at(min(moments, default=None))

    # Listening

    @property
    def _registered(self) -> selectors.BaseSelector:
        assert self._selector is not None  # noqa: S101 (init made it, and nothing comes before)
        return self._selector

    def _open(self) -> None:
        if self._listener is None:
            host = self.options.host
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            both = host == "::" and socket.has_dualstack_ipv6()
            self._listener = socket.create_server(
                (host, self.door.port), family=family, backlog=128, dualstack_ipv6=both
            )
            self._listener.setblocking(False)
            self.door.port = self._listener.getsockname()[1]
            self.door.opened = True
            logger.info("health of %s at %s port %d", self.config.name, host, self.door.port)
            about = {"conf": self.config, "host": host, "port": self.door.port}
            telemetry.execute("oban.health.init", {}, about)
        self._registered.register(self._listener, selectors.EVENT_READ)
        self._accepting = True

    def _refrain(self) -> None:
        if self._listener is not None and self._accepting:
            self._registered.unregister(self._listener)
        self._accepting = False
        self._again_at = real_monotonic() + AGAIN

    def _close(self) -> None:
        self._inbox.watch(None)
        for one in self._conversations.values():
            one.close()
        self._conversations.clear()
        if self._listener is not None:
            self._listener.close()
        self._listener, self._accepting = None, False
        if self._selector is not None:
            self._selector.close()
        self._selector = None

    def leave_to_parent(self) -> None:
        """Close a forked child's copy of the port, which would keep it taken."""
        with contextlib.suppress(OSError):
            if self._listener is not None:
                self._listener.close()


_SERVERS: "weakref.WeakSet[HealthServer]" = weakref.WeakSet()


def _leave_to_parents() -> None:
    for server in list(_SERVERS):
        server.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parents)


def _told(report: Report) -> Answer:
    status = HTTPStatus.OK if report.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, report.body)
