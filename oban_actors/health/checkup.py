"""Checkup: looks now and then whether this node can work, so that no request has to."""

import logging
import threading
from functools import partial
from typing import Any

from oban_actors.actors import ActorError, Continue, GenServer, Reason, Sender, Timer
from oban_actors.config import Config
from oban_actors.errors import DatabaseError, SchemaMissing
from oban_actors.health.judging import Check, Vitals, leader_check, listen_check, schema_check
from oban_actors.messages import GetLeader, GetStatus, Look
from oban_actors.repo import Repo, schema

logger = logging.getLogger("oban_actors")

ANSWER_TIME = 2.0
"""Seconds that the Peer and the Pulse have to answer in."""

STATEMENT_TIME = 2.0
"""Seconds that the database has to tell its tables in."""

SOON = 1.0
"""Seconds until the next look while something is amiss, as it is when a tree starts."""


class Checkup(GenServer):
    """Looks at the database, the Peer and the Pulse, and tells the endpoint what it saw.

    A look is one small read-only transaction, however many requests come.

    Args:
        config: the instance's options.
        repo: the way to the database.
        interval: seconds between two looks.

    """

    def __init__(self, config: Config, repo: Repo, interval: float) -> None:
        super().__init__()
        self.config = config
        self.repo = repo
        self.interval = interval
        self._timer: Timer | None = None
        self._thread = 0

    # Callbacks

    def init(self) -> Continue:
        """Put the first look off: the tree has yet to start."""
        self._thread = threading.get_ident()
        return Continue()

    def handle_continue(self, arg: Any) -> None:
        """Look."""
        self._look()

    def handle_info(self, message: Any) -> None:
        """Look."""
        if not isinstance(message, Look):
            super().handle_info(message)
            return
        self._look()

    def handle_call(self, message: Any, sender: Sender) -> Any:
        """Look and say what was seen."""
        return self._look() if isinstance(message, Look) else super().handle_call(message, sender)

    def terminate(self, reason: Reason) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def on_kill(self) -> None:
        """Cancel the statement that holds the thread."""
        self.repo.cancel(self._thread)

    # A look

    def _look(self) -> Vitals:
        if self._timer is not None:
            self._timer.cancel()
        at = self.runtime.clock.monotonic()
        leader = leader_check(self.config, self._answer("peer", GetLeader()))
        listen = listen_check(self._answer("pulse", GetStatus()))
        database, tables = self._ask_database()
        vitals = Vitals(at, database, tables, leader, listen)
        self.tell("health", vitals)
        well = all(check.ok for check in (leader, listen, database, tables))
        self._timer = self.send_after(Look(), self.interval if well else min(self.interval, SOON))
        return vitals

    def _answer(self, name: str, question: object) -> Any:
        try:
            return self.ask(name, question, timeout=ANSWER_TIME)
        except ActorError as error:
            logger.debug("the %s did not say how it is: %s", name, error)
            return None

    def _ask_database(self) -> tuple[Check, Check]:
        reached = Check(ok=True, about={})
        verify = partial(schema.verify, prefix=self.config.prefix)
        try:
            self.repo.transaction(
                verify,
                attempts=1,
                statement_timeout=STATEMENT_TIME,
                lock_timeout=STATEMENT_TIME,
                read_only=True,
            )
        except SchemaMissing as error:
            return reached, schema_check(str(error))
        except DatabaseError as error:
            # Its text may name machines and users.
            logger.debug("the database can't be asked: %s", error)
            kind = type(error).__name__
            return Check(ok=False, about={"error": kind}), schema_check("not known")
        return reached, schema_check(None)
