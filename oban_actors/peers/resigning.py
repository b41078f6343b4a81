"""When a leader should leave leadership to another node, and how often it may."""

import logging
import math
import sqlite3
from dataclasses import dataclass, replace
from typing import Self

from oban_actors.actors import GenServer
from oban_actors.errors import ActorError, DatabaseError
from oban_actors.messages import Resign

logger = logging.getLogger("oban_actors")

TROUBLES = 3
"""Runs of a duty in a row that fail for a reason of this node's own, until it should resign."""

FIRST_PAUSE = 15.0
"""Seconds after a resignation in which there is no other one; doubled each time."""

LONGEST_PAUSE = 3600.0
"""Seconds in which there is no other resignation, however many there were; as long again after
that without any, and they count from the beginning."""

ANSWER_TIME = 10.0
"""Seconds that the Peer has to resign in, before its duty goes on as if it had not."""

_OWN = "42"
"""The class of SQLSTATEs for what a role may not do, or what is not there as this node names it."""

_OWN_SQLITE = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


@dataclass(slots=True)
class Trouble:
    """What one duty's runs on this node came to, whichever actor made them.

    Attributes:
        crashes: runs in a row that crashed their actor.
        undated: whether it could not be said when the next run comes.

    """

    count: int = 0
    crashes: int = 0
    undated: bool = False

    def worked(self) -> None:
        """Take it that a run succeeded."""
        self.count = self.crashes = 0

    def failed(self) -> bool:
        """Take it that a run failed for a reason of this node's own.

        Returns:
            whether it did so often enough that another node should lead; it counts anew then.

        """
        self.count = (self.count + 1) % TROUBLES
        return self.count == 0


@dataclass(frozen=True, slots=True)
class Resignations:
    """How often a node has resigned lately.

    Nobody may be there to take over, or nobody who fares better, so that leadership must not be
    handed around faster and faster.
    """

    count: int = 0
    next_at: float = -math.inf

    def may(self, now: float) -> bool:
        """Whether it may resign now."""
        return now >= self.next_at

    def noted(self, now: float) -> Self:
        """Take it that it does."""
        count = 0 if now >= self.next_at + LONGEST_PAUSE else self.count
        pause = min(FIRST_PAUSE * 2.0 ** min(count, 16), LONGEST_PAUSE)
        return replace(self, count=count + 1, next_at=now + pause)


def is_own(error: DatabaseError) -> bool:
    """Whether a database's error may be this node's own, so that another node may fare better.

    It has not the right to, or knows no such function or column. Not that the database is away,
    that others are in the way, or that it takes too long.
    """
    if error.sqlstate is not None:
        return error.sqlstate.startswith(_OWN)
    cause = error.__cause__
    driver = getattr(cause, "orig", None) or cause
    if not isinstance(driver, sqlite3.Error):
        return False
    # What is not there shares its code with most other errors.
    code = getattr(driver, "sqlite_errorcode", 0) & 0xFF
    return code in _OWN_SQLITE or str(driver).startswith("no such ")


def let_another_lead(actor: GenServer, duty: str, error: Exception) -> None:
    """Ask the Peer to resign, for a duty that can't run on this node; and log it if it does.

    Args:
        actor: who does the duty.
        duty: its name.
        error: why it can't.

    """
    try:
        resigned = actor.ask("peer", Resign(why=f"{duty} can't run here"), timeout=ANSWER_TIME)
    except ActorError as failure:
        logger.debug("the peer could not be asked to resign: %s", failure)
        return
    if resigned:
        logger.warning("%s can't run on this node, so that another should lead: %s", duty, error)
