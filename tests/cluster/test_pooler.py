"""A tree whose connections go through PgBouncer in transaction mode."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from oban_actors import GetLease, GetStatus, Oban, Stage
from oban_actors.repo import schema
from tests.cluster.pooling import pgbouncer
from tests.support.databases import Database
from tests.support.instances import Starter, available, scheduled, starter, wait_until_leader
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.db, pytest.mark.slow]

FAST: dict[str, Any] = {"stager": {"interval": 0.2}, "peer": {"lease": 3.0, "renew": 1.0}}

NAMES = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "tcp_user_timeout",
    "enable_seqscan",
    "jit",
)


@pytest.fixture
def pooled(pg: Database) -> Iterator[Database]:
    """The database as it is behind a pooler."""
    with pgbouncer(pg.url) as url:
        yield Database("postgresql", url, pg.prefix)


@pytest.fixture
def one(pooled: Database) -> Iterator[Starter]:
    """Instances on it."""
    with starter(pooled) as made:
        yield made


def plain(url: str) -> str:
    """Write an address as libpq takes it."""
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def settings(url: str) -> list[Any]:
    """What a session finds set that comes this way."""
    with psycopg.connect(url) as connection:
        return [connection.execute(f"SHOW {name}").fetchone() for name in NAMES]


def works(one: Starter, oban: Oban) -> None:
    """Lead, stage at the due time, insert in bulk, and keep the term over several renewals."""
    wait_until_leader(oban)
    term = oban.ask("peer", GetLease()).term
    jobs = oban.insert_all([scheduled(n / 20) for n in range(40)])
    wait_until(lambda: one.tables.count("available") == len(jobs))
    assert oban.ask("stager", Stage(), timeout=30).error is None
    renewals: set[object] = set()
    expiry = "SELECT max(expires_at) FROM {peers}"
    wait_until(lambda: (renewals.add(one.tables.execute(expiry)[0][0]), len(renewals) > 4)[1])
    assert oban.ask("peer", GetLease()).term == term


def crashes(oban: Oban) -> list[str]:
    """What any actor of the tree died of."""
    return [node.last_crash for node in oban.tree().walk() if node.last_crash]


def test_with_a_listen_url(pg: Database, one: Starter) -> None:
    """The Notifier goes around the pooler: all works as without one, the lock included."""
    oban = one(notifier={"kind": "postgres", "listen_url": plain(pg.url)}, **FAST)
    heard = one.hear(oban, "insert")

    works(one, oban)

    wait_until(lambda: oban.ask("pulse", GetStatus()) == "solitary")
    oban.insert(available("gamma"))
    wait_until(lambda: {"queue": "gamma"} in heard.payloads("insert"))
    wait_until(lambda: oban.ask("peer", GetLease()).locked)
    assert crashes(oban) == []


def test_without_one(one: Starter) -> None:
    """LISTEN stays with whichever session ran it: the lease and the timers alone do the work.

    What comes back is not to be relied on, the lock is never taken, and nothing crashes.
    """
    oban = one(pulse={"interval": 1.0}, **FAST)

    works(one, oban)

    assert oban.ask("peer", GetLease()).locked is False
    assert crashes(oban) == []


def test_a_leader_behind_it_hands_over(one: Starter) -> None:
    """Two nodes, both behind the pooler: the one that stops leaves the lease to the other."""
    first = one(node="one", **FAST)
    wait_until_leader(first)
    second = one(node="two", **FAST)
    first.stop()

    works(one, second)


def test_sessions_keep_nothing(pg: Database, one: Starter) -> None:
    """What a transaction sets, no other client of the same server session finds."""
    oban = one(notifier={"kind": "postgres", "listen_url": plain(pg.url)}, **FAST)
    works(one, oban)
    wanted = settings(plain(pg.url))
    with psycopg.connect(plain(one.database.url), autocommit=True) as behind:
        behind.prepare_threshold = None
        for _ in range(20):
            assert [behind.execute(f"SHOW {name}").fetchone() for name in NAMES] == wanted
        prepared = behind.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        assert prepared == (0,)


def test_migrating_through_it(pg: Database) -> None:
    """The index is built, and the session that built it is left as it was."""
    with pgbouncer(pg.url, size=2) as url:
        oban = Oban(url, prefix=pg.prefix)
        oban.migrate()
        facts = oban.repo.transaction(lambda c: schema.inspect(c, pg.prefix))
        oban.repo.close()

        assert facts.staging_index is True
        # Both sessions that the pooler has, since one is in a transaction.
        with psycopg.connect(plain(url)) as first:
            first.execute("SELECT 1")
            assert settings(plain(url)) == settings(plain(pg.url))
            first.rollback()
            assert settings(plain(url)) == settings(plain(pg.url))
