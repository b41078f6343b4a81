"""The lease and time: a machine that was suspended, and a row that is over."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from oban_actors.actors import SystemClock
from oban_actors.config import Config
from oban_actors.peers.statements import LeaseTable
from oban_actors.peers.terms import Held
from tests.peers.harness import LONG, Cluster

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


class SleepyClock(SystemClock):
    """The clocks of a machine that was suspended for a while."""

    slept = 0.0

    def boottime(self) -> float:
        """The only one that counts that while."""
        return super().boottime() + self.slept


def test_a_leader_that_was_suspended_trusts_its_lease_no_more(cluster: Cluster) -> None:
    """It knows so as it wakes, before any timer of its own fires or a database answers."""
    clock = SleepyClock()
    node = cluster.start(clock=clock, peer=LONG)
    assert cluster.wait_for_leader() is node
    cluster.execute("DROP TABLE {table}")

    clock.slept = 601.0

    assert node.leads is False


def test_a_leader_that_was_suspended_for_a_moment_leads_on(cluster: Cluster) -> None:
    """It is the length of the lease that counts."""
    clock = SleepyClock()
    node = cluster.start(clock=clock, peer=LONG)
    assert cluster.wait_for_leader() is node

    clock.slept = 100.0

    assert node.leads is True


def test_a_row_that_is_over_is_not_renewed(cluster: Cluster) -> None:
    """Not even where it is exactly as it was written, and nobody has taken it yet."""
    config = Config.build(prefix=cluster.database.prefix)
    table = LeaseTable(config, cluster.repo.dialect)
    mine = {"node": table._mine["plain"], "lease": 15.0}

    def held(seconds: float) -> bool:
        def work(connection: Connection) -> bool:
            won = table.claim(connection, NOON, **mine)
            assert won.won
            assert won.row is not None
            held = Held(won.row.started_at, won.row.expires_at, 0.0, marked=False)
            now = NOON + timedelta(seconds=seconds)
            return table.renew(connection, now, held=held, **mine).won

        return cluster.repo.transaction(work)

    assert held(14.9) is True
    assert held(15.1) is False
