"""A leader whose duties can't run lets another node lead, if there is one."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from oban_actors import Job, Oban, Prune, Resign, Stage
from oban_actors.errors import (
    ActorError,
    DatabaseError,
    DatabaseUnavailable,
    StatementTimeout,
    TransientError,
)
from oban_actors.messages import IsLeader, Perform
from oban_actors.peers import Trouble, is_own
from oban_actors.peers.lease import Lease
from oban_actors.peers.resigning import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    TROUBLES,
    Resignations,
)
from oban_actors.peers.silence import AGAIN
from oban_actors.peers.terms import Lost, Plan, Unlock, Withdraw
from oban_actors.plugins import PluginResult, Pruner
from oban_actors.repo.sqlstates import translate
from tests.peers.test_lease import FAST, ME, OTHER, follower, leader, row
from tests.plugins.test_plugin import Counter
from tests.support.databases import Database
from tests.support.events import Event, Recorder
from tests.support.instances import Starter, starter, wait_until_leader
from tests.support.waiting import wait_until

# Decisions


def test_a_leader_resigns_and_stands_back() -> None:
    """It stops to lead before the row goes, leaves a free lease alone, and then claims it."""
    lease, effects = leader(FAST, locked=True).resigned(5.0, "it can't", 10.0)

    assert effects == (Lost("it can't"), Withdraw(), Unlock())
    assert not lease.leads(10.0)
    assert lease.down(10.1) == lease
    assert lease.plan(10.0 + AGAIN) is Plan.LOOK
    free = lease.looked(None, 10.0 + AGAIN).lease
    assert free.plan(14.9) is Plan.WAIT
    assert free.plan(15.1) is Plan.CLAIM


def test_who_took_over_is_followed() -> None:
    """The one look meanwhile finds the new leader."""
    lease = leader().resigned(5.0, "it can't", 10.0).lease

    after = lease.looked(row(OTHER, left=15.0), 11.0).lease
    assert after.holder == OTHER
    assert after.wake_at == pytest.approx(26.0)
    assert after.held is None


def test_who_does_not_lead_has_nothing_to_resign() -> None:
    """And does not stand back either."""
    for lease in (follower(), Lease(FAST)):
        assert lease.resigned(5.0, "it can't", 1.0) == (lease, ())


def test_it_does_not_resign_again_and_again() -> None:
    """Nobody may be there who fares better: each time it has to lead for longer."""
    lease, terms, now = leader(), [], 0.0
    for _ in range(10):
        resigned = lease.resigned(5.0, "it can't", now).lease
        assert resigned.held is None
        lease = resigned.won(row(ME), now + 6, now + 6).lease
        began = now
        while lease.resigned(5.0, "it can't", now).lease.held is not None:
            now += 1.0
        terms.append(now - began)

    assert terms[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert terms[-1] == LONGEST_PAUSE


def test_long_ago_is_forgotten() -> None:
    """After a while without any, resignations count from the beginning."""
    many = Resignations(count=9, next_at=100.0)

    assert many.noted(101.0).next_at == 101.0 + LONGEST_PAUSE
    assert many.noted(101.0 + LONGEST_PAUSE).next_at == 101.0 + LONGEST_PAUSE + FIRST_PAUSE


def test_trouble_is_several_failures_in_a_row() -> None:
    """One that works in between wipes them out; after enough they count anew."""
    trouble = Trouble()
    told = [trouble.failed() for _ in range(TROUBLES * 2)]
    trouble.failed()
    trouble.worked()

    assert told == [False, False, True] * 2
    assert not any(trouble.failed() for _ in range(TROUBLES - 1))


@pytest.mark.parametrize(
    ("error", "own"),
    [
        (DatabaseError("permission denied", sqlstate="42501"), True),
        (DatabaseError("no such function", sqlstate="42883"), True),
        (DatabaseError("unique violation", sqlstate="23505"), False),
        (TransientError("locked", sqlstate="55P03"), False),
        (StatementTimeout("slow", sqlstate="57014"), False),
        (DatabaseUnavailable("standby", sqlstate="25006"), False),
        (DatabaseUnavailable("away"), False),
    ],
)
def test_whose_fault_it_is(error: DatabaseError, *, own: bool) -> None:
    """A right or a function that is missing is this node's own; nothing that may pass is."""
    assert is_own(error) is own


