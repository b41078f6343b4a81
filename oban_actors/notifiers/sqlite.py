"""The Notifier on SQLite: the processes on one file hear of each other through the file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from oban_actors.actors import Reason
from oban_actors.actors.clock import real_monotonic
from oban_actors.backoff import exponential, jitter
from oban_actors.config import Config
from oban_actors.errors import DatabaseError, TransientError
from oban_actors.messages import Notify
from oban_actors.notifiers.inotify import Watch, watch_file
from oban_actors.notifiers.journal import Journal
from oban_actors.notifiers.notifier import Notifier
from oban_actors.notifiers.publisher import SqlitePublisher
from oban_actors.notifiers.select_mailbox import Readable, SelectMailbox, Tick
from oban_actors.repo import Repo

logger = logging.getLogger("oban_actors")

FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0

SWEEP_ON = 0.05
"""Seconds until the next sweep while there may be more to be deleted."""

SWEEP_AGAIN = 1.0
"""Seconds until another try after another writer was in the way."""

SWEEP_AFTER = 30.0
"""Seconds after which a reader looks whether there are old rows to delete."""

PUBLISH_TIME = 5.0
"""Seconds that sending in a transaction of its own may take."""


@dataclass(slots=True)
class Pace:
    """How long until the next look into the file.

    A write to the file comes before its commit can be seen, by as long as the disk takes. So
    after word of a write it is looked at once, and then ever later; a slow look is for what no
    word came of. Where write follows on write and none of them brings news, as while a queue
    drains, the looks are fewer: they would cost what the queue could do meanwhile.

    Args:
        watched: whether there is word of writes at all.

    """

    watched: bool
    step: int = 0
    vain: int = 0

    CLOSE = 9
    SOON = 2
    MOST_VAIN = 3
    SLOW = 1.0
    UNWATCHED_FIRST = 0.01
    UNWATCHED_LAST = 0.1

    def touched(self) -> None:
        """Note word of a write, or without such word a write that was found."""
        self.vain = min(self.vain + 1, self.MOST_VAIN) if self.step <= self.SOON else 0
        self.step = 0

    def found(self) -> None:
        """Note that a look brought news."""
        self.vain = 0

    def delay(self) -> float:
        """Give the seconds until the next look."""
        self.step += 1
        if self.watched:
            return (
                0.001 * 2 ** max(self.step - 1, self.vain) if self.step <= self.CLOSE else self.SLOW
            )
        return min(self.UNWATCHED_FIRST * 1.25 ** (self.step - 1), self.UNWATCHED_LAST)


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Time to delete old rows."""


class SqliteNotifier(Notifier):
    """Reads the rows that publishers of all processes write, woken by the kernel if possible.

    It has no session that a lock could be tied to, so it takes none.

    Args:
        config: the instance's options.
        repo: the way to the database.
        watch: how a file is watched for writes; None from it means that it can't be.

    """

    def __init__(
        self, config: Config, repo: Repo, watch: Callable[[str], Watch | None] = watch_file
    ) -> None:
        super().__init__(config)
        self.repo = repo
        self._inbox = cast("SelectMailbox", self.actor_inbox)
        self._publisher = SqlitePublisher(config)
        self._watch_file = watch
        self._watch: Watch | None = None
        self._journal: Journal | None = None
        self._pace = Pace(watched=False)
        self._failures = 0
        self._sweeping = False

    @staticmethod
    def _create_actor_inbox() -> SelectMailbox:
        return SelectMailbox()

    # Callbacks

    def handle_continue(self, arg: Any) -> None:
        """Open the file; listeners that are there already may have missed something."""
        self._open()

    def handle_info(self, message: Any) -> None:
        """Look into the file, and do what is told."""
        match message:
            case Readable():
                self._touched()
            case Tick():
                self._tick()
            case _Sweep():
                self._sweep()
            case _:
                super().handle_info(message)

    def terminate(self, reason: Reason) -> None:
        """Close the file."""
        self._close()

    def on_kill(self) -> None:
        """Free the thread, and close what it would have closed."""
        self.repo.cancel(self.thread)
        for one in (self._journal, self._watch):
            if one is not None:
                one.close()

    # What notifiers do

    def reconnect(self) -> None:
        """Open the file anew."""
        self._close()
        self._open()

    def publish(self, message: Notify) -> None:
        """Write the rows; they come back as everybody else's do."""
        write = partial(self._publisher.publish, channel=message.channel, payloads=message.payloads)
        self.repo.transaction(write, attempts=2, statement_timeout=PUBLISH_TIME)

    # The file

    def _open(self) -> None:
        try:
            self._journal = Journal(self.repo)
        except DatabaseError as error:
            self._failed(error)
            return
        self._watch = self._watch_file(f"{self._journal.path}-wal")
        self._listen_to_watch()
        self._pace = Pace(watched=self._watch is not None)
        if self._failures:
            logger.info("the notifier reads the file again")
        self._failures = 0
        self.delivery.reconnected()
        # A write since the journal was opened but before the watch began made no noise.
        self._look()

    def _close(self) -> None:
        journal, self._journal = self._journal, None
        watch, self._watch = self._watch, None
        if watch is not None:
            self._inbox.watch(None)
            watch.close()
        if journal is not None:
            journal.close()

    def _failed(self, error: DatabaseError) -> None:
        if not self._failures:
            logger.warning("the notifier can't read the file and will try again: %s", error)
        self._close()
        delay = min(exponential(self._failures, mult=FIRST_DELAY), LONGEST_DELAY)
        self._failures += 1
        self._inbox.wake_at(real_monotonic() + jitter(delay, mult=0.5))

    def _tick(self) -> None:
        if self._journal is None:
            self._open()
        else:
            self._listen_to_watch()
            self._look()

    def _listen_to_watch(self) -> None:
        self._inbox.watch(None if self._watch is None else self._watch.fileno())

    def _touched(self) -> None:
        if self._watch is not None and not self._watch.drain():
            self.reconnect()
            return
        # Deaf until the next look: others may commit a hundred thousand times a second.
        self._inbox.watch(None)
        self._pace.touched()
        self._look()

    def _look(self) -> None:
        if self._journal is None:
            return
        try:
            self._tell_news(self._journal)
        except TransientError as error:
            # Somebody holds the whole file for a while, as its recovery does.
            logger.debug("the file can't be read at the moment: %s", error)
        except DatabaseError as error:
            self._failed(error)
            return
        self._inbox.wake_at(real_monotonic() + self._pace.delay())

    def _tell_news(self, journal: Journal) -> None:
        while (news := journal.news()) is not None:
            if not self._pace.watched:
                self._pace.touched()
            if news.missed:
                self.delivery.reconnected()
            for entry in news.entries:
                self.delivery.deliver(entry.channel, entry.text)
            if news.entries:
                self._pace.found()
                self._sweep_later()
            if not news.more:
                return

    # Old rows

    def _sweep_later(self, seconds: float = SWEEP_AFTER) -> None:
        if not self._sweeping:
            self._sweeping = True
            self.send_after(_Sweep(), jitter(seconds))

    def _sweep(self) -> None:
        self._sweeping = False
        if self._journal is None:
            return
        try:
            left = self._journal.sweep()
        except DatabaseError as error:
            logger.debug("old notifications are deleted later: %s", error)
            self._sweep_later(SWEEP_AGAIN)
        else:
            if left != "none":
                self._sweep_later(SWEEP_ON if left == "old" else SWEEP_AFTER)
