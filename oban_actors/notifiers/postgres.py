"""The Notifier on PostgreSQL: LISTEN on a connection of its own, NOTIFY through the pool."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import psycopg

from oban_actors.actors import NOREPLY, Failure, Reason, Sender, send
from oban_actors.actors.clock import real_monotonic
from oban_actors.backoff import exponential, jitter
from oban_actors.config import Config
from oban_actors.errors import DatabaseError, DatabaseUnavailable, WireError
from oban_actors.messages import LockLost, Notify, TryLock, Unlock
from oban_actors.notifiers.attempt import Attempt
from oban_actors.notifiers.link import Link
from oban_actors.notifiers.notifier import Notifier
from oban_actors.notifiers.publisher import PostgresPublisher
from oban_actors.notifiers.select_mailbox import Readable, SelectMailbox, Tick
from oban_actors.notifiers.wire import check_channel
from oban_actors.repo import Repo

logger = logging.getLogger("oban_actors")

FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0

STEADY = 10.0
"""Seconds that a connection must have lasted for its loss to be the first of a row."""

PUBLISH_TIME = 5.0
"""Seconds that a NOTIFY in a transaction of its own may take."""

Connecting = Attempt[psycopg.Connection[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class _Connected:
    """An attempt to connect is over, well or not."""

    attempt: Connecting


class PostgresNotifier(Notifier):
    """Serves its mailbox and the listening connection in one thread, without polling.

    It also takes session advisory locks on that connection, for the Peer. Behind a pooler
    they would be another session's, so there it takes none. Mirrors `Oban.Notifiers.Postgres`.

    Args:
        config: the instance's options.
        repo: the way to the database.

    """

    def __init__(self, config: Config, repo: Repo) -> None:
        super().__init__(config)
        self.repo = repo
        self._inbox = cast("SelectMailbox", self.actor_inbox)
        self._publisher = PostgresPublisher(config)
        self._prefix = config.channel("")
        self._link: Link | None = None
        self._attempt: Connecting | None = None
        self._failing = False
        self._tries = 0
        self._linked_at = 0.0
        self._heard: set[str] = set()
        self._locks: set[int] = set()
        self._askers: list[Sender] = []

    @staticmethod
    def _create_actor_inbox() -> SelectMailbox:
        return SelectMailbox()

    # Callbacks

    def handle_continue(self, arg: Any) -> None:
        """Begin to connect."""
        self._connect()

    def handle_info(self, message: Any) -> None:
        """Serve the connection, and what is told."""
        match message:
            case Readable():
                self._receive()
            case Tick():
                self._tick()
            case _Connected(attempt):
                if attempt is self._attempt:
                    self._connected(attempt)
                else:
                    attempt.abandon()
            case _:
                super().handle_info(message)

    def terminate(self, reason: Reason) -> None:
        """Close the connection; whoever had locks on it is told."""
        self._give_up()

    def on_kill(self) -> None:
        """Free the thread, and the locks."""
        self.repo.cancel(self.thread)
        attempt, link, locks = self._attempt, self._link, list(self._locks)
        if attempt is not None:
            attempt.abandon()
        if link is not None:
            link.cut()
        self._locks_lost(locks)

    # What notifiers do

    def answer(self, message: Any, sender: Sender | None) -> Any:
        """Add the locks to what all notifiers answer."""
        match message:
            case TryLock(key):
                return self._try_lock(key)
            case Unlock(key):
                return self._unlock(key)
            case _:
                return super().answer(message, sender)

    def adjust(self, sender: Sender | None) -> Any:
        """LISTEN to the channels that have listeners, and to no other."""
        if self._link is not None:
            return self._synchronize()
        # A first attempt is worth waiting for; once one failed, nobody knows how long it takes.
        if sender is not None and not self._failing:
            self._askers.append(sender)
            return NOREPLY
        return False

    def reconnect(self) -> None:
        """Drop a connection that seems dead, or come back from a back-off at once."""
        if self._attempt is None:
            self._give_up()
            self._connect()

    def publish(self, message: Notify) -> None:
        """NOTIFY through the pool; the copy that comes back tells our own listeners."""
        send_all = partial(
            self._publisher.publish, channel=message.channel, payloads=message.payloads
        )
        self.repo.transaction(send_all, attempts=2, statement_timeout=PUBLISH_TIME)

    # The connection

    def _connect(self) -> None:
        def done(attempt: Connecting) -> None:
            send(self.actor_ref, _Connected(attempt))

        self._attempt = Attempt(self.repo.raw_connection, done)
        # What connects ends in time by itself, but for names that nobody resolves and the like.
        self._inbox.wake_at(real_monotonic() + 2 * self.config.connect_timeout + 2.0)
        self._attempt.begin()

    def _connected(self, attempt: Connecting) -> None:
        self._attempt = None
        self._inbox.wake_at(None)
        try:
            self._link = Link(attempt.take())
            if self._process.killed:
                # Whoever kills it looked for the link too soon.
                self._link.close()
                return
            self._inbox.watch(self._link.fileno())
            self._listen(self._link)
        except DatabaseError as error:
            self._give_up()
            self._failed(error)
            return
        if self._failing:
            logger.info("the notifier listens again")
        self._failing = False
        self._linked_at = real_monotonic()
        # In this order, so that who has its answer is told nothing more of the past.
        self.delivery.reconnected()
        self._answer_askers(listening=True)

    def _tick(self) -> None:
        if self._attempt is not None:
            self._give_up()
            self._failed(DatabaseUnavailable("no connection was made in time"))
        elif self._link is None:
            self._connect()

    def _failed(self, error: DatabaseError) -> None:
        if not self._failing:
            logger.warning("the notifier can't listen and will try again: %s", error)
        self._failing = True
        self._answer_askers(listening=False)
        self._connect_later()

    def _lost(self, error: DatabaseError) -> None:
        logger.warning("the notifier lost its connection and makes another: %s", error)
        if real_monotonic() - self._linked_at >= STEADY:
            self._tries = 0
        self._give_up()
        self._connect_later()

    def _connect_later(self) -> None:
        # Soon at first, but not from all nodes in the same instant.
        delay = min(exponential(self._tries, mult=FIRST_DELAY), LONGEST_DELAY)
        self._tries += 1
        self._inbox.wake_at(real_monotonic() + jitter(delay, mult=0.5))

    def _give_up(self) -> None:
        attempt, self._attempt = self._attempt, None
        link, self._link = self._link, None
        locks = list(self._locks)
        self._locks.clear()
        self._heard.clear()
        if attempt is not None:
            attempt.abandon()
        if link is not None:
            self._inbox.watch(None)
            link.close()
        self._locks_lost(locks)

    def _answer_askers(self, *, listening: bool) -> None:
        askers, self._askers = self._askers, []
        for asker in askers:
            self.reply(asker, listening)

    # Listening

    def _synchronize(self) -> bool:
        if self._link is None:
            return False
        try:
            self._listen(self._link)
        except DatabaseError as error:
            self._lost(error)
            return False
        return True

    def _listen(self, link: Link) -> None:
        wanted = {self.config.channel(channel) for channel in self._channels()}
        statements = [f"LISTEN {_quoted(channel)}" for channel in wanted - self._heard]
        statements += [f"UNLISTEN {_quoted(channel)}" for channel in self._heard - wanted]
        if statements:
            link.run("; ".join(statements))
            self._heard = wanted
            self._inbox.signal()

    def _channels(self) -> list[str]:
        found = []
        for channel in self.runtime.registry.channels():
            try:
                found.append(check_channel(self.config, channel))
            except WireError as error:
                logger.warning("nobody will hear on a channel: %s", error)
        return found

    def _receive(self) -> None:
        if self._link is None:
            return
        try:
            received = self._link.notifications()
        except DatabaseError as error:
            self._lost(error)
            return
        deserted = False
        for one in received:
            channel = one.channel.removeprefix(self._prefix)
            deserted |= not self.delivery.deliver(channel, one.text, one.pid)
        if deserted:
            # Its listeners have died: who ends does not say so here.
            self._synchronize()

    # Locks

    def _try_lock(self, key: int) -> bool | Failure:
        if self._link is None or key in self._locks:
            return key in self._locks
        # The server's own number, seen from inside: a pooler shows another one outside.
        mine = f"pg_backend_pid() = {self._link.pid}"
        taken = self._ask_server(
            f"SELECT CASE WHEN {mine} THEN pg_try_advisory_lock({int(key)}) ELSE false END"
        )
        if taken is True:
            self._locks.add(key)
        return taken

    def _unlock(self, key: int) -> bool | Failure:
        if key not in self._locks:
            return False
        self._locks.discard(key)
        return self._ask_server(f"SELECT pg_advisory_unlock({int(key)})")

    def _ask_server(self, sql: str) -> bool | Failure:
        if self._link is None:
            return False
        try:
            value = self._link.run(sql)
        except DatabaseUnavailable as error:
            self._lost(error)
            return False
        except DatabaseError as error:
            return Failure(error)
        self._inbox.signal()
        return value == "t"

    def _locks_lost(self, keys: list[int]) -> None:
        peer = self.runtime.registry.whereis("peer")
        if peer is not None:
            for key in keys:
                send(peer, LockLost(key))


def _quoted(channel: str) -> str:
    return '"' + channel.replace('"', '""') + '"'