def test_whose_fault_it_is_on_sqlite(tmp_path: Any) -> None:
    """Likewise, by the driver's code."""
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE a (b UNIQUE)")
    connection.execute("INSERT INTO a VALUES (1)")
    for statement, own in (
        ("SELECT f(1)", True),
        ("SELECT c FROM a", True),
        ("SELECT json('{')", False),
        ("INSERT INTO a VALUES (1)", False),
    ):
        with pytest.raises(sqlite3.Error) as caught:
            connection.execute(statement)
        wrapped = DBAPIError(statement, None, caught.value)
        with pytest.raises(DatabaseError) as found:
            raise translate(wrapped) from wrapped
        assert is_own(found.value) is own
    connection.close()


# Nodes


@pytest.fixture
def start_oban(database: Database) -> Iterator[Starter]:
    """Start instances on a database of either kind."""
    with starter(database) as one:
        yield one


@contextmanager
def deprived(oban: Oban) -> Iterator[None]:
    """Take the right to delete jobs from a node: by a role, or by SQLite's authorizer."""
    if oban.repo.dialect == "sqlite":
        event.listen(oban.repo.engine, "connect", _forbid)
        oban.repo.engine.dispose()
        yield
        return
    role = f"{oban.config.prefix}_lesser"
    table = f'"{oban.config.prefix}"'

    def act(connection: Any, _entry: object) -> None:
        connection.execute(f"SET ROLE {role}")

    with oban.repo.engine.connect() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA {table} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {table} TO {role}",
            f"GRANT DELETE ON {table}.oban_peers TO {role}",
        ):
            connection.execute(sa.text(statement))
    event.listen(oban.repo.engine, "connect", act)
    oban.repo.engine.dispose()
    try:
        yield
    finally:
        event.remove(oban.repo.engine, "connect", act)
        oban.stop()
        oban.repo.close()
        with oban.repo.engine.connect() as connection:
            connection.execute(sa.text(f"DROP OWNED BY {role}"))
            connection.execute(sa.text(f"DROP ROLE {role}"))
        oban.repo.close()


def _forbid(connection: sqlite3.Connection, _entry: object) -> None:
    def authorize(action: int, table: str | None, *_: object) -> int:
        denied = action == sqlite3.SQLITE_DELETE and table == "oban_jobs"
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)


def put_old_job(start_oban: Starter) -> None:
    """Put in a job that was completed long ago."""
    start_oban.tables.execute(
        "INSERT INTO {jobs} (state, queue, worker, args, scheduled_at, completed_at) VALUES "
        "('completed', 'q', 'w', '{}', '2020-01-01T00:00:00', '2020-01-01T00:00:00')"
    )


def ask(oban: Oban, message: Any = Prune(), name: str = "pruner") -> PluginResult:  # noqa: B008 (frozen)
    """Have a plugin run."""
    result = oban.ask(("plugin", name), message, timeout=60)
    assert isinstance(result, PluginResult)
    return result


def leads(oban: Oban) -> bool:
    """Whether a node leads."""
    return oban.ask("peer", IsLeader(), timeout=30) is True


def test_who_can_prune_takes_over(
    start_oban: Starter, caplog: pytest.LogCaptureFixture, events: Recorder
) -> None:
    """The leader lacks a right and resigns; the other node, which has it, leads and prunes."""
    one = start_oban.make(plugins=[Pruner(interval=3600)])
    put_old_job(start_oban)
    with deprived(one):
        one.start()
        wait_until_leader(one)
        other = start_oban(plugins=[Pruner(interval=3600)])
        for _ in range(TROUBLES):
            assert ask(one).error is not None

        wait_until_leader(other)
        assert ask(other).extra["pruned_count"] == 1
        assert not leads(one)
        assert start_oban.tables.count("completed") == 0
        assert [r for r in caplog.records if "can't run on this node" in r.message]
        assert events.all("oban.peer.election.stop", _lost)


def _lost(event: Event) -> bool:
    return event.metadata["was_leader"] is True and event.metadata["leader"] is False


