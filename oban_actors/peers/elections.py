"""What elections do to the database: one bounded transaction each."""

import sqlalchemy as sa

from oban_actors.config import Config
from oban_actors.notifiers import Publisher
from oban_actors.peers.lease import Lease
from oban_actors.peers.statements import Found, LeaseTable
from oban_actors.peers.terms import Plan, Row
from oban_actors.repo import Repo

MOST_TIME = 3.0
"""Seconds that an election may take; less when less is left of the trust in the lease."""

LEAST_TIME = 0.1
"""Seconds that a renewal gets even when hardly any trust is left."""

DUTY_TIME = 1.0
"""Seconds to wait for a duty in flight that holds on to the row."""


class Elections:
    """Runs plans about the lease.

    Args:
        config: the instance's options.
        repo: the way to the database.
        publisher: how notifications are written in a transaction.

    """

    def __init__(self, config: Config, repo: Repo, publisher: Publisher) -> None:
        self._config = config
        self._repo = repo
        self._publisher = publisher
        self._table = LeaseTable(config, repo.dialect)

    def hold(self, plan: Plan, lease: Lease, now: float) -> Found:
        """Look, claim or renew, as planned.

        Args:
            plan: which of them.
            lease: what is known and wanted.
            now: the time; a renewal gets no more than what is left of the trust.

        Returns:
            whether the lease is this node's now, and the row that stands.

        Raises:
            DatabaseError: what came of it is not known.

        """
        seconds = MOST_TIME
        if lease.held is not None:
            seconds = min(seconds, max(lease.held.trusted_until - now, LEAST_TIME))

        # As it was known before: what is read now must still be the same.
        dead = lease.dead(now)

        def work(connection: sa.Connection) -> Found:
            found = self._execute(connection, plan, lease, dead)
            if found.won and lease.rules.fast:
                self._beat(connection, lease)
            return found

        # To renew twice would be to find a row changed by somebody: the first time, by itself.
        return self._repo.transaction(
            work,
            idempotent=plan is not Plan.RENEW,
            attempts=2,
            statement_timeout=seconds,
            lock_timeout=DUTY_TIME,
            read_only=plan is Plan.LOOK,
            vital=True,
        )

    def withdraw(self, seconds: float = MOST_TIME) -> None:
        """Remove this node's row, if there is one, and tell the others to elect.

        Args:
            seconds: how long a statement may take.

        Raises:
            DatabaseError: whether it was done is not known.

        """

        def work(connection: sa.Connection) -> None:
            self._table.withdraw(connection)
            self._publisher.publish(connection, "leader", [{"down": self._config.name}])

        self._repo.transaction(
            work,
            attempts=2,
            statement_timeout=seconds,
            lock_timeout=min(seconds, DUTY_TIME),
            vital=True,
        )

    def _execute(
        self, connection: sa.Connection, plan: Plan, lease: Lease, dead: Row | None
    ) -> Found:
        now, seconds = self._repo.now(), lease.rules.lease
        if plan is Plan.LOOK:
            return Found(won=False, row=self._table.look(connection, now))
        if lease.held is None:
            return self._table.claim(
                connection, now, node=lease.writes, lease=seconds, prey=lease.prey, dead=dead
            )
        return self._table.renew(connection, now, node=lease.writes, lease=seconds, held=lease.held)

    def _beat(self, connection: sa.Connection, lease: Lease) -> None:
        stager, renew = self._config.stager, lease.rules.renew
        within = renew if stager is None else min(renew, stager.interval)
        beat = {
            "name": self._config.name,
            "beat": lease.rules.node,
            "next": within,
            "renewed": lease.rules.lease,
        }
        self._publisher.publish(connection, "actors", [beat])
