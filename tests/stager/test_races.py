"""A pass on PostgreSQL against others that want its lease or its rows at that very moment."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from oban_actors import IsLeader, Oban, StageResult
from tests.stager.passes import SLOW, stage
from tests.support.databases import Database
from tests.support.events import Recorder
from tests.support.instances import Starter, scheduled, starter
from tests.support.waiting import wait_until

QUIET: dict[str, Any] = {
    "stager": SLOW,
    "insert_notify": False,
    # Nobody renews, takes or gives back the lease meanwhile.
    "peer": {"lease": 600.0, "renew": 200.0, "advisory_lock": False},
}
WAITERS = """
SELECT pid FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()
  AND (query LIKE '%oban_actors.leads%' OR query LIKE '%EXECUTE oban%')
"""
GATE = 4711


@pytest.fixture
def start(pg: Database) -> Iterator[Starter]:
    """Instances on PostgreSQL."""
    with starter(pg) as one:
        yield one


@pytest.fixture
def other(start: Starter, pg_conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection to the tables, in transactions."""
    with psycopg.connect(pg_conninfo) as connection:
        connection.execute(f'SET search_path = "{start.database.prefix}"'.encode())
        connection.commit()
        yield connection


def settled(start: Starter) -> Oban:
    """Start a leader whose Peer has nothing more to do of its own accord."""
    oban = start.leading(**QUIET)
    # Once the notifier listens it tells the Peer to look again, which that does a moment later.
    start.hear(oban, "gossip")
    assert oban.ask("peer", IsLeader(), timeout=30)
    peer = oban.whereis("peer").actor_inbox.process.actor  # type: ignore[attr-defined]  # from below
    wait_until(lambda: peer._lease.wake_at > peer._now() + 100, message="the Peer has looked")
    assert oban.ask("peer", IsLeader(), timeout=30)
    return oban


@contextmanager
def passing(oban: Oban, start: Starter) -> Iterator[Any]:
    """Begin a pass, and give what it will come to once it waits for somebody's lock."""
    with ThreadPoolExecutor(1) as threads:
        pending = threads.submit(stage, oban)
        wait_until(lambda: bool(start.tables.execute(WAITERS)) or pending.done())
        assert not pending.done(), pending.result()
        yield pending


def hold_passes_up(start: Starter) -> None:
    """Let a pass wait, with its rows written, for who has the advisory lock."""
    schema = start.database.prefix
    start.tables.execute(
        f'CREATE FUNCTION "{schema}".wait() RETURNS trigger LANGUAGE plpgsql AS '
        f"$$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$"
    )
    start.tables.execute(
        "CREATE TRIGGER wait AFTER UPDATE ON {jobs} FOR EACH STATEMENT EXECUTE FUNCTION "
        f'"{schema}".wait()'
    )


def test_a_lease_removed_meanwhile_stages_nothing(
    start: Starter, other: psycopg.Connection[Any]
) -> None:
    """A pass that meets the removal of its row waits for how that ends, and does nothing."""
    oban = settled(start)
    job = oban.insert(scheduled(-5))
    heard = start.hear(oban, "insert")
    other.execute("DELETE FROM oban_peers")
    with passing(oban, start) as pending:
        other.commit()
        result: StageResult = pending.result(30)

    assert (result.leader, result.staged, result.queues, result.error) == (False, (), (), None)
    assert start.tables.states() == {job.id: "scheduled"}
    assert heard.payloads("insert") == []


def test_a_lease_taken_over_meanwhile_stages_nothing(
    start: Starter, other: psycopg.Connection[Any]
) -> None:
    """Removed and written anew by another node, all in one transaction, it is not ours either."""
    oban = settled(start)
    job = oban.insert(scheduled(-5))
    other.execute("WITH gone AS (DELETE FROM oban_peers RETURNING *) SELECT * FROM gone").fetchall()
    other.execute(
        "INSERT INTO oban_peers (name, node, started_at, expires_at) VALUES "
        "('Oban', 'web.9', now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC' + interval '1 hour')"
    )
    with passing(oban, start) as pending:
        other.commit()
        assert not pending.result(30).leader

    assert start.tables.states() == {job.id: "scheduled"}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE oban_peers SET expires_at = clock_timestamp() AT TIME ZONE 'UTC'",
        "UPDATE oban_peers SET node = 'web.9'",
        "DELETE FROM oban_peers",
    ],
)
def test_a_lease_that_is_over_stages_nothing(
    start: Starter, other: psycopg.Connection[Any], change: str
) -> None:
    """Expired, renewed by another or gone: the pass finds out, though the Peer does not know."""
    oban = settled(start)
    job = oban.insert(scheduled(-5))
    other.execute(change.encode())
    other.commit()

    result = stage(oban)

    assert (result.leader, result.staged, result.error) == (False, (), None)
    assert start.tables.states() == {job.id: "scheduled"}