def test_a_single_node_leads_again(start_oban: Starter, events: Recorder) -> None:
    """Nobody takes over: after some seconds it leads on, and does not resign at once again."""
    one = start_oban.make(plugins=[Pruner(interval=3600)])
    put_old_job(start_oban)
    with deprived(one):
        one.start()
        wait_until_leader(one)
        for _ in range(TROUBLES):
            ask(one)
        wait_until(lambda: not leads(one), message="it resigned")
        wait_until_leader(one)
        for _ in range(TROUBLES):
            assert ask(one).error is not None

        assert leads(one)
        assert len(events.all("oban.peer.election.stop", _lost)) == 1


def test_one_whose_actor_crashes_resigns_too(start_oban: Starter) -> None:
    """A bug that only this node has: its runs are counted over all its actors."""
    one = start_oban.leading(plugins=[Counter(bug=True)])
    other = start_oban(plugins=[Counter()])
    for _ in range(TROUBLES):
        actor = one.whereis(("plugin", "counter"))
        with pytest.raises(ActorError):
            ask(one, Perform(), "counter")

        def renewed(before: Any = actor) -> bool:
            found = one._runtime.registry.whereis(("plugin", "counter"))
            return found is not None and found != before

        wait_until(renewed, message="another actor")

    wait_until_leader(other)
    assert ask(other, Perform(), "counter").extra == {"found": 1}


def test_what_may_pass_is_no_reason(start_oban: Starter) -> None:
    """A statement that the database refuses for its data moves no leadership."""
    division = "SELECT 1 / 0" if start_oban.database.kind == "postgresql" else "SELECT json('{')"
    one = start_oban.leading(plugins=[Counter(statement=division)])
    for _ in range(TROUBLES + 1):
        assert ask(one, Perform(), "counter").error is not None

    assert leads(one)


def test_a_host_may_ask_for_it(start_oban: Starter) -> None:
    """The answer says whether it led; soon after it is not done again."""
    one = start_oban.leading()
    other = start_oban()

    assert other.ask("peer", Resign(), timeout=30) is False
    assert one.ask("peer", Resign(seconds=60.0), timeout=30) is True
    wait_until_leader(other)
    other.stop()
    assert not leads(one)
    assert one.ask("peer", Resign(), timeout=30) is False


def test_told_twice_it_resigns_once(start_oban: Starter, events: Recorder) -> None:
    """The second message finds no leader, or one that resigned a moment ago."""
    one = start_oban.leading()
    for _ in range(3):
        one.tell("peer", Resign(seconds=0.1))
    wait_until_leader(one)
    one.tell("peer", Resign(seconds=0.1))

    assert leads(one)
    assert len(events.all("oban.peer.election.stop", _lost)) == 1


@pytest.mark.db
def test_who_cannot_stage_resigns(pg: Database) -> None:
    """A node that may not update jobs must not be the one that all wait for."""
    with starter(pg) as start_oban:
        one = start_oban.make()
        with deprived(one):
            start_oban.tables.execute(
                f'REVOKE UPDATE ON {start_oban.tables.jobs} FROM "{pg.prefix}_lesser"'
            )
            one.start()
            wait_until_leader(one)
            other = start_oban()
            job = other.insert(Job.new(worker="w", schedule_in=0.01))
            for _ in range(TROUBLES):
                one.ask("stager", Stage(), timeout=30)

            wait_until_leader(other)
            assert job.id is not None
            wait_until(lambda: start_oban.tables.count("available") == 1, message="staged")


def test_an_isolated_peer_stays_as_it_is(start_oban: Starter) -> None:
    """It was told whether it leads."""
    one = start_oban(peer="isolated")

    assert one.ask("peer", Resign(), timeout=30) is False
    one.tell("peer", Resign())
    assert leads(one)


def test_a_leader_that_cannot_be_told_of_stands_back_all_the_same() -> None:
    """The row could not be removed: it is not its own until it stood back."""
    lease = leader().resigned(5.0, "it can't", 10.0).lease.not_withdrawn()

    assert lease.may_own
    mine = lease.looked(replace(row(ME), left=9.0), 11.0).lease
    assert mine.plan(14.0) is Plan.WAIT
    assert mine.plan(15.1) is Plan.CLAIM
