"""A host that keeps its part of the pool busy, and a tree that goes on beside it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
import sqlalchemy as sa

from oban_actors import Beat, Election, GetLease, Oban, Stage
from oban_actors.repo.slots import FOR_ACTORS, Lane
from tests.support.instances import Starter, available, scheduled
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

POOL = 2
CALLS = 4 * POOL


@contextmanager
def busy(oban: Oban) -> Iterator[ThreadPoolExecutor]:
    """Have more threads call the database than there are connections; none comes to its end."""
    free, begun = threading.Event(), threading.Semaphore(0)

    def hang(_connection: sa.Connection) -> None:
        begun.release()
        free.wait(120)

    def call() -> None:
        # Reading, since on SQLite a writer would keep all others from writing.
        oban.repo.transaction(hang, read_only=True, statement_timeout=120.0)

    with ThreadPoolExecutor(CALLS + 1) as threads:
        calls = [threads.submit(call) for _ in range(CALLS)]
        try:
            for _ in range(POOL):
                assert begun.acquire(timeout=30)
            yield threads
            assert not begun.acquire(blocking=False)
        finally:
            free.set()
        for one in calls:
            one.result(120)


def expiry(one: Starter) -> object:
    """When the lease ends, as it stands in the table."""
    return one.tables.execute("SELECT max(expires_at) FROM {peers}")[0][0]


def test_a_busy_host_starves_no_actor(start_oban: Starter) -> None:
    """The Peer renews, the Stager stages and tells, and the host's own calls wait their turn."""
    oban = start_oban.leading(
        pool_size=POOL,
        statement_timeout=60.0,
        peer={"lease": 3.0, "renew": 1.0},
        stager={"interval": 0.2},
        insert_notify=False,
    )
    jobs = oban.insert_all([scheduled(0.5) for _ in range(3)])
    heard = start_oban.hear(oban, "insert")
    with busy(oban) as threads:
        waiting = threads.submit(oban.insert, available("beta"))
        term = oban.ask("peer", GetLease()).term
        wait_until(lambda: start_oban.tables.count("available") == len(jobs))
        heard.wait_for("insert")
        # More renewals than a lease has time for.
        renewals: set[object] = set()
        wait_until(lambda: (renewals.add(expiry(start_oban)), len(renewals) > 4)[1])
        assert oban.ask("peer", GetLease()).term == term
        assert oban.ask("stager", Stage(), timeout=30).error is None
        assert not waiting.done()
    assert waiting.result(60).id


def test_nobody_starves_elections_and_beats(start_oban: Starter) -> None:
    """Where actors use all that is theirs too, the node still leads and shows that it lives."""
    oban = start_oban.leading(pool_size=POOL, statement_timeout=60.0, stager=None)
    heard = start_oban.hear(oban, "sonar")
    with busy(oban), ExitStack() as held:
        for _ in range(FOR_ACTORS):
            held.enter_context(oban.repo._slots.taken(Lane.ACTOR))
        told = len(heard.payloads("sonar"))
        for _ in range(2):
            oban.ask("pulse", Beat(), timeout=30)
            assert oban.ask("peer", Election(), timeout=30) is True
        heard.wait_for("sonar", told + 2)
