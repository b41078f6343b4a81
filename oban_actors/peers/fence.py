"""The fence: no act of a leader's without the lease."""

from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa

from oban_actors.config import Config
from oban_actors.peers.statements import LeaseTable
from oban_actors.repo.message import pyformat
from oban_actors.repo.times import Dialect

IDLE_TIME = 5.0
"""Seconds at most that a duty's transaction may leave the database waiting for its process."""


def holds_lease(connection: sa.Connection, config: Config, now: datetime | None) -> bool:
    """Read this process's own lease; the first statement of every transaction of a leader's duty.

    While the transaction lasts nobody else can take the lease, so what it does is done by the
    leader, however late it commits. Without a row of its own, unexpired by the database's
    clock, it must do nothing.

    Args:
        connection: in the duty's transaction.
        config: the instance's.
        now: the time of a virtual clock, None for the database's.

    Raises:
        sqlalchemy.exc.DBAPIError: the row could not be read.

    """
    if config.peer is None:
        return False
    if config.peer.kind == "isolated":
        return config.peer.leader
    dialect = cast("Dialect", connection.dialect.name)
    return LeaseTable(config, dialect).holds(connection, now)


def lease_gate(config: Config) -> tuple[str, dict[str, Any]] | None:
    """Give the statement of `holds_lease` for a duty that is one message to PostgreSQL.

    It locks the row, and leaves `yes` or `no` as `current_setting('oban_actors.leads')`, which
    each later statement of the message has to look at.

    Args:
        config: the instance's.

    Returns:
        the statement and its parameters but for `now`; None where no row says who leads.

    """
    if config.peer is None or config.peer.kind != "database":
        return None
    statement, parameters = LeaseTable(config, "postgresql").gate()
    return pyformat(statement), parameters


def duty_idle(config: Config) -> float:
    """Say how long the transaction of a leader's duty may be silent; its `idle_timeout`.

    It holds the row, so no other node can lead before it ends: a process that was stopped in
    the middle of it must not keep leadership for longer than the lease lasts. How long its
    statements may take is another matter.

    Args:
        config: the instance's.

    """
    return IDLE_TIME if config.peer is None else min(IDLE_TIME, config.peer.lease)
