"""The lease row's SQL, for both databases, on the database's clock."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from oban_actors.config import Config
from oban_actors.peers.identity import LOCKED, row_identity
from oban_actors.peers.terms import Held, Row
from oban_actors.repo.times import NOW, Dialect, parameter

_EXPIRY: Mapping[Dialect, str] = {
    "postgresql": "clock.now + make_interval(secs => cast(:lease as double precision))",
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%f000Z', clock.now, :lease || ' seconds')",
}
_LEFT: Mapping[Dialect, str] = {
    "postgresql": "cast(extract(epoch from expires_at - clock.now) as double precision)",
    "sqlite": "(julianday(expires_at) - julianday(clock.now)) * 86400.0",
}


class Found(NamedTuple):
    """Whether the lease was taken or kept, and the row that stands now."""

    won: bool
    row: Row | None


class LeaseTable:
    """The row of one instance in `oban_peers`, as one of its nodes may touch it.

    Every method is part of the caller's transaction. `now` is given under a virtual clock only.

    Args:
        config: whose name, prefix and identity.
        dialect: which database's SQL.

    """

    def __init__(self, config: Config, dialect: Dialect) -> None:
        mine = row_identity(config)
        self._dialect = dialect
        self._mine: dict[str, Any] = {"name": config.name, "plain": mine, "locked": mine + LOCKED}
        self._table = f'"{config.prefix}".oban_peers' if dialect == "postgresql" else "oban_peers"
        self._clock = f"(SELECT {NOW[dialect]} AS now) AS clock"

    def look(self, connection: sa.Connection, now: datetime | None) -> Row | None:
        """Read the row, whoever holds it."""
        sql = (
            f"SELECT node, started_at, expires_at, {_LEFT[self._dialect]} AS left_for "
            f"FROM {self._table}, {self._clock} WHERE name = :name"
        )
        found = self._run(connection, sql, now).one_or_none()
        return (
            None
            if found is None
            else Row(found.node, found.started_at, found.expires_at, found.left_for)
        )

    def claim(
        self,
        connection: sa.Connection,
        now: datetime | None,
        *,
        node: str,
        lease: float,
        prey: str | None = None,
        dead: Row | None = None,
    ) -> Found:
        """Take the lease if it is free, expired, this process's own already, the prey's or dead.

        Removing a row waits for the duty in flight that holds on to it.

        Args:
            connection: in a transaction.
            now: see the class.
            node: what to write as the holder.
            lease: seconds.
            prey: the lock-backed holder whose lock this process has got: surely dead.
            dead: a row that may be removed if it still stands like this.

        Returns:
            whether it was taken, and the row that stands now.

        """
        row = self.look(connection, now)
        if row is not None:
            mine = row.node in (self._mine["plain"], self._mine["locked"])
            if row.left > 0 and not (mine or row.node == prey or row.is_as(dead)):
                return Found(won=False, row=row)
            self._remove(connection, row)
        sql = (
            f"INSERT INTO {self._table} (name, node, started_at, expires_at) "
            f"SELECT :name, :node, clock.now, {_EXPIRY[self._dialect]} FROM {self._clock} "
            "WHERE true ON CONFLICT (name) DO NOTHING RETURNING started_at, expires_at"
        )
        found = self._run(connection, sql, now, node=node, lease=lease).one_or_none()
        if found is None:
            return Found(won=False, row=self.look(connection, now))
        return Found(won=True, row=Row(node, found.started_at, found.expires_at, lease))

    def renew(
        self,
        connection: sa.Connection,
        now: datetime | None,
        *,
        node: str,
        lease: float,
        held: Held,
    ) -> Found:
        """Prolong the lease if the row is exactly what this process wrote last, and unexpired.

        Returns:
            whether it was, and the row that stands now.

        """
        sql = (
            f"UPDATE {self._table} SET node = :node, expires_at = {_EXPIRY[self._dialect]} "
            f"FROM {self._clock} WHERE name = :name AND node IN (:plain, :locked) "
            "AND started_at = :term AND expires_at = :written AND expires_at > clock.now "
            "RETURNING expires_at"
        )
        known = {"node": node, "lease": lease, "term": held.term, "written": held.written}
        found = self._run(connection, sql, now, **known).one_or_none()
        if found is None:
            return Found(won=False, row=self.look(connection, now))
        return Found(won=True, row=Row(node, held.term, found.expires_at, lease))

    def withdraw(self, connection: sa.Connection) -> None:
        """Remove this process's row, if there is one."""
        sql = f"DELETE FROM {self._table} WHERE name = :name AND node IN (:plain, :locked)"
        connection.execute(sa.text(sql), self._mine)

    def holds(self, connection: sa.Connection, now: datetime | None) -> bool:
        """Whether this process has the lease now; keeps it from being taken until the commit."""
        return self._run(connection, self._reading("1"), now).first() is not None

    def gate(self) -> tuple[str, dict[str, Any]]:
        """Give a statement for PostgreSQL that does what `holds` does, and leaves its finding.

        Later statements of the transaction find it as `current_setting('oban_actors.leads')`,
        `yes` or `no`; the statement gives it too. Its parameters are given but for `now`.
        """
        reading = self._reading("'yes'")
        found = f"coalesce(({reading}), 'no')"
        return f"SELECT set_config('oban_actors.leads', {found}, true)", self._mine

    def _reading(self, what: str) -> str:
        # KEY SHARE lets renewals pass, and holds off whoever wants to remove the row.
        lock = "FOR KEY SHARE OF peers" if self._dialect == "postgresql" else ""
        return (
            f"SELECT {what} FROM {self._table} AS peers, {self._clock} WHERE peers.name = :name "
            f"AND peers.node IN (:plain, :locked) AND peers.expires_at > clock.now {lock}"
        )

    def _remove(self, connection: sa.Connection, row: Row) -> None:
        # Exactly what was read: a holder that renewed or lost its mark meanwhile keeps it.
        sql = (
            f"DELETE FROM {self._table} WHERE name = :name AND node = :holder "
            "AND started_at = :term AND expires_at = :written"
        )
        known = {"holder": row.node, "term": row.started_at, "written": row.expires_at}
        connection.execute(sa.text(sql), self._mine | known)

    def _run(
        self, connection: sa.Connection, sql: str, now: datetime | None, **known: Any
    ) -> sa.CursorResult[Any]:
        values = self._mine | known | {"now": parameter(self._dialect, now)}
        return connection.execute(sa.text(sql), values)