def test_what_is_cancelled_or_put_off_while_it_waits_is_not_staged(
    start: Starter, other: psycopg.Connection[Any]
) -> None:
    """Rows are judged as they are when the lease is certain, not as when the pass began."""
    oban = settled(start)
    jobs = oban.insert_all([scheduled(-5 + n) for n in range(3)])
    cancelled, put_off, due = (job.id for job in jobs)
    other.execute("DELETE FROM oban_peers")
    with passing(oban, start) as pending:
        start.tables.execute("UPDATE {jobs} SET state = 'cancelled' WHERE id = :id", id=cancelled)
        start.tables.execute(
            "UPDATE {jobs} SET scheduled_at = '2999-01-01' WHERE id = :id", id=put_off
        )
        other.rollback()
        result = pending.result(30)

    assert result.leader
    assert [each.id for each in result.staged] == [due]
    assert start.tables.states() == {
        cancelled: "cancelled",
        put_off: "scheduled",
        due: "available",
    }


def test_a_pass_under_way_holds_the_lease(start: Starter, other: psycopg.Connection[Any]) -> None:
    """Nobody can remove the row before what was done as the leader is committed."""
    oban = settled(start)
    job = oban.insert(scheduled(-5))
    hold_passes_up(start)
    other.execute("SELECT pg_advisory_lock(%s)", [GATE])
    with passing(oban, start) as pending:
        other.execute("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("DELETE FROM oban_peers")
        other.rollback()
        assert start.tables.states() == {job.id: "scheduled"}
        other.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        result = pending.result(30)

    assert [each.id for each in result.staged] == [job.id]
    assert other.execute("DELETE FROM oban_peers").rowcount == 1
    other.rollback()


def test_a_cancel_waits_for_a_pass_that_has_the_row(
    start: Starter, other: psycopg.Connection[Any]
) -> None:
    """It finds the job available, and cancels it then: no pass puts it back."""
    oban = settled(start)
    job = oban.insert(scheduled(-5))
    hold_passes_up(start)
    other.execute("SELECT pg_advisory_lock(%s)", [GATE])
    with passing(oban, start) as pending, ThreadPoolExecutor(1) as threads:
        cancelling = threads.submit(oban.cancel_job, job.id or 0)
        other.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        assert pending.result(30).staged_count == 1
        cancelling.result(30)

    assert stage(oban).staged == ()
    assert start.tables.states() == {job.id: "cancelled"}


def test_a_session_that_ends_during_a_pass_costs_nothing(
    start: Starter, other: psycopg.Connection[Any]
) -> None:
    """What it had done is undone with it, and done again, once, in the same pass."""
    oban = settled(start)
    job = oban.insert(scheduled(-5))
    heard = start.hear(oban, "insert")
    hold_passes_up(start)
    other.execute("SELECT pg_advisory_lock(%s)", [GATE])
    with passing(oban, start) as pending:
        ((pid,),) = start.tables.execute(WAITERS)
        other.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_until(lambda: [row[0] for row in start.tables.execute(WAITERS)] not in ([], [pid]))
        assert start.tables.states() == {job.id: "scheduled"}
        other.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        result = pending.result(30)

    assert result.error is None
    assert [each.id for each in result.staged] == [job.id]
    assert {"queue": "alpha"} in heard.wait_for("insert")


def test_the_event_of_the_notification_is_there_though_the_pass_sent_it(
    start: Starter, events: Recorder
) -> None:
    """Its payloads are those that were sent, also of queues whose names JSON has to write apart."""
    oban = settled(start)
    oban.insert(scheduled(-5))
    odd = 'a "queue"\\ of 100 %\tü'
    start.tables.execute("UPDATE {jobs} SET queue = :queue", queue=odd)
    heard = start.hear(oban, "insert")
    events.clear()

    assert stage(oban).queues == (odd,)

    assert heard.wait_for("insert", 2)[:2] == [{"queue": odd}] * 2
    sent = [
        event.metadata["payload"]
        for event in events.all("oban.notifier.notify.stop")
        if event.metadata["channel"] == "insert"
    ]
    assert sent == [[{"queue": odd}]]
